"""Spectral distance: the power of every source in frequency bands should be that of the target."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.losses.base import LossTerm

#: Theta, alpha, beta, gamma: edges, Hz.
BANDS = ((4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0))
#: Smallest power of a band over all sources, relative to the squared peak of the target.
SMALLEST = 1e-30


class SpectralDistance(LossTerm):
    r"""Mean over bands and resolutions of the distance of log powers, 0 for equal spectra.

    ``Σ_s w_s |log((p̂_s + f) / (p_s + f))|`` with ``p_s`` the power of source ``s`` in a band,
    summed over its components, from segments with half overlap and a Hann taper (Welch). Short
    segments resolve bursts less but have less variance, so several lengths are compared.
    ``f`` is a floor, a fraction of the largest power of the target: most sources are silent. The
    weights ``w_s`` sum to 1; half of them is shared by all sources, half by the power of the
    target, because a mean over all would hardly depend on the few active ones. Independent of phase
    and sign. A window of one sample has no spectrum, its distance is 0.

    Args:
        sfreq: Sampling rate of the recordings, Hz.
        bands: Edges of the bands, Hz.
        segments: Segment lengths, samples.
        floor: ``f``, as a fraction of the largest target power over sources and bands, above 0.

    Raises:
        ValueError: A band is not in order, reaches above half the sampling rate, or holds no
            frequency of a segment; the floor is not positive; a window is shorter than a segment
            (in `forward`).

    Source: log spectral distance, Gray & Markel 1976, doi:10.1109/TASSP.1976.1162849; several
    resolutions as in Yamamoto et al. 2020, arXiv:1910.11480. Differences: powers of bands, not of
    single frequencies; weights by source.

    """

    def __init__(
        self,
        sfreq: float = 250.0,
        bands: Sequence[Sequence[float]] = BANDS,
        segments: Sequence[int] = (125, 250),
        floor: float = 0.01,
    ) -> None:
        super().__init__()
        if not (floor > 0 and math.isfinite(floor)):
            raise ValueError(
                f"SpectralDistance: floor must be a fraction above 0, got {floor}. Without a floor "
                "the log power of silent sources has no bound."
            )
        self.floor, self.segments = floor, tuple(segments)
        self.members = [_members(bands, length, sfreq) for length in self.segments]

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Distance per example."""
        n_orient, n_times = batch.head.space.n_orient, batch.sources.shape[2]
        if n_times == 1:
            return 0.0 * estimate.mean.sum((1, 2))
        if n_times < max(self.segments):
            raise ValueError(
                f"SpectralDistance: windows of {n_times} samples are shorter than a segment of "
                f"{max(self.segments)}. Set data.n_times to {max(self.segments)} or more, or give "
                "shorter loss.terms.spectral.segments."
            )
        # Powers of 1e-18 (A m)² would be below what single precision can divide.
        scale = batch.sources.abs().amax((1, 2), keepdim=True)
        distances = []
        for length, members in zip(self.segments, self.members, strict=True):
            power, target = (
                _band_power(values / scale, length, members.to(scale), n_orient)
                for values in (estimate.mean, batch.sources)
            )
            floor = self.floor * target.amax((1, 2), keepdim=True)
            distance = ((power + floor) / (target + floor)).log().abs()
            share = target / target.sum(1, keepdim=True).clamp_min(SMALLEST)
            weights = 0.5 / target.shape[1] + 0.5 * share
            distances.append((weights * distance).sum(1).mean(1))
        return torch.stack(distances).mean(0)


def _members(bands: Sequence[Sequence[float]], length: int, sfreq: float) -> Float[Tensor, "F R"]:
    """Whether each frequency of a segment lies in each band."""
    frequencies = torch.fft.rfftfreq(length, 1 / sfreq)
    for band in bands:
        low, high = band
        if not 0 <= low < high <= sfreq / 2:
            raise ValueError(
                f"SpectralDistance: the band {low:g} to {high:g} Hz must be in order and below "
                f"half the sampling rate ({sfreq / 2:g} Hz). Set other bands, or sfreq."
            )
        if not ((frequencies >= low) & (frequencies <= high)).any():
            raise ValueError(
                f"SpectralDistance: a segment of {length} samples resolves {sfreq / length:g} Hz "
                f"and has no frequency from {low:g} to {high:g} Hz. Take segments of at least "
                f"{math.ceil(sfreq / (high - low))} samples or wider bands."
            )
    edges = torch.tensor([list(band) for band in bands])
    inside = (frequencies[:, None] >= edges[:, 0]) & (frequencies[:, None] <= edges[:, 1])
    return inside.float()


def _band_power(
    values: Float[Tensor, "B D T"], length: int, members: Float[Tensor, "F R"], n_orient: int
) -> Float[Tensor, "B S R"]:
    """Mean power per band over the segments of this length, summed over components."""
    taper = torch.hann_window(length + 2, periodic=False).to(values)[1:-1]
    segments = values.unfold(2, length, max(1, length // 2))
    power = torch.fft.rfft(segments * taper).abs().square().mean(2) @ members
    return power.unflatten(1, (-1, n_orient)).sum(2)
