"""Results of the methods for strangers under a set-up: errors, prediction sets, misfit; cached."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.advice.methods import Methods, largest_distance
from deepesi.advice.simulated_subjects import StrangerRanges, Strangers, StrangerSource
from deepesi.data_gen.caps import DIGITIZED
from deepesi.utils.cache import cache_folder
from deepesi.utils.code_digest import code_digest
from deepesi.utils.files import atomic, parsing

Array = NDArray[np.float64]

#: Folders whose code decides the results of a study: part of the key of the cache.
FOLDERS = ("physics", "core", "data_gen", "runtime", "advice")
#: Gain in SNR from four times the trials, dB.
FOUR_TIMES = 10 * float(np.log10(4))
#: Strangers under better set-ups: the same ones as under the present set-up, so fewer suffice.
N_BETTER = 100


@dataclass(frozen=True)
class Study:
    """Results for ``N`` strangers; methods are the model, eLORETA and the dipole scan.

    Attributes:
        errors: Distance from the strongest source of every method to the nearest centre of a true
            patch ``(N, 3)``, mm.
        apart: Largest distance between the strongest sources of the methods ``(N,)``, mm.
        residual: Share of the whitened power that one, two and three sources leave ``(N, 3)``.
        areas: Area of the model's prediction sets ``(N,)``, cm²; NaN without calibration.
        covered: Whether they hold the true centres that they must ``(N,)``, 0 or 1; NaN without
            calibration.
        better: Errors of the model ``(M,)``, mm, for the first `N_BETTER` of the same strangers
            under better set-ups, by their names.

    """

    errors: Array
    apart: Array
    residual: Array
    areas: Array
    covered: Array
    better: dict[str, Array]


def better_setups(ranges: StrangerRanges, snr_db: float) -> dict[str, tuple[StrangerRanges, float]]:
    """Ranges and SNR (dB) of the set-ups that the generator can draw and that are better."""
    setups = {}
    digitized, own = ranges.knowledge == DIGITIZED, ranges.anatomy is None
    if not digitized:
        setups["digitized electrodes"] = replace(ranges, knowledge=DIGITIZED), snr_db
    if not own:
        setups["own MRI"] = replace(ranges, anatomy=None), snr_db
    if not digitized and not own:
        best = replace(ranges, knowledge=DIGITIZED, anatomy=None)
        setups["digitized electrodes and own MRI"] = best, snr_db
    setups["four times the trials"] = ranges, snr_db + FOUR_TIMES
    return setups


def study(
    source: StrangerSource, methods: Methods, ranges: StrangerRanges, snr_db: float, n: int
) -> Study:
    """Draw `n` strangers and apply the methods, under this set-up and under better ones."""
    strangers = source.draw(ranges, snr_db, n)
    estimates = methods.apply(strangers.data)
    positions = methods.head.source_pos
    areas, covered = np.array(list(_sets(methods, strangers, estimates.means))).T
    better = {}
    for name, (own, snr) in better_setups(ranges, snr_db).items():
        drawn = source.draw(own, snr, min(n, N_BETTER))
        better[name] = errors_mm(positions, methods.strongest(drawn.data)[:, None], drawn.peaks)[
            :, 0
        ]
    return Study(
        errors_mm(positions, estimates.strongest, strangers.peaks),
        largest_distance(positions, estimates.strongest),
        estimates.residual,
        areas,
        covered,
        better,
    )


def errors_mm(positions: Array, strongest: NDArray[np.int64], peaks: NDArray[np.int64]) -> Array:
    """Distance (mm) of every estimated source ``(N, M)`` to the nearest true centre.

    Args:
        positions: Source locations ``(S, 3)``, m.
        strongest: Estimated sources ``(N, M)``.
        peaks: True centres ``(N, K)``, -1 where there are fewer.

    """
    apart = np.linalg.norm(positions[strongest][:, :, None] - positions[peaks][:, None], axis=3)
    return np.asarray(1e3 * np.where(peaks[:, None] >= 0, apart, np.inf).min(2))


def _sets(methods: Methods, strangers: Strangers, means: Array) -> Iterator[tuple[float, float]]:
    """Area (cm²) of every prediction set, and whether it holds the centres that it must."""
    calibration = methods.inverse.model.contract.calibration
    targets = strangers.targets("all" if calibration is None else calibration.covers)
    for mean, data, peaks in zip(means, strangers.data, targets, strict=True):
        own = methods.inverse.prediction_set(mean, data)
        if own is None or own.area is None:
            yield np.nan, np.nan
        else:
            yield 1e4 * own.area, float(own.sources[peaks[peaks >= 0]].all())


def cached_study(
    source: StrangerSource,
    methods: Methods,
    ranges: StrangerRanges,
    snr_db: float,
    n: int,
    cache: Path | None = None,
) -> tuple[Study, bool]:
    """`study`, from the cache if it was made before; and whether it was.

    Args:
        source: Draws the strangers.
        methods: The methods.
        ranges: Ranges of the strangers.
        snr_db: SNR, dB.
        n: Number of strangers.
        cache: Folder; by default the user's.

    Raises:
        ValueError: The file in the cache is damaged.

    """
    path = (cache or cache_folder("advice")) / f"{_key(source, methods, ranges, snr_db, n)}.npz"
    if path.is_file():
        return _read(path), True
    made = study(source, methods, ranges, snr_db, n)
    arrays = {key: value for key, value in vars(made).items() if key != "better"}
    arrays |= {f"better/{name}": errors for name, errors in made.better.items()}
    with atomic(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **arrays)
    return made, False


def _read(path: Path) -> Study:
    again = "Delete it, and it is computed again."
    with parsing(path, "study of strangers", again), np.load(path, allow_pickle=False) as file:
        content = dict(file)
        better = {k.removeprefix("better/"): v for k, v in content.items() if "/" in k}
        return Study(**{k: v for k, v in content.items() if "/" not in k}, better=better)


def _key(
    source: StrangerSource, methods: Methods, ranges: StrangerRanges, snr_db: float, n: int
) -> str:
    """Digest of all that a study depends on."""
    head, sensors = source.conditions.head, methods.inverse.sensors
    parts = {
        "code": code_digest(FOLDERS),
        "model": methods.inverse.model.sha256,
        "head": head.fingerprint,
        "channels": sensors.names,
        "ranges": repr(ranges),
        "numbers": [snr_db, methods.snr_db, n, source.seed],
    }
    digest = hashlib.sha256(json.dumps(parts).encode())
    for array in (sensors.positions, source.conditions.noise_cov):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]
