"""How far to trust each electrode, where its potential may be that of another place."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.physics.head_inputs import SensorGraph, SensorPositions

#: How far electrodes lie from where they are thought to be, m, and how wrong a lead field is, as a
#: fraction, before training.
DISPLACEMENT, MISFIT = 0.005, 0.05


class SensorReliability(nn.Module):
    """Factors, at most 1, that bring noise and errors of the head at an electrode to variance 1.

    An electrode that is displaced by a vector ``d`` is off by about ``d · grad V``, so it is
    trusted the less the steeper the potential is around it; and the less the larger its potential
    itself is, as for an error of the lead field. How much less is learned, from 5 mm and 5 % on.
    Potentials are whitened ones, and what counts is their energy over the window, so the factors
    follow neither the sign of a recording nor a rotation of its samples.

    Args:
        n_neighbours: Nearest electrodes from which the slope is taken, at least.

    """

    def __init__(self, n_neighbours: int = 5) -> None:
        super().__init__()
        self.graph, self.positions = SensorGraph(n_neighbours), SensorPositions()
        self.head_inputs = (self.graph, self.positions)
        self.log_mismatch = nn.Parameter(torch.zeros(2))  # of the slope, of the potential

    def forward(
        self, white: Float[Tensor, "C T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "C B"]:
        """Factors for a whitened recording, and for topographies that are to explain it."""
        sender, receiver = inputs[self.graph.key].unbind(1)
        places = inputs[self.positions.key].to(white.dtype)
        distance = (places[sender] - places[receiver]).square().sum(1, keepdim=True)
        steps = (white[sender] - white[receiver]).square().mean(1) / distance
        slope, degree = (
            torch.zeros_like(white[:, 0]).index_add(0, receiver, values)
            for values in (steps, torch.ones_like(steps))
        )
        slope = DISPLACEMENT**2 * slope / degree
        error = MISFIT**2 * white.square().mean(1)
        of_slope, of_potential = self.log_mismatch.exp()
        return (1 + of_slope * slope + of_potential * error).rsqrt()
