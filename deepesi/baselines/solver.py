"""Solvers that iterate on every recording: inverse models in numpy, without an exported form."""

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepesi.contracts import Estimate, InverseModel
from deepesi.physics.head_inputs import Gain, SourcePositions, Whitener

Array = NDArray[np.float64]


class Solution(NamedTuple):
    """Moments ``(D, T)``, A m, and their posterior deviation ``(D, T)`` where a solver has one."""

    mean: Array
    std: Array | None = None


class Solver(InverseModel):
    """Inverts recordings one by one, whitened, in double precision.

    Whitened noise has unit variance, so that the noise level is known to every solver.
    """

    bound_to_space = False
    exportable = False

    def __init__(self) -> None:
        super().__init__()
        self.whitener, self.gain = Whitener(), Gain(whitened=True)
        self.positions = SourcePositions()
        self.head_inputs = (self.whitener, self.gain, self.positions)

    @abstractmethod
    def solve(self, recording: Array, gain: Array, n_orient: int) -> Solution:
        """Invert one recording.

        Args:
            recording: Whitened, ``(C, T)``.
            gain: Whitened lead field ``(C, D)``, 1/(A m).
            n_orient: Orientations per source.

        """

    def forward(self, eeg: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Every recording on its own."""
        gain = inputs[self.gain.key].double().cpu().numpy()
        recordings = (inputs[self.whitener.key].double() @ eeg.double()).cpu().numpy()
        n_orient = gain.shape[1] // len(inputs[self.positions.key])
        solved = [self.solve(recording, gain, n_orient) for recording in recordings]
        mean, std = (
            None if part[0] is None else torch.as_tensor(np.stack(part), dtype=eeg.dtype)
            for part in zip(*solved, strict=True)
        )
        assert mean is not None
        return Estimate(mean.to(eeg.device), None if std is None else std.to(eeg.device))
