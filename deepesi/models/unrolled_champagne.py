"""Unrolled Champagne: sparse Bayesian updates of patch variances, corrected by a network."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Estimate, InverseModel, Objective
from deepesi.core.patches import neighbour_mean
from deepesi.core.precision import in_full_precision
from deepesi.core.quantities import summed_power
from deepesi.models.layers.mismatch_noise import mismatch_noise
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.layers.source_counts import FASTER, SourceCounts, count_loss, evidence_gains
from deepesi.models.layers.symmetric_inverse import symmetric_inverse
from deepesi.physics.head_inputs import (
    MemberShares,
    MeshNeighbours,
    PatchMembers,
    PatchMoments,
    PatchTopographies,
    Rank,
    SourceUnit,
    Whitener,
)

#: Smallest variance of a patch, noise variance 1: nothing, and its logarithm is finite.
SMALLEST = 1e-8
#: Features of a source that are the same for all its patches.
N_COMMON = 3


class Strongest(NamedTuple):
    """The strongest patches of every recording."""

    gamma: Float[Tensor, "B M"]  # prior variances, noise variance 1
    numbers: Int[Tensor, "B M"]  # radius number times S plus source number
    topographies: Float[Tensor, "B M O C"]


class UnrolledChampagne(InverseModel):
    r"""``γ ← γ ((‖qᵀ Σ⁻¹ V‖² / (qᵀ Σ⁻¹ q) + a) / (T + a))^p``, ``Σ = I + Q diag(γ) Qᵀ``.

    ``V`` is the whitened data with ``T`` samples, ``Q`` the whitened unit topographies of patches
    of a few radii around every source, ``γ`` their prior variances. Noise and head mismatch have
    variance 1: a share of the power of the recording counts as mismatch. The estimate is the
    posterior mean ``γ Qᵀ Σ⁻¹ V``, spread over the sources of each patch, with its standard
    deviation.

    At a fixed point every patch with ``γ > 0`` has ``‖qᵀ Σ⁻¹ V‖² = T qᵀ Σ⁻¹ q``, for any exponent
    ``p`` and count ``a``: that of Champagne and Gamma-MAP. ``p = 1/2`` is the convex update of
    Champagne, ``p = 1`` that of MacKay. The count slows updates down where few samples say little.
    The start is a mixture of equal variances and the posterior of a single patch; the second has a
    small share in long windows. The last updates are those of the strongest patches alone.

    Untrained it is Champagne stopped early. Learned:

    - the share of mismatch, and the start;
    - a small network on the source mesh. It reads how well each patch and its neighbours fit, and
      multiplies the variances in the updates of all patches. It reads energies only, so the
      estimate changes sign with the data;
    - the probabilities of 1 to `most_sources` sources, from what every further patch adds to the
      evidence (`SourceCounts`);
    - how sharp the estimate is: the final variances, relative to the largest, get a power that
      follows the mean logarithm of the number of sources. Few sources are sharp, many are wide,
      because their sites are uncertain.

    No weight belongs to a channel, a source or an orientation. The orientations of a patch share
    one variance. A window is inverted as a whole.

    Args:
        n_steps: Number of updates.
        n_dense: Number of updates of all patches; the others are of the strongest.
        n_strongest: Number of the strongest patches.
        exponent: Exponent ``p``, above 0 and at most 1.
        count: Count ``a``, positive.
        single: Initial share of the posterior of a single patch in the start, for one sample.
        mismatch: Initial share of the power of a recording that counts as noise.
        n_iterations: Iterations of every matrix inverse.
        hidden: Width of the networks.
        most_sources: Largest number of sources with a probability.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of patch radii from smallest to largest.
        loose: Prior variance of topographies orthogonal to that of the normal of a patch, relative
            to that one; needs a head of free orientation below 1. 1: the orientation of the head.

    Raises:
        ValueError: A size is not positive, there are more dense updates than updates, a share is
            not between 0 and 1, or the radii are out of order; in use, the head has fewer patches
            than `n_strongest`.

    Source: Wipf & Nagarajan 2009, doi:10.1016/j.neuroimage.2008.02.059 (updates); Owen et al.
    2012, doi:10.1016/j.neuroimage.2011.12.027 (Champagne); unrolling: Gregor & LeCun 2010. Our
    differences: patches, the start, the learned terms, and inverses by products alone
    (`deepesi.models.layers.symmetric_inverse`).

    """

    bound_to_space = False

    def __init__(
        self,
        n_steps: int = 14,
        n_dense: int = 4,
        n_strongest: int = 128,
        exponent: float = 1.0,
        count: float = 1.0,
        single: float = 0.5,
        mismatch: float = 0.25,
        n_iterations: int = 10,
        hidden: int = 16,
        most_sources: int = 10,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 3,
        loose: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(
            "UnrolledChampagne",
            n_steps=n_steps,
            n_dense=n_dense,
            n_strongest=n_strongest,
            n_iterations=n_iterations,
            hidden=hidden,
            most_sources=most_sources,
            n_radii=n_radii,
        )
        _check_start(n_steps, n_dense, exponent, count, {"single": single, "mismatch": mismatch})
        radii = (smallest, largest, n_radii)
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.neighbours = MeshNeighbours()
        self.topographies = PatchTopographies(*radii, loose)
        self.moments = PatchMoments(*radii, loose)
        self.members, self.shares = PatchMembers(*radii), MemberShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.neighbours,
            self.topographies,
            self.moments,
            self.members,
            self.shares,
        )
        self.n_steps, self.n_dense, self.n_strongest = n_steps, n_dense, n_strongest
        self.n_iterations, self.n_radii = n_iterations, n_radii
        self.exponent, self.count = exponent, count
        self.assumed_sources = f"patches of {1e3 * smallest:g}-{1e3 * largest:g} mm"
        self.log_mismatch = nn.Parameter(torch.tensor(math.log(mismatch)))
        self.single = nn.Parameter(torch.tensor(math.log(single / (1 - single))))
        self.first = nn.Linear(2 * n_radii + N_COMMON, hidden)
        self.receive = nn.Linear(2 * hidden, hidden)
        self.last = nn.Linear(hidden, n_radii)
        nn.init.zeros_(self.last.weight)  # so that an untrained model is Champagne
        nn.init.zeros_(self.last.bias)
        self.source_counts = SourceCounts(most_sources, hidden)
        self.sharpness = nn.Parameter(torch.zeros(2))  # constant, and per number of sources

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model before training."""
        return Assumptions(self.assumed_sources, "few", "covariance and level", "nominal")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Whiten the data, update the variances, compute the posterior."""
        return self._estimate(data, inputs)[0]

    @in_full_precision
    def _estimate(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> tuple[Estimate, Float[Tensor, "B K"]]:
        """The estimate, and the logarithms of its probabilities of source numbers."""
        topographies = inputs[self.topographies.key]
        n_orient = inputs[self.moments.key].shape[2]
        rows = topographies.flatten(0, 1).unflatten(0, (-1, n_orient))[None]
        recording = inputs[self.whitener.key] @ data
        noise = mismatch_noise(recording, inputs[self.rank.key], self.log_mismatch)
        white = recording / noise[:, None, None]
        strongest = self._of_strongest(white, rows, self._of_all(white, rows, inputs))
        log_counts = self._log_counts(white.detach(), strongest.topographies, rows)
        sharp = strongest._replace(gamma=self._sharpened(strongest.gamma, log_counts.detach()))
        mean, variance = self._posterior(white, sharp, inputs)
        std = noise[:, None, None] * variance.sqrt()
        mean = noise[:, None, None] * mean
        estimate = Estimate(mean, std.expand_as(mean), source_counts=log_counts.exp())
        return estimate, log_counts

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """The objective, and the negative log-probability of the true number of sources."""
        estimate, log_counts = self._estimate(batch.data, batch.inputs)
        loss, terms = objective(estimate, batch)
        counts = count_loss(log_counts, (batch.scene.peaks >= 0).sum(1))
        # The two share no weight, but the norm of all gradients is clipped: the factor keeps the
        # part of the counts small.
        return {"loss": loss + 0.1 * counts, **terms, "source_counts": counts.detach()}

    def _log_counts(
        self,
        white: Float[Tensor, "B C T"],
        candidates: Float[Tensor, "B M O C"],
        rows: Float[Tensor, "1 A O C"],
    ) -> Float[Tensor, "B K"]:
        """Logarithmic probabilities of the numbers of sources."""
        power, n_times = size_of(white)
        n_patches = torch.ones_like(rows[0, :, 0, 0]).sum()
        gains = evidence_gains(white, candidates, self.source_counts.most)
        return self.source_counts(gains, n_patches, power, n_times)

    def _of_all(
        self,
        white: Float[Tensor, "B C T"],
        rows: Float[Tensor, "1 A O C"],
        inputs: dict[str, Tensor],
    ) -> Float[Tensor, "B A"]:
        """Prior variances of all patches after the dense updates."""
        power, n_times = size_of(white)
        gamma = self._start(white, rows, power, n_times)
        for _ in range(self.n_dense):
            fit = self._fit(white, rows, gamma)
            gamma = updated(gamma, fit + self._correction(fit, gamma, power, inputs))
        return gamma

    def _of_strongest(
        self,
        white: Float[Tensor, "B C T"],
        rows: Float[Tensor, "1 A O C"],
        gamma: Float[Tensor, "B A"],
    ) -> Strongest:
        """The strongest patches after all updates."""
        if not torch.compiler.is_compiling() and gamma.shape[1] < self.n_strongest:
            raise ValueError(
                f"UnrolledChampagne: n_strongest={self.n_strongest} is more than the "
                f"{gamma.shape[1]} patches of this head. Set it to at most that."
            )
        kept, numbers = gamma.topk(self.n_strongest, dim=1)
        strongest = rows[0].index_select(0, numbers.flatten()).unflatten(0, numbers.shape)
        for _ in range(self.n_dense, self.n_steps):
            kept = updated(kept, self._fit(white, strongest, kept))
        return Strongest(kept, numbers, strongest)

    def _start(
        self,
        white: Float[Tensor, "B C T"],
        rows: Float[Tensor, "1 A O C"],
        power: Float[Tensor, " B"],
        n_times: Float[Tensor, " B"],
    ) -> Float[Tensor, "B A"]:
        """Equal variances and the posterior of a single patch, mixed."""
        energy = (
            (rows[0].flatten(0, 1) @ white).square().sum(2).unflatten(1, rows.shape[1:3]).sum(2)
        )
        shares = torch.softmax(0.5 * energy / n_times[:, None], dim=1)
        single = torch.sigmoid(self.single - 4 * n_times.log())[:, None]
        equal = 1 / torch.ones_like(rows[..., 0, 0]).sum()
        share = single * shares + (1 - single) * equal
        return (power[:, None] * share).clamp_min(SMALLEST)

    def _fit(
        self,
        white: Float[Tensor, "B C T"],
        rows: Float[Tensor, "N A O C"],
        gamma: Float[Tensor, "B A"],
    ) -> Float[Tensor, "B A"]:
        """Logarithm of the factor by which Champagne changes the variances."""
        precision = self._precision(rows, gamma)
        flat = rows.flatten(1, 2)
        energy = (flat @ (precision @ white)).square().sum(2)
        information = ((flat @ precision) * flat).sum(2)
        energy, information = (
            v.unflatten(1, rows.shape[1:3]).sum(2) for v in (energy, information)
        )
        n_times = torch.ones_like(white[:, 0]).sum(1, keepdim=True)
        factor = (energy / information + self.count) / (n_times + self.count)
        return self.exponent * factor.log()

    def _precision(
        self, rows: Float[Tensor, "N A O C"], gamma: Float[Tensor, "B A"]
    ) -> Float[Tensor, "B C C"]:
        """``(I + Q diag(γ) Qᵀ)⁻¹``."""
        flat = rows.flatten(1, 2)
        weights = gamma[..., None].expand(-1, -1, rows.shape[2]).flatten(1)
        covariance = (flat * weights[..., None]).mT @ flat
        eye = torch.diag_embed(torch.ones_like(covariance[:, 0]))
        return symmetric_inverse(eye + covariance, self.n_iterations, least=1.0)

    def _correction(
        self,
        fit: Float[Tensor, "B A"],
        gamma: Float[Tensor, "B A"],
        power: Float[Tensor, " B"],
        inputs: dict[str, Tensor],
    ) -> Float[Tensor, "B A"]:
        """Logarithm of a factor on the variance of every patch, from the network on the mesh."""
        moments = inputs[self.moments.key] / inputs[self.unit.key]
        size = moments.square().sum(2).mean(0).unflatten(0, (-1, moments.shape[2])).mean(1).log()
        relative = (gamma / gamma.amax(1, keepdim=True)).log().clamp_min(-12) / 6
        by_radius = torch.cat([fit.clamp(-3, 3), relative], dim=1).unflatten(
            1, (2 * self.n_radii, -1)
        )
        common = [size / 4, power.log1p()[:, None] / 4, fit.amax(1, keepdim=True)]
        features = [by_radius, *(v.expand_as(by_radius[:, 0])[:, None] for v in common)]
        rows = torch.cat(features, dim=1).permute(2, 0, 1).to(self.first.weight.dtype)
        state = functional.gelu(self.first(rows))
        received = neighbour_mean(state, inputs[self.neighbours.key])
        state = state + functional.gelu(self.receive(torch.cat([state, received], dim=2)))
        return self.last(state).clamp(-3, 3).permute(1, 2, 0).flatten(1).to(gamma.dtype)

    def _sharpened(
        self, gamma: Float[Tensor, "B M"], log_counts: Float[Tensor, "B K"]
    ) -> Float[Tensor, "B M"]:
        """Variances to a power that follows the number of sources; untrained it is 1."""
        number = torch.ones_like(log_counts).cumsum(1)
        expected = (log_counts.exp() * number.log()).sum(1, keepdim=True)
        constant, slope = (FASTER * self.sharpness).to(gamma.dtype).unbind()
        power = (constant + slope * expected).exp()
        largest = gamma.amax(1, keepdim=True)
        return (largest * (gamma / largest) ** power).clamp_min(SMALLEST)

    def _posterior(
        self, white: Float[Tensor, "B C T"], strongest: Strongest, inputs: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "B D T"], Float[Tensor, "B D 1"]]:
        """Mean and variance of the dipoles, noise variance 1."""
        gamma, numbers, rows = strongest
        moments = inputs[self.moments.key].to(white.dtype).unflatten(1, (-1, rows.shape[2]))
        moments = moments.flatten(0, 1).index_select(0, numbers.flatten())
        moments = moments.unflatten(0, numbers.shape)  # patch, dipole axis, topography
        profiles = self._profiles(numbers, inputs).to(white.dtype).mT
        scale = gamma.sqrt()[..., None, None]
        amplitudes = scale * moments
        prior = profiles[:, :, None, :, None] * amplitudes.transpose(1, 2)[:, None]
        prior = prior.flatten(3).flatten(1, 2)  # dipole axis, topography
        root = (scale * rows).flatten(1, 2)
        gain = (prior @ root) @ self._precision(rows, gamma)
        # Not the prior variance less what is explained: in single precision that difference of
        # large numbers would lose all its digits for strong sources.
        variance = (prior - gain @ root.mT).square().sum(2) + gain.square().sum(2)
        least = SMALLEST * inputs[self.unit.key].to(white.dtype).square()
        return gain @ white, torch.maximum(variance, least)[..., None]

    def _profiles(
        self, numbers: Int[Tensor, "B M"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B M S"]:
        """Shares of the sources in the moments of patches."""
        members = inputs[self.members.key].expand(self.n_radii, -1, -1)  # ONNX: no remainder
        sources, shares = (
            table.flatten(0, 1).index_select(0, numbers.flatten()).unflatten(0, numbers.shape)
            for table in (members, inputs[self.shares.key])
        )
        empty = torch.zeros_like(shares[..., :1]).expand(-1, -1, members.shape[1] + 1)
        return empty.scatter(2, sources, shares)[..., :-1]


def size_of(white: Float[Tensor, "B C T"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Power of a recording, summed over channels, and its number of samples in time."""
    n_times = torch.ones_like(white[:, 0]).sum(1)
    return summed_power(white), n_times


def updated(gamma: Float[Tensor, "B A"], change: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """Variances times the exponential of a change."""
    return (gamma * change.exp()).clamp_min(SMALLEST)


def _check_start(
    n_steps: int, n_dense: int, exponent: float, count: float, shares: dict[str, float]
) -> None:
    if n_dense > n_steps:
        raise ValueError(
            "UnrolledChampagne: n_dense must be at most n_steps, since the updates of all patches "
            f"come first, got {n_dense} and {n_steps}."
        )
    if not (0 < exponent <= 1 and count > 0):
        raise ValueError(
            "UnrolledChampagne: exponent must be above 0 and at most 1, count positive, got "
            f"{exponent} and {count}."
        )
    for name, share in shares.items():
        if not 0 < share < 1:
            raise ValueError(f"UnrolledChampagne: {name} must be between 0 and 1, got {share}.")
