"""What every loss term is, and the weighted sum of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.contracts import Batch, Estimate
from deepesi.physics.head_inputs import HeadInput


class LossTerm(nn.Module, ABC):
    """One term of the objective, without unit, so that weights mean the same on every head.

    Attributes:
        head_inputs: What the term asks of the nominal head.

    """

    head_inputs: tuple[HeadInput, ...] = ()

    @abstractmethod
    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """One value per example, smaller is better."""


class WeightedSum(nn.Module):
    """Sum of terms with fixed weights; also gives every term, raw and weighted, for the log.

    Args:
        terms: Name to term.
        weights: Name to weight, the same names; a term of weight 0 is still evaluated and logged,
            but nothing is learned from it.

    Raises:
        ValueError: Names of terms and weights differ, or there is no term; a weight is negative or
            not finite, or none is above zero.

    """

    def __init__(self, terms: Mapping[str, LossTerm], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not terms or set(terms) != set(weights):
            raise ValueError(
                f"WeightedSum: terms {sorted(terms)} and weights {sorted(weights)} must have the "
                "same names, at least one."
            )
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: float(weight) for name, weight in weights.items()}
        wrong = {k: w for k, w in self.weights.items() if not (w >= 0 and math.isfinite(w))}
        if wrong:
            raise ValueError(
                f"WeightedSum: weights must be finite and zero or more, got {wrong}. A negative "
                "weight would reward what its term is there to prevent; to switch a term off, "
                "set its weight to 0."
            )
        if not any(self.weights.values()):
            raise ValueError(
                f"WeightedSum: all weights are 0, got {self.weights}, so there is nothing to "
                "learn. Set at least one above zero."
            )

    @property
    def head_inputs(self) -> tuple[HeadInput, ...]:
        """Union of what the terms ask for."""
        return tuple(dict.fromkeys(d for term in self.terms.values() for d in term.head_inputs))

    def forward(self, estimate: Estimate, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective ``()`` and the detached means of its terms.

        Terms are computed in float32 at least, also where the network runs in mixed precision:
        they divide small differences by small moments.
        """
        raw = {}
        with torch.autocast(estimate.mean.device.type, enabled=False):
            estimate = Estimate(*(x if x is None else _at_least_single(x) for x in estimate))
            for name, term in self.terms.items():
                with nullcontext() if self.weights[name] else torch.no_grad():
                    raw[name] = term(estimate, batch).mean()
        weighted = {name: self.weights[name] * value for name, value in raw.items()}
        log = {f"raw/{name}": value.detach() for name, value in raw.items()}
        log |= {f"weighted/{name}": value.detach() for name, value in weighted.items()}
        return torch.stack([weighted[k] for k, w in self.weights.items() if w]).sum(), log


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
