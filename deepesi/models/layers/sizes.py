"""The check that every network makes of its sizes."""


def check_sizes(model: str, **sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: Names the model and what it was given.

    """
    if min(sizes.values()) < 1:
        raise ValueError(f"{model}: all sizes must be 1 or more, got {sizes}.")
