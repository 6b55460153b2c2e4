"""Statistics of one estimate as pure functions of arrays, with the baseline as null distribution.

Every statistic of the response is also computed for the pre-stimulus baseline of the same average,
estimated with the same kernel, where there should be no effect.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Track:
    """Time courses of the tested quantities of one estimate.

    Attributes:
        times: Sample times ``(T,)``, s; the stimulus is at 0.
        window: Whether the response is expected at a sample ``(T,)``.
        power: Whitened power ``(T,)``, mean over channels, 1 for noise.
        distance: Distance of the strongest source of a sample to the target ``(T,)``, mm.
        in_lobe: Whether the strongest source is in the expected lobe ``(T,)``.
        lateralization: Share of the magnitude in the expected hemisphere ``(T,)``.

    """

    times: Array
    window: Mask
    power: Array
    distance: Array
    in_lobe: Mask
    lateralization: Array

    @property
    def baseline(self) -> Mask:
        """Whether a sample is before the stimulus ``(T,)``."""
        return self.times < 0

    @property
    def sample(self) -> int:
        """Index of the sample with the largest whitened power in the window."""
        return int(np.where(self.window, self.power, -np.inf).argmax())


def lateralization(magnitude: Array, expected: Mask) -> Array:
    """Share ``(T,)`` of the summed magnitude ``(S, T)`` at the `expected` sources ``(S,)``."""
    return magnitude[expected].sum(axis=0) / magnitude.sum(axis=0)


def window_maxima(power: Array, length: int) -> Array:
    """Largest power of every segment of `length` samples, or of all samples if there are fewer."""
    length = min(length, len(power))
    return np.lib.stride_tricks.sliding_window_view(power, length).max(axis=1)


def p_value(observed: float, null: Array, largest: bool) -> float:
    """Empirical one-sided p value ``(1 + number as extreme) / (1 + N)``, never 0.

    Args:
        observed: Observed value.
        null: Values of the null distribution ``(N,)``.
        largest: Whether large values are extreme; otherwise small ones.

    Source: Phipson & Smyth 2010, doi:10.2202/1544-6115.1585.

    """
    extreme = null >= observed if largest else null <= observed
    return float((1 + extreme.sum()) / (1 + len(null)))


def summarize(track: Track, lobe_share: float) -> dict[str, float]:
    """Statistics of one estimate by name, with the units of `UNITS`.

    ``p_power`` compares the largest power in the window with the largest power in all baseline
    segments of the same length. ``p_distance`` compares the distance at that sample with those at
    single baseline samples, because the sample was chosen by power, not by distance. Neighbouring
    samples and segments are correlated, so the effective number is smaller, and a small p is only
    an indication.

    Args:
        track: Time courses of the estimate.
        lobe_share: Share of the sources in the expected lobe: the chance level of a random peak.

    Raises:
        ValueError: There is no baseline, or no sample in the window.

    """
    baseline, sample = track.baseline, track.sample
    if not baseline.any() or not track.window.any():
        raise ValueError(
            f"validation: the recording ({track.times[0]:g} to {track.times[-1]:g} s) has no "
            "pre-stimulus baseline or no sample in the window of the response."
        )
    maxima = window_maxima(track.power[baseline], int(track.window.sum()))
    null = track.distance[baseline]
    return {
        "latency": 1e3 * track.times[sample],
        "whitened_power": track.power[sample],
        "baseline_power": float(track.power[baseline].mean()),
        "baseline_power_largest": float(maxima.max()),
        "p_power": p_value(track.power[sample], maxima, largest=True),
        "peak_distance": track.distance[sample],
        "baseline_distance": float(np.median(null)),
        "baseline_distance_p05": float(np.quantile(null, 0.05)),
        "baseline_distance_p95": float(np.quantile(null, 0.95)),
        "p_distance": p_value(track.distance[sample], null, largest=False),
        "peak_in_lobe": float(track.in_lobe[sample]),
        "share_in_lobe": float(track.in_lobe[track.window].mean()),
        "baseline_share_in_lobe": float(track.in_lobe[baseline].mean()),
        "sources_in_lobe": lobe_share,
        "lateralization": track.lateralization[sample],
        "baseline_lateralization": float(track.lateralization[baseline].mean()),
    }


#: Unit of every statistic; "" for none.
UNITS = {
    "latency": "ms",
    "whitened_power": "",
    "baseline_power": "",
    "baseline_power_largest": "",
    "p_power": "",
    "baseline_distance_p05": "mm",
    "baseline_distance_p95": "mm",
    "peak_distance": "mm",
    "baseline_distance": "mm",
    "p_distance": "",
    "peak_in_lobe": "",
    "share_in_lobe": "",
    "baseline_share_in_lobe": "",
    "sources_in_lobe": "",
    "lateralization": "",
    "baseline_lateralization": "",
    "residual_variance": "",
    "residual_variance_whitened": "",
    "peak_x": "mm",
    "peak_y": "mm",
    "peak_z": "mm",
}
#: Largest p value of a response that counts as above the baseline.
ALPHA = 0.05


def failures(statistics: dict[str, float]) -> list[str]:
    """Texts that say what failed; empty for a success.

    A success is a response above the baseline with the strongest source in the expected lobe, at
    the sample of largest power and in at least half of the window.
    """
    failed = []
    if statistics["p_power"] > ALPHA:
        failed.append(f"response not above its baseline (p = {statistics['p_power']:.2f})")
    if not statistics["peak_in_lobe"]:
        failed.append("strongest source outside the expected lobe")
    if statistics["share_in_lobe"] < 0.5:
        failed.append(f"in the lobe for {100 * statistics['share_in_lobe']:.0f} % of the window")
    return failed
