"""Transport: how far the activity of the estimate lies from that of the truth."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepesi.core.contracts import Batch, Estimate
from deepesi.core.quantities import magnitude
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import SourcePositions

#: Added to every magnitude of an estimate, as a fraction of the largest true one: an estimate of
#: zero becomes the uniform map, as in `deepesi.metrics.functional.nemd`, and gradients stay finite.
BACKGROUND = 1e-5


class EnergyDistance(LossTerm):
    r"""``(2 p̂ᵀ D p − p̂ᵀ D p̂ − pᵀ D p) / (2 uᵀ D p − uᵀ D u − pᵀ D p)`` (no unit).

    Squared energy distance of the normalized maps ``p̂`` and ``p`` (magnitudes per source,
    `quantities.magnitude`, over their sum), ``D`` the Euclidean distances of the sources, over that
    of the uniform map ``u``. A surrogate of the normalized earth mover's distance without its
    linear program: between two points it is twice their distance, as the earth mover's is once;
    0 only where the maps agree; 1 for the uniform map and for an estimate of zero. Unlike it, an
    estimate that mixes the truth with a share ``a`` of the uniform map scores ``a²``, not ``a``:
    a faint haze over the cortex is hardly seen, so use it beside a term that sees it. Blind to
    scale and sign.

    Costs one product ``(B, S) @ (S, S)`` forward and one backward, and one for the truth.

    Source: Székely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018; as a loss on maps Feydy et al.
    2019, arXiv:1810.08278.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = SourcePositions()
        self.head_inputs = (self.positions,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        places = batch.inputs[self.positions.key]
        # The route by a matrix product would be off by 0.1 mm, for no gain in time.
        distances = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
        target, found = _maps(estimate, batch)
        return _energy(found - target, distances) / _energy(1 / len(places) - target, distances)


class PeakTransport(LossTerm):
    r"""Work to gather the activity at the true peaks, over that for the uniform map (no unit).

    ``(Σ_s p̂_s d_s + ½ Σ_k |P̂_k − P_k| D_k) / mean_s d_s`` with ``p̂`` the normalized map of the
    estimate, ``d_s`` the distance of source ``s`` to the nearest true peak ``k``, ``P̂_k`` and
    ``P_k`` what of estimate and target lies nearest to peak ``k``, and ``D_k`` its mean distance to
    the other peaks. The first term is linear in the map: its minimum given the data is no blurred
    posterior mean but everything at the place of least expected distance, as the localization
    error wants it, and the normalized earth mover's distance nearly so. Blind to scale, sign and
    the extent of a patch; use it beside a supervised term.

    Source: ours; the minimum of an expected distance, e.g. Berger 1985,
    doi:10.1007/978-1-4757-4286-2, and transport to given sinks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = SourcePositions()
        self.head_inputs = (self.positions,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        places = batch.inputs[self.positions.key]
        target, found = _maps(estimate, batch)
        present, to_peak = _distances_to_peaks(batch, places)
        nearest, cell = to_peak.min(1)
        at = places[batch.scene.peaks.clamp_min(0)]
        surplus = torch.zeros_like(at[..., 0]).scatter_add(1, cell, found - target).abs()
        between = (at[:, :, None] - at[:, None]).square().sum(3).sqrt() * present[:, None]
        others = (present.sum(1, keepdim=True) - 1).clamp_min(1)
        imbalance = 0.5 * (surplus * between.sum(2) / others).sum(1)
        return ((found * nearest).sum(1) + imbalance) / nearest.mean(1)


class PeakDistance(LossTerm):
    r"""How far from the true peaks the estimate is strongest, in relative terms (no unit).

    ``mean_k log(1 + d_k / d₀) / log(1 + D / d₀)`` with ``d_k`` the mean distance to the true peak
    ``k`` of the sources nearer to it than to another, weighted by the fourth power of their
    magnitudes, ``d₀`` 3 mm and ``D`` the same mean of the uniform map. The power makes it a
    differentiable stand-in of the localization error, which knows the strongest source only; the
    logarithm lets a millimetre at high SNR count as much as a centimetre where noise hides the
    source. Blind to scale, sign and how activity is shared among peaks; use it beside
    `PeakTransport`.

    Source: ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = SourcePositions()
        self.head_inputs = (self.positions,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class."""
        _, found = _maps(estimate, batch)
        present, to_peak = _distances_to_peaks(batch, batch.inputs[self.positions.key])
        nearest, cell = to_peak.min(1)
        mine = cell[:, None] == torch.arange(present.shape[1], device=cell.device)[:, None]
        strength = torch.where(mine, found[:, None], 0.0)
        share = (strength / strength.amax(2, keepdim=True).clamp_min(1e-30)) ** 4
        distance, uniform = (
            (weight * nearest[:, None]).sum(2) / weight.sum(2).clamp_min(1e-30)
            for weight in (share, mine.to(share.dtype))
        )
        # A peak without any other source in its cell is met by whatever lies there.
        relative = (distance / RESOLVED).log1p() / (uniform / RESOLVED).log1p().clamp_min(1e-9)
        return torch.where(present, relative, 0.0).sum(1) / present.sum(1)


#: Distances below this hardly count, m: sources lie about as far apart as twice this.
RESOLVED = 0.003


def _distances_to_peaks(
    batch: Batch, places: Float[Tensor, "S 3"]
) -> tuple[Bool[Tensor, "B K"], Float[Tensor, "B K S"]]:
    """Which peaks there are, and how far every source is from each, m; infinite without one."""
    present = batch.scene.peaks >= 0
    at = places[batch.scene.peaks.clamp_min(0)]
    to_peak = (at[:, :, None] - places).square().sum(3).sqrt()
    return present, torch.where(present[..., None], to_peak, torch.inf)


def _maps(estimate: Estimate, batch: Batch) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"]]:
    """Normalized maps of the truth and the estimate."""
    n_orient = batch.head.space.n_orient
    target = magnitude(batch.sources, n_orient)
    found = magnitude(estimate.mean, n_orient) + BACKGROUND * target.amax(1, keepdim=True)
    return target / target.sum(1, keepdim=True), found / found.sum(1, keepdim=True)


def _energy(difference: Float[Tensor, "B S"], distances: Float[Tensor, "S S"]) -> Tensor:
    """``−dᵀ D d`` per example ``(B,)``: not negative for differences that sum to zero."""
    return -(difference @ distances * difference).sum(1)
