"""Curriculum: how far the ranges are opened as training goes on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: What a curriculum can open, from clean to everything.
ASPECTS = ("noise", "artifacts", "tissues", "electrodes", "montages")


@dataclass(frozen=True)
class Curriculum:
    """Width of every aspect over training: straight lines between ``(progress, width)`` points.

    Progress goes from 0 at the first step to 1 at `n_steps`; a width from 0 (closed) to 1 (the
    ranges as they are). ``noise``: kinds other than white; ``artifacts``: their probability;
    ``tissues``: around the nominal ones; ``electrodes``: displacement and co-registration;
    ``montages``: how much of the list is in use, from its first entry on, and subsets, dropout
    and references other than the average. What is left out is open from the start.

    Args:
        n_steps: Steps of the whole training.
        noise: Points.
        artifacts: Points.
        tissues: Points.
        electrodes: Points.
        montages: Points.

    Raises:
        ValueError: No steps, or points that do not ascend in progress or leave 0-1.

    """

    n_steps: int
    noise: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    artifacts: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    tissues: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    electrodes: Sequence[tuple[float, float]] = ((0.0, 1.0),)
    montages: Sequence[tuple[float, float]] = ((0.0, 1.0),)

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
        """Width of every aspect at a step."""
        progress = min(step / self.n_steps, 1.0)
        return {
            name: float(np.interp(progress, *np.array(getattr(self, name), dtype=float).T))
            for name in ASPECTS
        }


OPEN = Curriculum(n_steps=1)
