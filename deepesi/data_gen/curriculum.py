"""Curriculum: ranges of the simulation that widen during training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Aspects of the simulation that a curriculum can widen.
ASPECTS = ("noise", "artifacts", "tissues", "electrodes", "montages", "sources")


@dataclass(frozen=True)
class Curriculum:
    """Width of every aspect during training, linear between ``(progress, width)`` points.

    Progress is 0 at the first step and 1 at `n_steps`. A width of 0 means no variation, 1 the full
    range. The default is the full range from the start.

    Args:
        n_steps: Steps of the whole training.
        noise: Points for the power of all noise but white noise.
        artifacts: Points for the probability of artifacts.
        tissues: Points for the range of tissues around the nominal ones.
        electrodes: Points for sensor displacement and co-registration error.
        montages: Points for the share of the list of montages in use, from the first entry on,
            and for subsets, dropout and references other than the average.
        sources: Points for the range of the number of sources, from the smallest number on.

    Raises:
        ValueError: `n_steps` is below 1, or points are not ascending or outside 0-1.

    """

    n_steps: int
    noise: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    artifacts: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    tissues: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    electrodes: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    montages: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    sources: Sequence[tuple[float, float]] = ((0.0, 1.0),)

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise ValueError(f"Curriculum: n_steps must be 1 or more, got {self.n_steps}.")
        for name in ASPECTS:
            points = np.array(getattr(self, name), dtype=float)
            if points.ndim != 2 or points.shape[1] != 2 or not len(points):
                raise ValueError(
                    f"Curriculum: {name} {getattr(self, name)} must be a list of "
                    "[progress, width] pairs."
                )
            inside = ((points >= 0) & (points <= 1)).all()
            if not inside or (np.diff(points[:, 0]) <= 0).any():
                raise ValueError(
                    f"Curriculum: {name} {points.tolist()} must ascend in progress, with progress "
                    "and width within 0-1."
                )

    def widths(self, step: int) -> dict[str, float]:
        """Width of every aspect at a step, 0 to 1."""
        progress = min(step / self.n_steps, 1.0)
        return {
            name: float(np.interp(progress, *np.array(getattr(self, name), dtype=float).T))
            for name in ASPECTS
        }


OPEN = Curriculum(n_steps=1)
