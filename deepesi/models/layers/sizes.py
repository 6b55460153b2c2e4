"""Check of the sizes that a network is built with."""


def check_sizes(model: str, **sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: A size is below 1; the message names the model and all sizes.

    """
    if min(sizes.values()) < 1:
        raise ValueError(f"{model}: all sizes must be 1 or more, got {sizes}.")
