"""Base class of loss terms, and their weighted sum."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.physics.head_inputs import HeadInput


class LossTerm(nn.Module, ABC):
    """One term of the objective. It has no unit, so that weights are comparable between heads.

    Attributes:
        head_inputs: Head inputs of the nominal head that the term needs.

    """

    head_inputs: tuple[HeadInput, ...] = ()

    @abstractmethod
    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Return one value per example; smaller is better."""


class WeightedSum(nn.Module):
    """Sum of terms with fixed weights. Also returns every term, raw and weighted, for the log.

    Args:
        terms: Terms by name.
        weights: Weights by name, with the same names. A term of weight 0 is evaluated and logged,
            but has no effect on training.

    Attributes:
        head_inputs: Head inputs of all terms.

    Raises:
        ValueError: Terms and weights have different names, there is no term, a weight is negative
            or not finite, or no weight is above zero.

    """

    def __init__(self, terms: Mapping[str, LossTerm], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not terms or set(terms) != set(weights):
            raise ValueError(
                f"WeightedSum: terms {sorted(terms)} and weights {sorted(weights)} must have the "
                "same names, at least one."
            )
        self.terms = nn.ModuleDict(terms)
        self.head_inputs = tuple(dict.fromkeys(d for t in terms.values() for d in t.head_inputs))
        self.weights = {name: float(weight) for name, weight in weights.items()}
        wrong = {k: w for k, w in self.weights.items() if not (w >= 0 and math.isfinite(w))}
        if wrong:
            raise ValueError(
                f"WeightedSum: weights must be finite and zero or more, got {wrong}. A negative "
                "weight would reward errors. To switch a term off, set its weight to 0."
            )
        if not any(self.weights.values()):
            raise ValueError(
                f"WeightedSum: all weights are 0, got {self.weights}. Set at least one above zero."
            )

    def forward(self, estimate: Estimate, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective ``()`` and the detached means of all terms.

        Terms are computed in float32 or better, even if the network uses mixed precision, because
        they divide small differences by small moments.
        """
        raw = {}
        with torch.autocast(estimate.mean.device.type, enabled=False):
            estimate = Estimate(
                _at_least_single(estimate.mean),
                None if estimate.std is None else _at_least_single(estimate.std),
                None if estimate.samples is None else _at_least_single(estimate.samples),
            )
            for name, term in self.terms.items():
                with nullcontext() if self.weights[name] else torch.no_grad():
                    raw[name] = term(estimate, batch).mean()
        weighted = {name: self.weights[name] * value for name, value in raw.items()}
        log = {f"raw/{name}": value.detach() for name, value in raw.items()}
        log |= {f"weighted/{name}": value.detach() for name, value in weighted.items()}
        return torch.stack([weighted[k] for k, w in self.weights.items() if w]).sum(), log


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
