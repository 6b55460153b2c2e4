"""A small posterior model that learns in its own way, as a third party would write one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.batch import Batch
from deepesi.core.contracts import Objective, PosteriorModel
from deepesi.physics.head_inputs import LinearInverse, SourceUnit


class ToyFlow(PosteriorModel):
    """Flow matching on the minimum-norm estimate, each moment on its own, by two Euler steps.

    Source: Lipman et al. 2023, arXiv:2210.02747 (straight paths from noise to target).
    """

    bound_to_space = False
    noise_axes = ("dipoles", "times")
    n_draws = 16

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kernel, self.unit = LinearInverse("MNE", 5.0, n_steps=1), SourceUnit()
        self.head_inputs = (self.kernel, self.unit)
        self.velocity = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))

    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """Follow the velocity from noise to moments."""
        known = inputs[self.kernel.key][0] @ data / inputs[self.unit.key]
        moments = noise.unflatten(2, known.shape[1:])
        for time in (0.0, 0.5):
            moments = moments + 0.5 * self._velocity(moments, known, torch.full((), time))
        return moments * inputs[self.unit.key]

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Squared error of the velocity at a time drawn for each example."""
        unit = batch.inputs[self.unit.key]
        known = batch.inputs[self.kernel.key][0] @ batch.data / unit
        target = batch.sources / unit
        noise = torch.randn(target.shape, generator=rng)
        time = torch.rand((len(target), 1, 1), generator=rng)
        velocity = self._velocity((1 - time) * noise + time * target, known, time)
        loss = (velocity - (target - noise)).square().mean()
        return {"loss": loss, "flow": loss.detach()}

    def _velocity(self, moments: Tensor, known: Tensor, time: Tensor) -> Tensor:
        read = torch.broadcast_tensors(moments, known, time)
        return self.velocity(torch.stack(read, dim=-1)).squeeze(-1)
