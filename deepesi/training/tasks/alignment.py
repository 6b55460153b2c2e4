"""Domain adaptation: features of simulated and of other recordings get the same distribution."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import InverseModel, Objective
from deepesi.core.unlabelled import Mixed
from deepesi.training.tasks.base import Task
from deepesi.training.tasks.features import LayerFeatures


class Alignment(Task):
    """The supervised objective plus a weighted distance between features of the two domains.

    With weight 0 it is the lower bound, training on the simulated domain alone.

    Args:
        features: Layer whose features are aligned.
        weight: Weight of the distance.
        ramp: Steps over which the weight grows from 0.

    Raises:
        ValueError: The weight is negative, or the ramp shorter than a step.

    """

    batches: ClassVar[type[Mixed]] = Mixed

    def __init__(self, features: LayerFeatures, weight: float = 1.0, ramp: int = 100) -> None:
        super().__init__()
        if weight < 0 or ramp < 1:
            raise ValueError(
                f"{type(self).__name__}: weight must be 0 or more and ramp 1 or more, got {weight} "
                f"and {ramp}."
            )
        self.features, self.weight, self.ramp = features, weight, ramp

    @abstractmethod
    def distance(
        self, source: Float[Tensor, "B F"], target: Float[Tensor, "A F"], step: int
    ) -> Float[Tensor, ""]:
        """Distance between the features of both domains."""

    def training_loss(
        self, model: InverseModel, batch: Mixed, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Objective on the simulated recordings, and the distance to the others."""
        simulated, other = batch.simulated, batch.unlabelled
        estimate, source = self.features(model, simulated.data, simulated.inputs)
        _, target = self.features(model, other.data, other.inputs)
        loss, terms = objective(estimate, simulated)
        step = batch.key[-1]
        distance = self.distance(source, target, step)
        weight = self.weight * min(1.0, step / self.ramp)
        return {"loss": loss + weight * distance, **terms, "distance": distance.detach()}


class Coral(Alignment):
    """Correlation alignment: the features have the same covariance in both domains.

    Source: Sun & Saenko 2016, doi:10.1007/978-3-319-49409-8_35 (deep CORAL).
    """

    def distance(
        self, source: Float[Tensor, "B F"], target: Float[Tensor, "A F"], step: int
    ) -> Float[Tensor, ""]:
        """`coral`; `step` has no effect."""
        return coral(source, target)


def coral(source: Float[Tensor, "B F"], target: Float[Tensor, "A F"]) -> Float[Tensor, ""]:
    """``‖cov(source) − cov(target)‖² / (4 F²)``."""
    difference = torch.cov(source.T) - torch.cov(target.T)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


class MaximumMeanDiscrepancy(Alignment):
    """The features have the same distribution in both domains, by a sum of Gaussian kernels.

    Source: Long et al. 2015, arXiv:1502.02791. Difference: widths are multiples of the median
    distance.
    """

    def distance(
        self, source: Float[Tensor, "B F"], target: Float[Tensor, "A F"], step: int
    ) -> Float[Tensor, ""]:
        """`squared_mmd`; `step` has no effect."""
        return squared_mmd(source, target)


def squared_mmd(source: Float[Tensor, "B F"], target: Float[Tensor, "A F"]) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy (V-statistic, 0 or more) with five Gaussian kernels."""
    n = len(source)
    squares = torch.cdist(both := torch.cat([source, target]), both).square()
    width = squares.detach().median().clamp_min(1e-12)
    kernel = sum(torch.exp(-squares / (factor * width)) for factor in (0.25, 0.5, 1, 2, 4))
    assert isinstance(kernel, Tensor)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


class Adversarial(Alignment):
    """A classifier tells the domains apart, and the features learn to mislead it (DANN).

    Args:
        features: Layer whose features are aligned.
        n_features: Its number of features.
        weight: Weight of the classification loss.
        ramp: Steps over which the weight grows from 0.
        hidden: Width of the classifier.
        total_steps: Steps of the training, for the strength of the reversal
            ``2 / (1 + exp(−10 step / total_steps)) − 1``.

    Source: Ganin et al. 2016, arXiv:1505.07818.

    """

    def __init__(
        self,
        features: LayerFeatures,
        n_features: int,
        weight: float = 1.0,
        ramp: int = 100,
        hidden: int = 32,
        total_steps: int = 1000,
    ) -> None:
        super().__init__(features, weight, ramp)
        self.total_steps = total_steps
        self.classify = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def distance(
        self, source: Float[Tensor, "B F"], target: Float[Tensor, "A F"], step: int
    ) -> Float[Tensor, ""]:
        """Cross entropy of the classifier; its gradient is reversed before the features."""
        strength = 2 / (1 + math.exp(-10 * step / self.total_steps)) - 1
        reverse: Callable[[Tensor, float], Tensor] = ReverseGradient.apply
        features = reverse(torch.cat([source, target]), strength)
        domain = torch.cat([source.new_zeros(len(source)), target.new_ones(len(target))])
        return functional.binary_cross_entropy_with_logits(self.classify(features)[:, 0], domain)


class ReverseGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a negative number."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        """Return the values as they are."""
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Reverse and scale the gradient."""
        return -ctx.strength * gradient, None
