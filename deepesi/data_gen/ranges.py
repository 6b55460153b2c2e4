"""Checks of the ranges that draws are made from."""

from collections.abc import Sequence


def check_range(
    who: str, name: str, value: Sequence[float], low: float, high: float, unit: str
) -> None:
    """Refuse a range that does not ascend within its limits.

    Raises:
        ValueError: Names the owner, the range, its limits and their unit.

    """
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(
            f"{who}: {name} {' to '.join(f'{x:g}' for x in value)} must be an ascending range "
            f"within {low:g} to {high:g} {unit}."
        )


def check_number(who: str, name: str, value: float, low: float, high: float, unit: str) -> None:
    """Refuse a number outside its limits.

    Raises:
        ValueError: Names the owner, the number, its limits and their unit.

    """
    if not low <= value <= high:
        raise ValueError(f"{who}: {name} {value:g} must lie within {low:g} to {high:g} {unit}.")
