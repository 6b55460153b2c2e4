"""The minimum-norm family: MNE, dSPM, sLORETA and eLORETA as inverse models."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.contracts import Estimate, InverseModel
from deepesi.physics.head_inputs import LinearInverse, Whitener


class MinimumNorm(InverseModel):
    """One linear inverse whose regularization follows from the known noise level.

    The noise covariance is known, so whitened noise has unit power and the SNR of a recording is
    read off its whitened power: ``‖W v‖² / (T (C-1)) - 1``. The kernel made for the nearest SNR of
    a grid (-10 to 30 dB in steps of 2.5 dB) is applied, with ``lambda2 = 1 / SNR``. Fixed or free
    orientation, as the head's.

    Args:
        method: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.

    Source: see `deepesi.physics.linear_inverse`. dSPM and sLORETA are scaled to A m, which leaves
    their maps as they are; see `LinearInverse`.

    """

    bound_to_space = False

    def __init__(self, method: str = "eLORETA") -> None:
        super().__init__()
        self.method = method
        self.whitener = Whitener()
        self.kernels = LinearInverse(method=method)
        self.head_inputs = (self.whitener, self.kernels)

    def forward(self, eeg: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Apply the kernel of each example's SNR."""
        whitened = inputs[self.whitener.key] @ eeg
        power = whitened.square().mean(2).sum(1) / (eeg.shape[1] - 1)
        snr_db = 10 * torch.log10(torch.clamp(power - 1, min=1e-3))
        grid = self.kernels
        step = torch.round((snr_db - grid.snr_db_low) / grid.snr_db_step).long()
        kernel = inputs[grid.key][step.clamp(0, grid.n_steps - 1)]
        return Estimate(kernel @ eeg)
