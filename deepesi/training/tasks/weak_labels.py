"""Weak labels: real windows whose sources are expected in a region, with a small weight."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepesi.core.contracts import InverseModel, Objective, as_tensors
from deepesi.core.quantities import magnitude
from deepesi.core.unlabelled import Mixed, Unlabelled
from deepesi.physics.head_inputs import Whitener, prepare
from deepesi.training.tasks.base import Task

#: Share of the power outside of the region below which the loss is zero.
SMALL_SHARE = 1e-3


class WeakLabels(Task):
    """The supervised objective plus a term for real windows with power outside the expected region.

    The region is that of the batch (from a file of expectations), or else the sources around the
    peak of a teacher. Windows without activity above the noise do not count.

    Args:
        teacher: Inverse model whose peak is the weak label of windows without a region.
        weight: Final weight of the weak labels; 1 would be that of simulated targets.
        radius: Radius around the peak, m.
        ramp: Steps over which the weight grows from 0.
        least_power: Least whitened power of a window that counts; noise alone has 1.

    Raises:
        ValueError: The weight is not between 0 and 1, a radius or a power is not positive, or the
            ramp shorter than a step.

    """

    batches: ClassVar[type[Mixed]] = Mixed

    def __init__(
        self,
        teacher: InverseModel,
        weight: float = 0.1,
        radius: float = 0.02,
        ramp: int = 100,
        least_power: float = 2.0,
    ) -> None:
        super().__init__()
        if not (0 <= weight <= 1 and radius > 0 and ramp >= 1 and least_power > 0):
            raise ValueError(
                "WeakLabels: weight must be 0 to 1, radius (m) and least_power above 0 and ramp 1 "
                f"or more, got {weight}, {radius}, {least_power}, {ramp}."
            )
        self.teacher, self.weight, self.radius = teacher.requires_grad_(False), weight, radius
        self.ramp, self.least_power = ramp, least_power

    def training_loss(
        self, model: InverseModel, batch: Mixed, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Objective on the simulated recordings; ``−log`` of the power in the region on others."""
        simulated, real = batch.simulated, batch.unlabelled
        loss, terms = objective(model(simulated.data, simulated.inputs), simulated)
        regions = self.peak_regions(real) if real.regions is None else real.regions
        power = magnitude(model(real.data, real.inputs).mean, real.head.space.n_orient).square()
        share = (power * regions).sum(1) / power.sum(1).clamp_min(1e-30)
        counts = self._counts(real)
        weak = -(share + SMALL_SHARE).log()
        weak = (weak * counts).sum() / counts.sum().clamp_min(1)
        weight = self.weight * min(1.0, batch.key[-1] / self.ramp)
        return {"loss": loss + weight * weak, **terms, "weak": weak.detach()}

    def peak_regions(self, batch: Unlabelled) -> Bool[Tensor, "B S"]:
        """Sources within the radius of the teacher's peak."""
        with torch.no_grad():
            inputs = as_tensors(prepare(self.teacher.head_inputs, batch.head), batch.data.device)
            estimate = self.teacher(batch.data, inputs).mean
        peaks = magnitude(estimate, batch.head.space.n_orient).argmax(1)
        positions = torch.as_tensor(batch.head.source_pos, dtype=torch.float32)
        positions = positions.to(batch.data.device)
        return torch.cdist(positions[peaks], positions) <= self.radius

    def _counts(self, batch: Unlabelled) -> Float[Tensor, " B"]:
        """1 for windows with activity, else 0."""
        whitener = as_tensors({"w": Whitener().compute(batch.head)}, batch.data.device)["w"]
        white = whitener @ batch.data
        return (white.square().mean((1, 2)) >= self.least_power).float()
