"""Physics-informed U-Net: linear inverses on a voxel grid, a 3D U-Net, a consistent estimate."""

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

#: Energy that the best of heads leaves unexplained, over that of the recording.
LEAST_MISMATCH = 0.005
#: Factor on the evidence for a map on which weaker sources show beside the strongest.
BLUNT = 0.15


class _Look(NamedTuple):
    """What one look at the recording, or at what earlier ones leave of it, shows."""

    evidence: Float[Tensor, "K S B"]  # log-evidence of a patch there
    surplus: Float[Tensor, " B"]  # energy of the best patch above chance, per sample
    maps: Float[Tensor, "3 S B"]  # for the grid: energy explained, evidence sharp and blunt
    explained: Float[Tensor, "2K S B"]  # energy explained, of what is left and of the recording
    levels: Float[Tensor, "2 B"]  # logarithms: of the best patch, and of what is left after it


class PhysicsInformedUNet(InverseModel):
    r"""A minimum-norm estimate whose prior variances a 3D U-Net reads off linear inverses.

    1. Linear inverses: eLORETA at a few SNRs, and the matched filters of patches of ``K`` radii
       around every source, looked at `n_looks` times, each time without what the best patches of
       the looks before explain.
    2. Their energies, summed over orientations and averaged over the window, are scattered to a
       voxel grid by trilinear weights; a U-Net (two halvings, ``b, 2b, 4b`` channels) reads them,
       with the density of sources and the loudness of the recording.
    3. Its channels are gathered at the sources; with the energies of the source itself a
       perceptron corrects the log-evidence of every patch of every look. Its softmax, times the
       energy above chance and a learned gate per look, is the prior variance ``gamma``, in units
       of the noise and of what head mismatch may leave of the recording.
    4. Data consistency: the posterior mean under these variances, ``gamma Qᵀ (I + Q gamma Qᵀ)⁻¹
       v`` for the whitened recording ``v`` and the unit topographies ``Q`` of the patches, by a
       few conjugate-gradient steps, spread over the sources of each patch.

    Both banks of a sulcus share voxels; what tells them apart is each source's own energies and
    its own topography. ``gamma`` knows energies of the window only: the estimate turns its
    sign with the recording, is linear in every sample at given ``gamma`` (as far as the gradients
    have converged), and a window of any length costs one pass of the U-Net. Fixed and free
    orientation, surfaces and volumes, any montage.

    Args:
        base_channels: Channels ``b`` of the U-Net at full resolution, a multiple of 4. All
            weights: 70,375 with 8 (the default), 269,927 with 16, 1,062,631 with 32.
        spacing: Edge of a voxel, m.
        n_x: Voxels to the right, a multiple of 4, as all three.
        n_y: Voxels to the front.
        n_z: Voxels upwards. The sources must fit into the grid.
        n_looks: Looks at the recording; so many sources can be told apart by their evidence.
        n_levels: SNRs of eLORETA, from 0 dB in steps of 10 dB.
        gathered: Channels gathered at the sources.
        hidden: Width of the perceptron.
        n_strongest: Patches that explain the recording in the data consistency.
        n_conjugate: Conjugate-gradient steps.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Radii in between, ``K``.
        heteroscedastic: Whether it also gives a standard deviation, constant over the window.

    Raises:
        ValueError: A size is not positive or not a multiple of 4 where it must be, or the radii
            are out of order.

    Source: 3D-PIUNet, Morik et al. 2024, arXiv:2411.00143 (eLORETA of a volume source space, one
    time point, to a 3D U-Net that gives the moments). Ours deviates: the U-Net sees energies and
    gives the variances of a last linear inverse, not moments, which is what makes it blind to sign,
    time axis and orientation and consistent with the data; surfaces too, by trilinear weights;
    matched filters of patches beside eLORETA; group instead of batch normalization; far smaller.
    Multiple looks as in matching pursuit (Mallat & Zhang 1993, doi:10.1109/78.258082), variances
    as in sparse Bayesian learning (Wipf & Nagarajan 2009, doi:10.1016/j.neuroimage.2008.02.059).

    """

    bound_to_space = False

    def __init__(
        self,
        base_channels: int = 8,
        spacing: float = 0.010,
        n_x: int = 16,
        n_y: int = 20,
        n_z: int = 16,
        n_looks: int = 2,
        n_levels: int = 3,
        gathered: int = 12,
        hidden: int = 24,
        n_strongest: int = 64,
        n_conjugate: int = 8,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 3,
        heteroscedastic: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            "PhysicsInformedUNet",
            n_looks=n_looks,
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
        self.inverses = LinearInverse("eLORETA", 0.0, 10.0, n_levels)
        self.corners, self.weights = VoxelCorners(*grid), VoxelWeights(*grid)
        self.topographies, self.moments = PatchTopographies(*radii), PatchMoments(*radii)
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
        self.n_looks, self.n_radii = n_looks, n_radii
        self.explained = (n_strongest, n_conjugate)
        # Energy that head mismatch may leave, over that of the recording: to every look, and to
        # the last inverse; and how sharp a look is.
        self.log_mismatch = nn.Parameter(torch.full((n_looks + 1,), -4.0))
        self.log_sharpness = nn.Parameter(torch.zeros(n_looks))
        n_maps = 3 * n_looks + n_levels
        self.unet = UNet3d(n_maps + 2, base_channels, gathered)
        n_own = 2 * n_radii * n_looks + n_looks + 2
        self.first = nn.Linear(n_maps + n_own + gathered, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = small_linear(hidden, 2 * n_looks * n_radii)
        self.gate = nn.Sequential(
            nn.Linear(2 * n_looks + 1, hidden), nn.ReLU(), small_linear(hidden, n_looks)
        )
        # What the first look leaves is mostly noise and mismatch: believe it less, to begin with.
        nn.init.constant_(self.gate[2].bias[1:], -1.0)
        self.spread = small_linear(hidden, n_radii + 1) if heteroscedastic else None

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Linear inverses, grid and U-Net, variances, posterior mean."""
        moments = inputs[self.moments.key] / inputs[self.unit.key]
        n_orient = moments.shape[2]
        moments = moments.unflatten(1, (-1, n_orient))
        # Examples last: what is copied between sources, voxels and patches goes in long rows.
        # Strong recordings lose digits in the residual, so only training computes it in single
        # precision.
        digits = data.dtype if self.training else torch.float64
        recording = (inputs[self.whitener.key] @ data).permute(1, 2, 0)
        patches = PatchDictionary(inputs[self.topographies.key], n_orient)
        power = recording.square().mean(1).sum(0)
        loud = (power / inputs[self.rank.key] + 1e-6).log()[None] / 4
        looks = self._look(patches, recording, power, inputs[self.rank.key])
        maps = torch.cat([*(look.maps for look in looks), self._linear(data, inputs, n_orient)])
        levels = torch.cat([loud, *(look.levels for look in looks)])

        everywhere = torch.cat([loud, levels[2::2]])[:, None].expand(-1, maps.shape[1], -1)
        visible = moments.square().sum((2, 3)).log().mean(0)[:, None].expand(-1, data.shape[0]) / 6
        features = torch.cat(
            [
                maps,
                *(look.explained for look in looks),
                everywhere,
                visible[None],
                self._through_grid(maps, loud, inputs),
            ]
        )
        hidden = functional.relu(over_first(self.first, features))
        hidden = functional.relu(over_first(self.second, hidden))
        gamma = self._variances(looks, over_first(self.last, hidden), self.gate(levels.T).T)
        # In units of noise and mismatch together; without the latter, what is left of a loud
        # recording would lie below single precision.
        gamma = gamma / (1 + (LEAST_MISMATCH + self.log_mismatch[-1].exp()) * power)

        precise = PatchDictionary(inputs[self.topographies.key].to(digits), n_orient)
        residual = precise.residual(recording.to(digits), gamma.to(digits), *self.explained)
        amplitudes = gamma[:, :, None, None] * precise.filter(residual).to(data.dtype)
        mean = self._to_dipoles(along_axes(moments, amplitudes), inputs)
        if self.spread is None:
            return Estimate(mean)
        *of_patch, floor = functional.softplus(over_first(self.spread, hidden)).unbind(0)
        deviation = torch.stack(of_patch) * (gamma + 1e-6).sqrt()
        std = moments.norm(dim=3)[..., None, None] * deviation[:, :, None, None]
        least = (1e-3 + floor).repeat_interleave(n_orient, 0).T[..., None] * inputs[self.unit.key]
        return Estimate(mean, (self._to_dipoles(std, inputs) + least).expand_as(mean))

    def _look(
        self,
        patches: PatchDictionary,
        recording: Float[Tensor, "C T B"],
        power: Float[Tensor, " B"],
        rank: Float[Tensor, " 1"],
    ) -> list[_Look]:
        """Matched filters of the recording, then of what their best patches leave of it."""
        n_times = recording.shape[1]
        # Energies of noise alone, per sample: one for every orientation and sample of the window.
        freedom = torch.ones_like(power) * patches.n_orient * n_times
        by_chance = energy_by_chance(freedom)
        residual, looks = recording, []
        of_looks = self.log_mismatch[: self.n_looks]
        for log_mismatch, log_sharpness in zip(of_looks, self.log_sharpness, strict=True):
            filtered = patches.filter(residual)
            energy = filtered.square().mean(3).sum(2)
            strongest, remains = energy.amax((0, 1)), residual.square().mean(1).sum(0)
            mismatch_variance = 1 + log_mismatch.exp() * power * n_times
            evidence = 0.5 * n_times * (energy - strongest) / mismatch_variance
            share = over_patches(evidence * log_sharpness.exp())
            fit = patches.explain(share[:, :, None, None] * filtered)
            scale = (fit * residual).sum((0, 1)) / (fit.square().sum((0, 1)) + 1)
            residual = residual - scale * fit
            sharp, blunt = share.sum(0), over_patches(BLUNT * evidence).sum(0)
            of_residual = 3 * (energy / (remains + 1e-3) + 1e-6).sqrt()
            of_all = 3 * (energy / (power + 1e-3) + 1e-6).sqrt()
            after = residual.square().mean(1).sum(0) / rank
            looks.append(
                _Look(
                    evidence,
                    functional.softplus(n_times * strongest - by_chance) / n_times,
                    torch.stack(
                        [of_residual.amax(0), sharp / sharp.amax(0), blunt / blunt.amax(0)]
                    ),
                    torch.cat([of_residual, of_all]),
                    torch.stack([(strongest + 1e-3).log(), (after + 1e-6).log()]) / 4,
                )
            )
        return looks

    def _linear(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor], n_orient: int
    ) -> Float[Tensor, "L S B"]:
        """Energy of eLORETA at every SNR, of the largest."""
        kernels = inputs[self.inverses.key] / inputs[self.unit.key]
        moments = (kernels.flatten(0, 1) @ data.permute(1, 2, 0).flatten(1)).unflatten(
            1, (data.shape[2], -1)
        )
        energy = moments.square().mean(1).unflatten(0, (kernels.shape[0], -1, n_orient)).sum(2)
        return energy / energy.amax(1, keepdim=True).clamp_min(1e-12)

    def _through_grid(
        self,
        maps: Float[Tensor, "F S B"],
        loud: Float[Tensor, "1 B"],
        inputs: dict[str, Tensor],
    ) -> Float[Tensor, "G S B"]:
        """Scatter to the grid, convolve, gather."""
        corners, weights = inputs[self.corners.key].flatten(), inputs[self.weights.key]
        weights = weights[..., None, None]
        rows, n_voxels = maps.transpose(0, 1), self.corners.n_voxels
        voxels = maps.new_zeros(n_voxels, *rows.shape[1:])
        voxels = voxels.index_add(0, corners, (weights * rows[:, None]).flatten(0, 1))
        density = maps.new_zeros(n_voxels, 1, 1).index_add(0, corners, weights.flatten(0, 1))
        constant = density.clamp_max(2.0).expand(-1, 1, maps.shape[2])
        voxels = torch.cat([voxels / (density + 0.05), constant, loud.expand_as(constant)], dim=1)
        image = voxels.permute(2, 1, 0).unflatten(2, self.corners.shape)
        found = self.unet(image).flatten(2).permute(2, 1, 0)
        gathered = found.index_select(0, corners).unflatten(0, (-1, 8))
        return (weights * gathered).sum(1).transpose(0, 1)

    def _variances(
        self,
        looks: list[_Look],
        corrections: Float[Tensor, "N S B"],
        gates: Float[Tensor, "I B"],
    ) -> Float[Tensor, "K S B"]:
        """Prior variance of every patch: over the looks, its share of the energy above chance."""
        gamma = torch.zeros_like(looks[0].evidence)
        pieces = corrections.unflatten(0, (2, self.n_looks, self.n_radii))
        for look, shift, factor, gate in zip(looks, *pieces, gates, strict=True):
            share = over_patches(look.evidence + 10 * shift)
            gamma = gamma + share * (
                look.surplus * gate.clamp(-3.0, 3.0).exp() * (1 + factor).clamp(0.05, 20.0)
            )
        return gamma

    def _to_dipoles(
        self, patches: Float[Tensor, "K S O T B"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "B D T"]:
        """Moments of patches spread over their sources, A m."""
        sources = spread_patches(patches, inputs[self.pairs.key], inputs[self.shares.key])
        return sources.flatten(0, 1).permute(2, 0, 1) * inputs[self.unit.key]
