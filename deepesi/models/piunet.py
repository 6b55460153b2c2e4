"""Physics-informed U-Net: linear inverses on a voxel grid, a 3D U-Net, data consistency."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.patches import (
    PatchDictionary,
    along_axes,
    energy_by_chance,
    over_first,
    over_patches,
    small_linear,
    spread_patches,
)
from deepesi.core.precision import in_full_precision
from deepesi.core.quantities import summed_power
from deepesi.models.layers.mismatch_noise import mismatch_energy
from deepesi.models.layers.orientation_posterior import OrientationPosterior
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.layers.unet3d import UNet3d
from deepesi.physics.head_inputs import (
    LinearInverse,
    PatchMoments,
    PatchPairs,
    PatchShares,
    PatchTopographies,
    Rank,
    SourceUnit,
    VoxelCorners,
    VoxelWeights,
    Whitener,
)

#: Smallest mismatch variance, as a share of the energy of the recording.
MIN_MISMATCH = 0.005
#: Smallest prior variance of a patch, in units of the power of noise.
MIN_STRENGTH = 0.1
#: Factor on the log-evidence for a smooth map that also shows weaker sources.
SMOOTHING = 0.15


class _Pass(NamedTuple):
    """Features from one pass of matched filters over the recording or a residual of it."""

    evidence: Float[Tensor, "K S B"]  # log-evidence of every patch
    surplus: Float[Tensor, " B"]  # energy of the best patch above that of noise alone, per sample
    maps: Float[Tensor, "3 S B"]  # for the grid: energy explained, evidence, smooth evidence
    explained: Float[Tensor, "2K S B"]  # energy explained, of the residual and of the recording
    levels: Float[Tensor, "2 B"]  # log energy of the best patch, and of the residual after it


class PhysicsInformedUNet(InverseModel):
    r"""Minimum-norm estimate whose prior variances a 3D U-Net computes from linear inverses.

    1. Linear inverses: eLORETA at a few SNRs, and matched filters of patches of ``K`` radii
       around every source. The matched filters run in `n_passes` passes. Each pass receives the
       residual after the best patches of the previous passes.
    2. Energies, summed over orientations and averaged over the window, are scattered to a voxel
       grid by trilinear weights. A U-Net (two levels down, ``b, 2b, 4b`` channels) reads them,
       the density of sources and the power of the recording.
    3. The output channels are gathered at the sources. A perceptron reads them and the energies
       of the source, and corrects the log-evidence of every patch in every pass. The softmax of
       this, times the energy above noise and a learned gate per pass, is the prior variance
       ``gamma`` in units of noise plus mismatch variance.
    4. Data consistency: the posterior mean under these variances, ``gamma Qᵀ (I + Q gamma Qᵀ)⁻¹
       v`` for the whitened recording ``v`` and the unit topographies ``Q`` of the patches, by a
       few conjugate-gradient steps, spread over the sources of each patch.

    Both walls of a sulcus share voxels. The energies and topography of each source separate them.
    ``gamma`` depends on energies of the window only: the estimate changes sign with the recording,
    is linear in every sample at given ``gamma`` (once the gradient steps have converged), and a
    window of any length needs one pass of the U-Net. Works for fixed and free orientation,
    surfaces and volumes, and any montage.

    Args:
        base_channels: Channels ``b`` of the U-Net at full resolution, a multiple of 4. Number of
            weights: 70,375 with 8 (the default), 269,927 with 16, 1,062,631 with 32.
        spacing: Edge of a voxel, m.
        n_x: Voxels to the right, a multiple of 4.
        n_y: Voxels to the front, a multiple of 4.
        n_z: Voxels upwards, a multiple of 4. The sources must fit into the grid.
        n_passes: Passes of matched filters: the number of sources that evidence can separate.
        n_levels: Number of SNRs of eLORETA, from 0 dB in steps of 10 dB.
        gathered: Output channels of the U-Net, gathered at the sources.
        hidden: Width of the perceptron.
        n_strongest: Number of patches used for data consistency.
        n_conjugate: Conjugate-gradient steps.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number ``K`` of patch radii from smallest to largest.
        heteroscedastic: Also estimate a standard deviation, constant over the window.
        loose: Prior variance of topographies orthogonal to that of the normal of a patch, relative
            to that one, and of tangential moments in eLORETA; needs a head of free orientation
            below 1. The evidence is marginal over the orientation. 1: the orientation of the head,
            fixed or free.

    Raises:
        ValueError: A size is not positive or not a multiple of 4 where it must be, the radii are
            out of order, or `loose` is not above 0 and at most 1.

    Source: 3D-PIUNet, Morik et al. 2024, arXiv:2411.00143 (eLORETA of a volume source space, one
    time point, to a 3D U-Net that gives the moments). Differences: the U-Net reads energies and
    gives the variances of a last linear inverse, not moments, so it does not depend on sign, time
    axis or orientation, and the estimate is consistent with the data; surfaces as well, by
    trilinear weights; matched filters of patches beside eLORETA; group instead of batch
    normalization; far fewer weights. Several passes as in matching pursuit (Mallat & Zhang 1993,
    doi:10.1109/78.258082), variances as in sparse Bayesian learning (Wipf & Nagarajan 2009,
    doi:10.1016/j.neuroimage.2008.02.059).

    """

    bound_to_space = False

    def __init__(
        self,
        base_channels: int = 8,
        spacing: float = 0.010,
        n_x: int = 16,
        n_y: int = 20,
        n_z: int = 16,
        n_passes: int = 2,
        n_levels: int = 3,
        gathered: int = 12,
        hidden: int = 24,
        n_strongest: int = 64,
        n_conjugate: int = 8,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 3,
        heteroscedastic: bool = False,
        loose: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(
            "PhysicsInformedUNet",
            n_passes=n_passes,
            n_levels=n_levels,
            gathered=gathered,
            hidden=hidden,
            n_strongest=n_strongest,
            n_conjugate=n_conjugate,
            n_radii=n_radii,
        )
        multiples = {"base_channels": base_channels, "n_x": n_x, "n_y": n_y, "n_z": n_z}
        if any(size < 4 or size % 4 for size in multiples.values()):
            raise ValueError(
                f"PhysicsInformedUNet: {multiples} must be multiples of 4: the grid is halved "
                "twice, and channels are normalized four by four."
            )
        grid, radii = (spacing, n_x, n_y, n_z), (smallest, largest, n_radii)
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        self.inverses = LinearInverse("eLORETA", 0.0, 10.0, n_levels, loose)
        self.corners, self.weights = VoxelCorners(*grid), VoxelWeights(*grid)
        prior = (*radii, loose)
        self.topographies, self.moments = PatchTopographies(*prior), PatchMoments(*prior)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.unit,
            self.inverses,
            self.corners,
            self.weights,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
        )
        self.n_passes, self.n_radii, self.loose = n_passes, n_radii, loose
        self.explained = (n_strongest, n_conjugate)
        # Mismatch variance over the energy of the recording, for every pass and for the last
        # inverse; and the sharpness of the softmax in a pass.
        self.log_mismatch = nn.Parameter(torch.full((n_passes + 1,), -4.0))
        self.log_sharpness = nn.Parameter(torch.zeros(n_passes))
        n_maps = 3 * n_passes + n_levels
        self.unet = UNet3d(n_maps + 2, base_channels, gathered)
        n_own = 2 * n_radii * n_passes + n_passes + 2
        self.first = nn.Linear(n_maps + n_own + gathered, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = small_linear(hidden, 2 * n_passes * n_radii)
        of_passes, to_gates = nn.Linear(2 * n_passes + 1, hidden), small_linear(hidden, n_passes)
        self.gate = nn.Sequential(of_passes, nn.ReLU(), to_gates)
        # Later passes receive mostly noise and mismatch, so their gates start lower.
        nn.init.constant_(to_gates.bias[1:], -1.0)
        self.spread = small_linear(hidden, n_radii + 1) if heteroscedastic else None

    @in_full_precision
    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Compute linear inverses, grid features, prior variances and the posterior mean."""
        moments = inputs[self.moments.key] / inputs[self.unit.key]
        n_orient = moments.shape[2]
        moments = moments.unflatten(1, (-1, n_orient))
        # Examples are the last axis, so that sources, voxels and patches are copied in long rows.
        # Residuals of strong recordings lose digits in single precision, so only training uses it.
        dtype = data.dtype if self.training else torch.float64
        recording = (inputs[self.whitener.key] @ data).permute(1, 2, 0)
        patches = PatchDictionary(inputs[self.topographies.key], n_orient)
        posterior = OrientationPosterior(inputs[self.topographies.key], n_orient, self.loose)
        power = _power(recording)
        log_power = (power / inputs[self.rank.key] + 1e-6).log()[None] / 4
        passes = self._passes(patches, posterior, recording, power, inputs[self.rank.key])
        maps = torch.cat([*(p.maps for p in passes), self._linear(data, inputs, n_orient)])
        levels = torch.cat([log_power, *(p.levels for p in passes)])

        common = torch.cat([log_power, levels[2::2]])[:, None].expand(-1, maps.shape[1], -1)
        log_moment = moments.square().sum((2, 3)).log().mean(0)[:, None] / 6
        features = torch.cat(
            [
                maps,
                *(p.explained for p in passes),
                common,
                log_moment.expand(-1, data.shape[0])[None],
                self._grid_features(maps, log_power, inputs),
            ]
        )
        hidden = functional.relu(over_first(self.first, features))
        hidden = functional.relu(over_first(self.second, hidden))
        gamma = self._variances(passes, over_first(self.last, hidden), self.gate(levels.T).T)
        # In units of noise plus mismatch variance. In units of noise alone the residual of a
        # strong recording would be lost in single precision.
        gamma = gamma / (1 + (MIN_MISMATCH + self.log_mismatch[-1].exp()) * power)

        precise = PatchDictionary(inputs[self.topographies.key].to(dtype), n_orient)
        residual = precise.residual(recording.to(dtype), gamma.to(dtype), *self.explained)
        amplitudes = gamma[:, :, None, None] * precise.filter(residual).to(data.dtype)
        mean = self._to_dipoles(along_axes(moments, amplitudes), inputs)
        if self.spread is None:
            return Estimate(mean)
        *factors, floor = functional.softplus(over_first(self.spread, hidden)).unbind(0)
        patch_std = torch.stack(factors) * (gamma + 1e-6).sqrt()
        std = moments.norm(dim=3)[..., None, None] * patch_std[:, :, None, None]
        least = (1e-3 + floor).repeat_interleave(n_orient, 0).T[..., None] * inputs[self.unit.key]
        return Estimate(mean, (self._to_dipoles(std, inputs) + least).expand_as(mean))

    def _passes(
        self,
        patches: PatchDictionary,
        posterior: OrientationPosterior,
        recording: Float[Tensor, "C T B"],
        power: Float[Tensor, " B"],
        rank: Float[Tensor, " 1"],
    ) -> list[_Pass]:
        """Run the matched filters on the recording, then on the residual of the best patches."""
        n_times = recording.shape[1]
        residual, passes = recording, []
        excess = mismatch_energy(power * n_times, rank * n_times, rank)
        log_mismatches = self.log_mismatch[: self.n_passes]
        for log_mismatch, log_sharpness in zip(log_mismatches, self.log_sharpness, strict=True):
            remaining = _power(residual)
            mismatch_variance = 1 + log_mismatch.exp() * excess
            strength = (remaining - rank).maximum(MIN_STRENGTH * rank) / mismatch_variance
            filtered = patches.filter(residual)
            amplitudes = posterior.amplitudes(filtered, strength)
            energy = (filtered * amplitudes).mean(3).sum(2)
            strongest = energy.amax((0, 1))
            by_chance = energy_by_chance(posterior.n_free(strength) * n_times)
            evidence = 0.5 * n_times * (energy - strongest) / mismatch_variance
            share = over_patches(evidence * log_sharpness.exp())
            fit = patches.explain(share[:, :, None, None] * amplitudes)
            scale = (fit * residual).sum((0, 1)) / (fit.square().sum((0, 1)) + 1)
            residual = residual - scale * fit
            sharp, smooth = share.sum(0), over_patches(SMOOTHING * evidence).sum(0)
            residual_share = 3 * (energy / (remaining + 1e-3) + 1e-6).sqrt()
            total_share = 3 * (energy / (power + 1e-3) + 1e-6).sqrt()
            after = _power(residual) / rank
            passes.append(
                _Pass(
                    evidence,
                    functional.softplus(n_times * strongest - by_chance) / n_times,
                    torch.stack(
                        [residual_share.amax(0), sharp / sharp.amax(0), smooth / smooth.amax(0)]
                    ),
                    torch.cat([residual_share, total_share]),
                    torch.stack([(strongest + 1e-3).log(), (after + 1e-6).log()]) / 4,
                )
            )
        return passes

    def _linear(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor], n_orient: int
    ) -> Float[Tensor, "L S B"]:
        """Energy of eLORETA at every SNR, divided by the largest."""
        kernels = inputs[self.inverses.key] / inputs[self.unit.key]
        moments = (kernels.flatten(0, 1) @ data.permute(1, 2, 0).flatten(1)).unflatten(
            1, (data.shape[2], -1)
        )
        energy = moments.square().mean(1).unflatten(0, (kernels.shape[0], -1, n_orient)).sum(2)
        return energy / energy.amax(1, keepdim=True).clamp_min(1e-12)

    def _grid_features(
        self,
        maps: Float[Tensor, "F S B"],
        log_power: Float[Tensor, "1 B"],
        inputs: dict[str, Tensor],
    ) -> Float[Tensor, "G S B"]:
        """Scatter to the voxel grid, apply the U-Net, gather at the sources."""
        corners, weights = inputs[self.corners.key].flatten(), inputs[self.weights.key]
        weights = weights[..., None, None]
        rows, n_voxels = maps.transpose(0, 1), self.corners.n_voxels
        voxels = maps.new_zeros(n_voxels, *rows.shape[1:])
        voxels = voxels.index_add(0, corners, (weights * rows[:, None]).flatten(0, 1))
        density = maps.new_zeros(n_voxels, 1, 1).index_add(0, corners, weights.flatten(0, 1))
        constant = density.clamp_max(2.0).expand(-1, 1, maps.shape[2])
        voxels = torch.cat(
            [voxels / (density + 0.05), constant, log_power.expand_as(constant)], dim=1
        )
        image = voxels.permute(2, 1, 0).unflatten(2, self.corners.shape)
        output = self.unet(image).flatten(2).permute(2, 1, 0)
        gathered = output.index_select(0, corners).unflatten(0, (-1, 8))
        return (weights * gathered).sum(1).transpose(0, 1)

    def _variances(
        self,
        passes: list[_Pass],
        corrections: Float[Tensor, "N S B"],
        gates: Float[Tensor, "I B"],
    ) -> Float[Tensor, "K S B"]:
        """Prior variance of every patch: a share of the energy above noise, summed over passes."""
        gamma = torch.zeros_like(passes[0].evidence)
        terms = corrections.unflatten(0, (2, self.n_passes, self.n_radii))
        for one_pass, shift, factor, gate in zip(passes, *terms, gates, strict=True):
            share = over_patches(one_pass.evidence + 10 * shift)
            gamma = gamma + share * (
                one_pass.surplus * gate.clamp(-3.0, 3.0).exp() * (1 + factor).clamp(0.05, 20.0)
            )
        return gamma

    def _to_dipoles(
        self, patches: Float[Tensor, "K S O T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        """Spread moments of patches over the sources, A m."""
        sources = spread_patches(patches, inputs[self.pairs.key], inputs[self.shares.key])
        return sources.flatten(0, 1).permute(2, 0, 1) * inputs[self.unit.key]


def _power(recording: Float[Tensor, "C T B"]) -> Float[Tensor, " B"]:
    """`summed_power` of recordings whose examples are the last axis."""
    return summed_power(recording.permute(2, 0, 1))
