"""A network of one weight: what every source alone would need to be, times that weight."""

import torch
from torch import Tensor

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.physics.head_inputs import Gain
from deepesi_toy.inputs import Sensitivity


class ToyNet(InverseModel):
    """The dipole moment of each source that fits the recording best, scaled.

    Args:
        first: Weight before training.

    """

    bound_to_space = False

    def __init__(self, first: float = 0.5) -> None:
        super().__init__()
        self.gain, self.sensitivity = Gain(), Sensitivity(power=2.0)
        self.head_inputs = (self.gain, self.sensitivity)
        self.weight = torch.nn.Parameter(torch.tensor(first))

    def forward(self, data: Tensor, inputs: dict[str, Tensor]) -> Estimate:
        """Least squares, one source at a time."""
        fitted = inputs[self.gain.key].T @ data
        return Estimate(self.weight * fitted / inputs[self.sensitivity.key][:, None])
