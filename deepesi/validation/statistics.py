"""Statistics of one estimate as pure functions of arrays, with the baseline as null distribution.

Every statistic of the response is also computed for the pre-stimulus baseline of the same average,
estimated with the same kernel, where there should be no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepesi.validation.expectation import CRITERIA

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Track:
    """Time courses of the tested quantities of one estimate.

    Attributes:
        times: Sample times ``(T,)``, s.
        baseline: Whether a sample belongs to the baseline, where there is no response ``(T,)``.
        window: Whether the response is expected at a sample ``(T,)``.
        power: Whitened power ``(T,)``, mean over channels, 1 for noise.
        distance: Distance of the strongest source of a sample to the target ``(T,)``, mm; None: no
            target.
        met: Whether the strongest source meets a part of the expectation ``(T,)``, by those of
            `CRITERIA` that it has.
        lateralization: Share of the magnitude in the expected hemisphere ``(T,)``; None: either.

    """

    times: Array
    baseline: Mask
    window: Mask
    power: Array
    distance: Array | None
    met: Mapping[str, Mask]
    lateralization: Array | None

    @property
    def baseline_distance(self) -> Array:
        """Distances of the baseline ``(N,)``, mm; for a track with a target."""
        assert self.distance is not None
        return self.distance[self.baseline]

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


def summarize(track: Track, chance: Mapping[str, float]) -> dict[str, float]:
    """Statistics of one estimate by name, with the units of `UNITS`; NaN where nothing is expected.

    ``p_power`` compares the largest power in the window with the largest power in all baseline
    segments of the same length. ``p_distance`` compares the distance at that sample with those at
    single baseline samples, because the sample was chosen by power, not by distance. Neighbouring
    samples and segments are correlated, so the effective number is smaller, and a small p is only
    an indication.

    Args:
        track: Time courses of the estimate.
        chance: Share of the sources that meet a part of the expectation, by the names in
            ``track.met``: the probability that a source drawn at random does.

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
    statistics = dict.fromkeys(UNITS, np.nan) | {
        "latency": 1e3 * track.times[sample],
        "whitened_power": track.power[sample],
        "baseline_power": float(track.power[baseline].mean()),
        "baseline_power_largest": float(maxima.max()),
        "p_power": p_value(track.power[sample], maxima, largest=True),
    }
    for name, met in track.met.items():
        statistics |= {
            f"peak_in_{name}": float(met[sample]),
            f"share_in_{name}": float(met[track.window].mean()),
            f"baseline_share_in_{name}": float(met[baseline].mean()),
            f"sources_in_{name}": chance[name],
        }
    if track.distance is not None:
        statistics |= _distances(track.distance[sample], track.baseline_distance)
    if track.lateralization is not None:
        statistics["lateralization"] = track.lateralization[sample]
        statistics["baseline_lateralization"] = float(track.lateralization[baseline].mean())
    return statistics


def _distances(peak: float, null: Array) -> dict[str, float]:
    """Distance of the peak to the target and of the strongest sources of the baseline, mm."""
    return {
        "peak_distance": peak,
        "baseline_distance": float(np.median(null)),
        "baseline_distance_p05": float(np.quantile(null, 0.05)),
        "baseline_distance_p95": float(np.quantile(null, 0.95)),
        "p_distance": p_value(peak, null, largest=False),
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
    "p_distance_chance": "",
    **{
        f"{statistic}_in_{name}": ""
        for name in CRITERIA
        for statistic in ("peak", "share", "baseline_share", "sources")
    },
    "target_in_set": "",
    "sources_in_set": "",
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
#: Names of the parts of an expectation, for texts about failures.
CRITERION_NAMES = {
    "hemisphere": "the expected hemisphere",
    "lobe": "the expected lobe",
    "tolerance": "the tolerance about the target",
}


def failures(statistics: Mapping[str, float]) -> list[str]:
    """Descriptions of failures; empty for a success.

    A success is a response above the baseline whose strongest source meets every part of the
    expectation, at the sample of largest power and in at least half of the window.
    """
    failed = []
    if statistics["p_power"] > ALPHA:
        failed.append(f"response not above its baseline (p = {statistics['p_power']:.2f})")
    for name, criterion in CRITERION_NAMES.items():
        share = statistics[f"share_in_{name}"]
        if statistics[f"peak_in_{name}"] == 0:  # NaN: not expected
            failed.append(f"strongest source outside {criterion}")
        if share < 0.5:
            failed.append(f"in the {name} for {100 * share:.0f} % of the window")
    return failed
