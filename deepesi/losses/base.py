"""What every loss term is, and the weighted sum of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.contracts import Batch, Estimate
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
        weights: Name to weight, the same names; a term of weight 0 is still evaluated and logged.

    Raises:
        ValueError: Names of terms and weights differ, or there is no term.

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

    @property
    def head_inputs(self) -> tuple[HeadInput, ...]:
        """Union of what the terms ask for."""
        return tuple(dict.fromkeys(d for term in self.terms.values() for d in term.head_inputs))

    def forward(self, estimate: Estimate, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective ``()`` and the detached means of its terms."""
        raw = {name: term(estimate, batch).mean() for name, term in self.terms.items()}
        weighted = {name: self.weights[name] * value for name, value in raw.items()}
        log = {f"raw/{name}": value.detach() for name, value in raw.items()}
        log |= {f"weighted/{name}": value.detach() for name, value in weighted.items()}
        return torch.stack(list(weighted.values())).sum(), log
