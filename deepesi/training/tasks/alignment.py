"""Domain adaptation: features of simulated and of other recordings get the same distribution."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.contracts import InverseModel, Objective
from deepesi.core.unlabelled import Mixed
from deepesi.training.tasks.base import Task
from deepesi.training.tasks.features import LayerFeatures


class Alignment(Task):
    """The supervised objective plus a weighted distance between features of the two domains.

    With weight 0 it is the lower bound, training on the simulated domain alone.

    Args:
        features: Layer whose features are aligned.
        distance: Distance of two samples of features ``(N, F)`` and ``(M, F)``: `Coral`, or
            `MaximumMeanDiscrepancy` (MMD) and `DomainAdversary` (DANN) of
            `deepesi.losses.alignment`.
        weight: Weight of the distance.
        ramp: Steps over which the weight grows from 0.

    Raises:
        ValueError: The weight is negative, or the ramp shorter than a step.

    """

    batches: ClassVar[type[Mixed]] = Mixed

    def __init__(
        self, features: LayerFeatures, distance: nn.Module, weight: float = 1.0, ramp: int = 100
    ) -> None:
        super().__init__()
        if weight < 0 or ramp < 1:
            raise ValueError(
                f"Alignment: weight must be 0 or more and ramp 1 or more, got {weight} and {ramp}."
            )
        self.features, self.distance, self.weight, self.ramp = features, distance, weight, ramp

    def training_loss(
        self, model: InverseModel, batch: Mixed, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Objective on the simulated recordings, and the distance to the others."""
        simulated, other = batch.simulated, batch.unlabelled
        estimate, source = self.features(model, simulated.data, simulated.inputs)
        _, target = self.features(model, other.data, other.inputs)
        loss, terms = objective(estimate, simulated)
        if (
            min(len(source), len(target)) < 2
        ):  # the last windows of a file; a distance needs two examples
            distance = 0.0 * (source.sum() + target.sum())
        else:
            distance = self.distance(source, target)
        weight = self.weight * min(1.0, batch.key[-1] / self.ramp)
        return {"loss": loss + weight * distance, **terms, "distance": distance.detach()}


class Coral(nn.Module):
    """Correlation alignment: ``‖cov(source) − cov(target)‖² / (4 F²)``, ``()``.

    Source: Sun & Saenko 2016, doi:10.1007/978-3-319-49409-8_35 (deep CORAL).
    """

    def forward(
        self, first: Float[Tensor, "N F"], second: Float[Tensor, "M F"]
    ) -> Float[Tensor, ""]:
        """Distance of two samples, one row per example."""
        difference = torch.cov(first.T) - torch.cov(second.T)
        return difference.square().sum() / (4 * first.shape[1] ** 2)
