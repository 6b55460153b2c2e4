"""Transport: distance between the activity of the estimate and of the target."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.core.quantities import magnitude
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import SourcePositions

#: Added to every magnitude of an estimate, as a fraction of the largest of the target. An estimate
#: of zero becomes the uniform map, as in `deepesi.metrics.functional.nemd`; gradients are finite.
BACKGROUND = 1e-5


class EnergyDistance(LossTerm):
    r"""``(2 p̂ᵀ D p − p̂ᵀ D p̂ − pᵀ D p) / (2 uᵀ D p − uᵀ D u − pᵀ D p)`` (no unit).

    Squared energy distance of the normalized maps ``p̂`` and ``p`` (magnitudes per source,
    `quantities.magnitude`, divided by their sum), relative to that of the uniform map ``u``. ``D``
    are the Euclidean distances of the sources. It replaces the normalized earth mover's distance
    without a linear program: for two points it is twice their distance; 0 only for equal maps; 1
    for the uniform map and for an estimate of zero. Difference to the earth mover's distance: the
    target mixed with a share ``a`` of the uniform map gives ``a²``, not ``a``. Weak activity over
    the whole cortex has almost no cost, so use this with another term. Independent of scale and
    sign.

    Costs one product ``(B, S) @ (S, S)`` forward and one backward, and one for the target.

    Source: Székely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018; as a loss on maps Feydy et al.
    2019, arXiv:1810.08278.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = SourcePositions()
        self.head_inputs = (self.positions,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Energy distance per example."""
        positions = batch.inputs[self.positions.key]
        # By a matrix product the distances would have errors of 0.1 mm and be no faster.
        distances = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
        target, estimated = _maps(estimate, batch)
        uniform = 1 / len(positions)
        return _energy(estimated - target, distances) / _energy(uniform - target, distances)


class PeakTransport(LossTerm):
    r"""Cost to move the activity to the target peaks, relative to the uniform map (no unit).

    ``(Σ_s p̂_s d_s + ½ Σ_k |P̂_k − P_k| D_k) / mean_s d_s`` with ``p̂`` the normalized map of the
    estimate, ``d_s`` the distance of source ``s`` to the nearest target peak ``k``, ``P̂_k`` and
    ``P_k`` the shares of estimate and target that are nearest to peak ``k``, and ``D_k`` the mean
    distance of peak ``k`` to the other peaks. The first term is linear in the map: it is minimized
    by all activity at the source of least expected distance, not by a blurred posterior mean. The
    localization error has the same minimum, the normalized earth mover's distance almost.
    Independent of scale, sign and the extent of a patch; use it with a supervised term.

    Source: own method; minimum of an expected distance, e.g. Berger 1985,
    doi:10.1007/978-1-4757-4286-2, and transport to given sinks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = SourcePositions()
        self.head_inputs = (self.positions,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Transport cost per example."""
        positions = batch.inputs[self.positions.key]
        target, estimated = _maps(estimate, batch)
        present, to_peak = _distances_to_peaks(batch, positions)
        nearest, cell = to_peak.min(1)
        peaks = positions[batch.scene.peaks.clamp_min(0)]
        surplus = torch.zeros_like(peaks[..., 0]).scatter_add(1, cell, estimated - target).abs()
        between = (peaks[:, :, None] - peaks[:, None]).square().sum(3).sqrt() * present[:, None]
        others = (present.sum(1, keepdim=True) - 1).clamp_min(1)
        imbalance = 0.5 * (surplus * between.sum(2) / others).sum(1)
        return ((estimated * nearest).sum(1) + imbalance) / nearest.mean(1)


class PeakDistance(LossTerm):
    r"""Relative distance between the target peaks and the strongest sources (no unit).

    ``mean_k log(1 + d_k / d₀) / log(1 + D / d₀)`` with ``d_k`` the mean distance to target peak
    ``k`` of the sources nearest to it, weighted by the fourth power of their magnitudes, ``d₀``
    3 mm and ``D`` the same mean for the uniform map. With the fourth power it is a differentiable
    approximation of the localization error, which depends on the strongest source only. With the
    logarithm a millimetre at high SNR counts as much as a centimetre at low SNR. Independent of
    scale, sign and the shares of the peaks; use it with `PeakTransport`.

    Source: own method.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = SourcePositions()
        self.head_inputs = (self.positions,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Relative distance per example."""
        _, estimated = _maps(estimate, batch)
        present, to_peak = _distances_to_peaks(batch, batch.inputs[self.positions.key])
        nearest, cell = to_peak.min(1)
        in_cell = cell[:, None] == torch.arange(present.shape[1], device=cell.device)[:, None]
        magnitudes = torch.where(in_cell, estimated[:, None], 0.0)
        share = (magnitudes / magnitudes.amax(2, keepdim=True).clamp_min(1e-30)) ** 4
        distance, uniform = (
            (weight * nearest[:, None]).sum(2) / weight.sum(2).clamp_min(1e-30)
            for weight in (share, in_cell.to(share.dtype))
        )
        # If a cell has no source but the peak, both distances are 0, and so is the result.
        relative = (distance / RESOLVED).log1p() / (uniform / RESOLVED).log1p().clamp_min(1e-9)
        return torch.where(present, relative, 0.0).sum(1) / present.sum(1)


#: Distances below this have little effect, m. It is about half the spacing of the sources.
RESOLVED = 0.003


def _distances_to_peaks(
    batch: Batch, positions: Float[Tensor, "S 3"]
) -> tuple[Bool[Tensor, "B K"], Float[Tensor, "B K S"]]:
    """Whether each peak exists, and distances of all sources to it, m; infinite if not."""
    present = batch.scene.peaks >= 0
    peaks = positions[batch.scene.peaks.clamp_min(0)]
    to_peak = (peaks[:, :, None] - positions).square().sum(3).sqrt()
    return present, torch.where(present[..., None], to_peak, torch.inf)


def _maps(estimate: Estimate, batch: Batch) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"]]:
    """Normalized maps of the target and the estimate."""
    n_orient = batch.head.space.n_orient
    target = magnitude(batch.sources, n_orient)
    estimated = magnitude(estimate.mean, n_orient) + BACKGROUND * target.amax(1, keepdim=True)
    return target / target.sum(1, keepdim=True), estimated / estimated.sum(1, keepdim=True)


def _energy(difference: Float[Tensor, "B S"], distances: Float[Tensor, "S S"]) -> Tensor:
    """``−dᵀ D d`` per example ``(B,)``; 0 or more for differences that sum to zero."""
    return -(difference @ distances * difference).sum(1)
