"""Successes of one method over several responses, against chance."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.utils.rows import write_rows
from deepesi.validation.expectation import CRITERIA
from deepesi.validation.run import Result
from deepesi.validation.statistics import p_value

Array = NDArray[np.float64]

#: Number of draws of one random source per response.
DRAWS = 9999
DISTANCE = "mean distance (mm)"
SET = "target in prediction set"


class Tally(NamedTuple):
    """One tested quantity of one method, over all responses that have it.

    Attributes:
        head: Name of the kind of head.
        method: Name of the method.
        quantity: One of `CRITERIA`, `DISTANCE` or `SET`.
        n: Number of responses.
        observed: Number of successes, or mean distance.
        chance: The same expected of sources drawn at random from all sources.
        p_chance: Probability of a result as good from such sources.
        baseline: The same expected of the method's own estimates in the baselines; NaN for sets.
        p_baseline: Probability of a result as good from such estimates.

    """

    head: str
    method: str
    quantity: str
    n: int
    observed: float
    chance: float
    p_chance: float
    baseline: float
    p_baseline: float


def at_least(n_successes: float, probabilities: Sequence[float]) -> float:
    """Exact probability of so many successes or more, of independent trials.

    The binomial tail if all `probabilities` are equal, else that of the Poisson binomial
    distribution, by convolution.
    """
    mass = functools.reduce(lambda p, q: np.convolve(p, [1 - q, q]), probabilities, np.ones(1))
    return float(min(1.0, mass[round(n_successes) :].sum()))


def tally(results: Sequence[Result]) -> list[Tally]:
    """All quantities by head and method. Results of one subject are not independent trials."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.case_head.name, r.method), []).append(r)
    return [line for key, own in groups.items() for line in _lines(key, own)]


def _lines(key: tuple[str, str], results: Sequence[Result]) -> Iterator[Tally]:
    for name in CRITERIA:
        with_it = [r for r in results if name in r.track.met]
        if with_it:
            yield Tally(*key, name, len(with_it), *_successes(name, with_it))
    targets = [(r, d) for r in results if (d := r.case_head.target_distance) is not None]
    if targets:
        yield Tally(*key, DISTANCE, len(targets), *_distances(targets))
    sets = [r.statistics for r, _ in targets if np.isfinite(r.statistics["target_in_set"])]
    if sets:
        held, shares = sum(s["target_in_set"] for s in sets), [s["sources_in_set"] for s in sets]
        chance = sum(shares), at_least(held, shares)
        yield Tally(*key, SET, len(sets), held, *chance, np.nan, np.nan)


def _successes(name: str, results: Sequence[Result]) -> tuple[float, ...]:
    """Number of peaks that meet a part of the expectation; both chance levels with p values."""
    observed = sum(r.statistics[f"peak_in_{name}"] for r in results)
    everywhere = [r.statistics[f"sources_in_{name}"] for r in results]
    before = [r.track.met[name][r.track.baseline] for r in results]
    # The peak itself counts among the samples of the baseline, as in `p_value`: none has share 0.
    shares = [float((1 + met.sum()) / (1 + len(met))) for met in before]
    chance = sum(everywhere), at_least(observed, everywhere)
    return observed, *chance, sum(shares), at_least(observed, shares)


def _distances(targets: Sequence[tuple[Result, Array]]) -> tuple[float, ...]:
    """Mean distance of the peaks to the target, mm; means and p values of randomly drawn sources.

    Drawn are sources from everywhere, and strongest sources of samples of the baseline.
    """
    rng = np.random.default_rng(0)
    distance = float(np.mean([r.statistics["peak_distance"] for r, _ in targets]))
    levels = list[float]()
    for null in ([d for _, d in targets], [r.track.baseline_distance for r, _ in targets]):
        means = np.mean([rng.choice(distances, DRAWS) for distances in null], axis=0)
        levels += [float(means.mean()), p_value(distance, means, largest=False)]
    return distance, *levels


def write_tally(results: Sequence[Result], path: Path) -> None:
    """Write all quantities atomically, one per row."""
    rows = ((*line[:4], *(f"{value:.6g}" for value in line[4:])) for line in tally(results))
    write_rows(path, Tally._fields, rows)
