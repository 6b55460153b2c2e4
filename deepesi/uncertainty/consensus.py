"""Consensus: a calibrated mixture of several inverse models over source locations."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deepesi.calibration.conformal import REACH
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.physics.head_inputs import SourcePositions
from deepesi.runtime.window_needs import WindowNeeds
from deepesi.uncertainty.ensemble import mean_source_counts

#: Exponents among which `fit_consensus` chooses one per member.
EXPONENTS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
#: Least magnitude or evidence that counts, relative to the largest.
FLOOR = 1e-12
#: Least divisor, so that zero maps stay zero.
TINY = 1e-30


class Consensus(InverseModel):
    r"""Mixture of the members' probabilities that a source is active, as one estimate.

    Member ``k`` gives source ``s`` the probability ``p_k(s) ∝ e_k(s)^a_k``. Its evidence ``e_k`` is
    the power of its map, pooled over neighbours as in `deepesi.calibration.conformal`, so that also
    the neighbours of a single dipole have some. The mixture is ``P(s) = Σ w_k p_k(s)``. The
    estimate is the posterior mean of one source that is at ``s`` with probability ``P(s)``: its
    magnitude is ``M P(s)``, with ``M`` the sum of the magnitudes of the first member. Direction and
    time course come from the members, each weighted by ``w_k p_k(s)``. The standard deviation is
    that of the location, ``M sqrt(P (1 - P))``, equal for all components of a source.

    Args:
        members: At least two models for the same source space, of any class. The first gives the
            total moment.
        weights: Weight ``w_k`` of each member, 0 or more; their sum is made 1. None: equal.
        exponents: Exponent ``a_k`` of each member, above 0. None: 1.

    Raises:
        ValueError: There are fewer than two members, or not one valid weight and exponent each.
        TypeError: A member is not an inverse model.

    Source: linear opinion pool, Stone 1961, doi:10.1214/aoms/1177704873, with the members
    calibrated by an exponent each. Difference: the opinions are probabilities of locations, and the
    estimate is a map of dipole moments.

    """

    weights: Tensor
    exponents: Tensor

    def __init__(
        self,
        members: Sequence[InverseModel],
        weights: Sequence[float] | None = None,
        exponents: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        weights, exponents = weights or [1.0] * len(members), exponents or [1.0] * len(members)
        _check(members, weights, exponents)
        self.members, self.positions = nn.ModuleList(members), SourcePositions()
        declared = [d for member in members for d in member.head_inputs]
        self.head_inputs = tuple(dict.fromkeys([*declared, self.positions]))
        self.bound_to_space = any(member.bound_to_space for member in members)
        self.exportable = all(member.exportable for member in members)
        self.window_needs = WindowNeeds.joined(member.window_needs for member in members)
        self.register_buffer("weights", torch.tensor(weights) / sum(weights))
        self.register_buffer("exponents", torch.tensor(exponents, dtype=torch.float32))

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Moments whose magnitude is proportional to the probability of a source."""
        estimates = self._estimates(data, inputs)
        maps = self._maps(estimates, inputs)
        magnitudes = _magnitudes(maps)
        evidence = log_evidence(magnitudes, inputs[self.positions.key])
        log_p = log_probability(evidence, self.exponents[:, None, None])
        shares = self.weights[:, None, None] * log_p.exp()
        probability = shares.sum(0)
        total = magnitudes[0].sum(1, keepdim=True)
        time_course = _mean_time_course(maps, magnitudes, shares)
        mean = (total * probability)[..., None, None] * time_course
        spread = total * (probability * (1 - probability)).clamp_min(0).sqrt()
        std = spread[..., None, None] * time_course.square().mean(2, keepdim=True).sqrt()
        counts = mean_source_counts(estimates, self.weights)
        mean, std = mean.flatten(1, 2), std.expand_as(mean).flatten(1, 2)
        return Estimate(mean, std, source_counts=counts)

    def log_evidences(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "M B S"]:
        """Log evidence ``log e_k`` of every member; it does not depend on weights or exponents."""
        magnitudes = _magnitudes(self._maps(self._estimates(data, inputs), inputs))
        return log_evidence(magnitudes, inputs[self.positions.key])

    def _estimates(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> list[Estimate]:
        return [cast("InverseModel", member)(data, inputs) for member in self.members]

    def _maps(
        self, estimates: Sequence[Estimate], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "M B S O T"]:
        maps = torch.stack([estimate.mean for estimate in estimates])
        return maps.unflatten(2, (inputs[self.positions.key].shape[0], -1))


def _check(
    members: Sequence[InverseModel], weights: Sequence[float], exponents: Sequence[float]
) -> None:
    """Refuse members and settings that do not form a mixture."""
    wrong = [type(member).__name__ for member in members if not isinstance(member, InverseModel)]
    if wrong:
        raise TypeError(
            f"Consensus: members must be inverse models, got {wrong}. Load a network or an "
            "exported file with deepesi.training.saved.load_any."
        )
    if len(members) < 2:
        raise ValueError(
            f"Consensus: needs 2 members or more, got {len(members)}. Add another method."
        )
    if len(weights) != len(members) or min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(
            f"Consensus: weights must be {len(members)} numbers of 0 or more, one per member and "
            f"not all 0, got {list(weights)}."
        )
    if len(exponents) != len(members) or not min(exponents) > 0:
        raise ValueError(
            f"Consensus: exponents must be {len(members)} numbers above 0, one per member, got "
            f"{list(exponents)}."
        )


def _magnitudes(maps: Float[Tensor, "M B S O T"]) -> Float[Tensor, "M B S"]:
    """Magnitudes as in `deepesi.core.quantities.magnitude`."""
    return torch.linalg.vector_norm(maps, dim=(3, 4)) / maps.shape[4] ** 0.5


def _mean_time_course(
    maps: Float[Tensor, "M B S O T"],
    magnitudes: Float[Tensor, "M B S"],
    shares: Float[Tensor, "M B S"],
) -> Float[Tensor, "B S O T"]:
    """Direction and time course of magnitude 1, the mean over the members by their shares."""
    least = FLOOR * magnitudes.amax(2, keepdim=True) + TINY
    factors = shares / magnitudes.maximum(least)
    mean = (factors[..., None, None] * maps).sum(0)
    size = mean.square().sum(2, keepdim=True).mean(3, keepdim=True).sqrt()
    return mean / size.clamp_min(TINY)


def log_evidence(
    magnitudes: Float[Tensor, "*batch S"], positions: Float[Tensor, "S 3"]
) -> Float[Tensor, "*batch S"]:
    """Logarithm of the pooled power of maps, relative to the strongest source.

    Args:
        magnitudes: Magnitudes of the sources, A m.
        positions: Source locations, m.

    Source: the evidence of `deepesi.calibration.conformal.source_scores`, with its kernel.

    """
    squared = (positions[:, None] - positions[None]).square().sum(2)
    kernel = (1 + squared / REACH**2) ** -1.5
    power = (magnitudes / magnitudes.amax(-1, keepdim=True).clamp_min(TINY)).square()
    return (power @ kernel).clamp_min(FLOOR).log()


def log_probability(
    evidence: Float[Tensor, "*batch S"], exponent: Tensor | float
) -> Float[Tensor, "*batch S"]:
    """Log probability of every source, ``a log e`` normalized over sources."""
    return (exponent * evidence).log_softmax(-1)


def fit_consensus(
    members: Sequence[InverseModel], batches: Iterable[Batch], n_steps: int = 100
) -> Consensus:
    """Consensus with the weights and exponents of maximum likelihood of the true sources.

    Every true source of every recording counts once. Expectation maximization: the responsibility
    of a member for a source follows from its probability there; then the weight is the mean
    responsibility, and the exponent the best of `EXPONENTS` under the responsibilities.

    Args:
        members: Models, the first as in `Consensus`.
        batches: Simulated recordings with the head inputs of `Consensus(members)`, which no member
            was trained or is tested on.
        n_steps: Number of updates, at least 1.

    Raises:
        ValueError: There is no batch, or `n_steps` is below 1.

    Source: Dempster, Laird & Rubin 1977, doi:10.1111/j.2517-6161.1977.tb01600.x.

    """
    if n_steps < 1:
        raise ValueError(f"fit_consensus: n_steps must be 1 or more, got {n_steps}.")
    equal = Consensus(members).eval()
    with torch.no_grad():
        evidences = [
            _at_targets(equal.log_evidences(batch.data, batch.inputs), batch.scene.peaks)
            for batch in batches
        ]
    if not evidences:
        raise ValueError(
            "fit_consensus: no recordings to fit on. Give batches of the split 'validation'."
        )
    weights, exponents = maximum_likelihood(torch.cat(evidences, 2), n_steps)
    return Consensus(members, weights.tolist(), [EXPONENTS[k] for k in exponents.tolist()]).eval()


def maximum_likelihood(
    log_p: Float[Tensor, "G M N"], n_steps: int
) -> tuple[Float[Tensor, " M"], Int[Tensor, " M"]]:
    """Weights of the members, and the index of the exponent of each.

    Args:
        log_p: Log probability of ``N`` targets by exponent and member.
        n_steps: Number of updates.

    """
    n_members = log_p.shape[1]
    weights = log_p.new_full((n_members,), 1 / n_members)
    best = log_p.mean(2).argmax(0)
    members = torch.arange(n_members)
    for _ in range(n_steps):
        responsibility = (weights.log()[:, None] + log_p[best, members]).softmax(0)
        weights = responsibility.mean(1)
        best = (responsibility * log_p).sum(2).argmax(0)
    return weights, best


def _at_targets(
    evidence: Float[Tensor, "M B S"], peaks: Int[Tensor, "B K"]
) -> Float[Tensor, "G M N"]:
    """Log probability of the true sources by exponent and member."""
    example, slot = torch.nonzero(peaks >= 0, as_tuple=True)
    source = peaks[example, slot]
    return torch.stack([log_probability(evidence, a)[:, example, source] for a in EXPONENTS])
