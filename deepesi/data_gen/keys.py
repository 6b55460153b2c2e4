"""Random generators from a key (seed, split, rank, step): reproducible and different per rank."""

import numpy as np
import torch

from deepesi.physics.cohort import SPLITS


def key_entropy(seed: int, split: str, rank: int, step: int) -> list[int]:
    """Convert the key to entropy for `numpy.random.SeedSequence`.

    Raises:
        ValueError: The split is unknown, or a number is negative.

    """
    if split not in SPLITS:
        raise ValueError(f"key_entropy: unknown split {split!r}, expected one of {SPLITS}.")
    entropy = [seed, SPLITS.index(split), rank, step]
    if min(entropy) < 0:
        raise ValueError(
            f"key_entropy: seed, rank and step must not be negative, got {(seed, rank, step)}."
        )
    return entropy


def torch_generator(
    seed: int,
    split: str,
    rank: int,
    step: int,
    *purpose: int,
    device: torch.device | str = "cpu",
) -> torch.Generator:
    """Return the `torch.Generator` of one batch, or of another purpose with a number of its own."""
    entropy = [*key_entropy(seed, split, rank, step), *purpose]
    state = np.random.SeedSequence(entropy).generate_state(1, "u8")
    return torch.Generator(device=device).manual_seed(int(state[0] >> np.uint64(1)))


def uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> torch.Tensor:
    """Uniform draws on the device of the generator."""
    return low + (high - low) * torch.rand(shape, generator=rng, device=rng.device)
