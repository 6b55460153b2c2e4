"""Checks of ranges and numbers of a configuration."""

from collections.abc import Sequence

#: Units of lengths and angles, with an example, for messages.
METRES = "m: metres (5 mm is 0.005)"
RADIANS = "rad: radians (3 degrees is 0.052)"


def check_range(
    who: str, name: str, value: Sequence[float], low: float, high: float, unit: str
) -> None:
    """Refuse a range that is not ascending or exceeds the limits.

    Raises:
        ValueError: The message names the class, the setting, the limits and their unit.

    """
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(
            f"{who}: {name} {' to '.join(f'{x:g}' for x in value)} must be an ascending range "
            f"within {low:g} to {high:g} {unit}."
        )


def check_number(who: str, name: str, value: float, low: float, high: float, unit: str) -> None:
    """Refuse a number outside the limits.

    Raises:
        ValueError: The message names the class, the setting, the limits and their unit.

    """
    if not low <= value <= high:
        raise ValueError(f"{who}: {name} {value:g} must lie within {low:g} to {high:g} {unit}.")
