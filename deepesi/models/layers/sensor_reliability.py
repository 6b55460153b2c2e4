"""Learned weight of each sensor, given errors of its position and of the lead field."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.physics.head_inputs import SensorGraph, SensorPositions

#: Initial error of an sensor position, m, and initial relative error of the lead field.
POSITION_ERROR, LEADFIELD_ERROR = 0.005, 0.05


class SensorReliability(nn.Module):
    """Factors, at most 1, that bring noise plus head model errors per sensor to variance 1.

    A displacement ``d`` of an sensor changes its potential by about ``d · grad V``: the steeper
    the potential around the sensor, the lower its weight. An error of the lead field grows with
    the potential itself: the larger the potential, the lower the weight. The size of both errors
    is learned, starting from 5 mm and 5 %. Only the energy of the whitened data over the window
    enters, so the factors do not depend on the sign of the data or a rotation of the samples.

    Args:
        n_neighbours: Nearest sensors, at least, from which the slope is computed.

    """

    def __init__(self, n_neighbours: int = 5) -> None:
        super().__init__()
        self.graph, self.positions = SensorGraph(n_neighbours), SensorPositions()
        self.head_inputs = (self.graph, self.positions)
        self.log_mismatch = nn.Parameter(torch.zeros(2))  # factors: slope, potential

    def forward(
        self, white: Float[Tensor, "C T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "C B"]:
        """Factors to multiply whitened data and whitened topographies with."""
        sender, receiver = inputs[self.graph.key].unbind(1)
        positions = inputs[self.positions.key].to(white.dtype)
        distance = (positions[sender] - positions[receiver]).square().sum(1, keepdim=True)
        apart = (distance > 0).to(white.dtype)  # two gradiometers may share a position
        steps = (white[sender] - white[receiver]).square().mean(1) / (distance + 1 - apart)
        slope, degree = (
            torch.zeros_like(white[:, 0]).index_add(0, receiver, values)
            for values in (apart * steps, apart * torch.ones_like(steps))
        )
        slope = POSITION_ERROR**2 * slope / degree.clamp_min(1)
        potential = LEADFIELD_ERROR**2 * white.square().mean(1)
        slope_factor, potential_factor = self.log_mismatch.exp()
        return (1 + slope_factor * slope + potential_factor * potential).rsqrt()
