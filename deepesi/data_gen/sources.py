"""Cortical patches: where they are, how far they reach, how they go over time."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.data_gen.keys import uniform


class Patches(NamedTuple):
    """Sources of unit peak, with what was drawn; places beyond an example's count are -1 and 0."""

    sources: Float[Tensor, "B S T"]
    peaks: Int[Tensor, "B K"]
    extents: Float[Tensor, "B K"]


@dataclass(frozen=True)
class PatchSources:
    """Draws 1 to K patches of activity per example.

    A patch has a Gaussian profile ``exp(-d² / 2(r/2)²)`` of the distance ``d`` from its centre and
    ends at its radius ``r``. Centres are uniform over the sources, amplitudes uniform in 0.5-1
    with random sign. A snapshot (``T = 1``) has no time course; for longer windows every patch
    follows its own Gabor wavelet.

    Args:
        n_sources: Fewest and most patches.
        radius: Smallest and largest radius, m.
        min_distance: Least distance between centres, m.

    Raises:
        ValueError: A range is out of order or not in metres.

    """

    n_sources: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.010, 0.025)
    min_distance: float = 0.03

    def __post_init__(self) -> None:
        low, high = self.n_sources
        if not 1 <= low <= high:
            raise ValueError(
                f"PatchSources: n_sources must be a range from 1 upwards, got {low}-{high}."
            )
        if not 0 <= self.min_distance <= 0.06:
            raise ValueError(
                f"PatchSources: min_distance {self.min_distance:g} must lie within 0-0.06; it is "
                "in metres (30 mm is 0.03)."
            )
        if not 1e-3 <= self.radius[0] <= self.radius[1] <= 0.1:
            raise ValueError(
                f"PatchSources: radius {self.radius[0]:g}-{self.radius[1]:g} must be an ascending "
                "range within 0.001-0.1. Radii are in metres (10 mm is 0.010)."
            )

    def draw(
        self,
        distances: Float[Tensor, "S S"],
        n_examples: int,
        n_times: int,
        rng: torch.Generator,
    ) -> Patches:
        """Draw sources of unit order; distances ``(S, S)`` in m decide the shape of a patch."""
        most = self.n_sources[1]
        counts = torch.randint(
            self.n_sources[0], most + 1, (n_examples, 1), generator=rng, device=rng.device
        )
        present = torch.arange(most, device=rng.device) < counts
        peaks = self._centres(distances, n_examples, most, rng)
        extents = uniform((n_examples, most), *self.radius, rng)
        distance = distances[peaks]
        profile = torch.exp(-2 * (distance / extents[..., None]).square())
        profile = profile * (distance <= extents[..., None]) * present[..., None]
        amplitude = uniform((n_examples, most), 0.5, 1.0, rng)
        sign = torch.randint(0, 2, (n_examples, most), generator=rng, device=rng.device) * 2 - 1
        course = (amplitude * sign)[..., None] * gabor(n_examples, most, n_times, rng)
        return Patches(
            sources=torch.einsum("bks,bkt->bst", profile, course),
            peaks=torch.where(present, peaks, -1),
            extents=torch.where(present, extents, 0.0),
        )

    def _centres(
        self, distances: Tensor, n_examples: int, most: int, rng: torch.Generator
    ) -> Tensor:
        """Centres uniform over the sources that are far enough from those already placed."""
        free = torch.ones(n_examples, len(distances), device=rng.device, dtype=torch.bool)
        chosen = []
        for _ in range(most):
            count = free.cumsum(1, dtype=torch.int32)
            nth = (uniform((n_examples, 1), 0.0, 1.0, rng) * count[:, -1:]).floor().int() + 1
            centre = torch.searchsorted(count, nth)[:, 0]
            free = free & (distances[centre] > self.min_distance)
            chosen.append(centre)
        return torch.stack(chosen, dim=1)


def gabor(
    n_examples: int, n_patches: int, n_times: int, rng: torch.Generator
) -> Float[Tensor, "B K T"]:
    """Time courses: one for a snapshot, else Gabor wavelets of 0-4 cycles in the window."""
    shape = (n_examples, n_patches, 1)
    if n_times == 1:
        return torch.ones(shape, device=rng.device)
    time = torch.linspace(0, 1, n_times, device=rng.device)
    centre, width = uniform(shape, 0.2, 0.8, rng), uniform(shape, 0.1, 0.4, rng)
    cycles, phase = uniform(shape, 0.0, 4.0, rng), uniform(shape, 0.0, 2 * math.pi, rng)
    offset = time - centre
    envelope = torch.exp(-0.5 * (offset / width).square())
    return envelope * torch.cos(2 * math.pi * cycles * offset + phase)
