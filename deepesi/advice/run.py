"""``deepesi advise``: whether to trust the estimate of one recording, as a page and JSON."""

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.advice.methods import MethodEstimates, Methods, largest_distance
from deepesi.advice.page import Drawn, write_advice_page
from deepesi.advice.report import Advice, Cap, Location, SetSize, write_json
from deepesi.advice.rules import (
    FEWEST,
    Compared,
    Error,
    Evidence,
    gains,
    noise_probability,
)
from deepesi.advice.setup import Judged, free_template, prepare_study, ranges_of, strongest_sample
from deepesi.advice.simulated_subjects import StrangerRanges
from deepesi.advice.study import Study, cached_study
from deepesi.physics.channel_check import unexplained_channels
from deepesi.physics.head import magnitudes
from deepesi.runtime.opening import Opened, check_window, correct_recording, open_recording
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.recording_checks import check_average
from deepesi.runtime.setup import Opener, SetupOptions
from deepesi.runtime.writing.estimate import location, mni_of
from deepesi.utils.files import check_file_out

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StudyOptions:
    """Simulation beside a recording.

    Attributes:
        n_strangers: Number of simulated recordings.
        cache: Folder for their results; by default the user's.

    Raises:
        ValueError: Too few strangers.

    """

    n_strangers: int = 200
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.n_strangers < FEWEST:
            raise ValueError(
                f"--strangers {self.n_strangers}: expected {FEWEST} or more, because the rules "
                "compare p values with 0.01."
            )


def advise(
    model: Path,
    recording: Path,
    out: Path,
    reading: ReadingOptions,
    setup: SetupOptions,
    window: Sequence[float],
    options: StudyOptions,
    open_inverse: Opener,
) -> Generator[str, None, Advice]:
    """Judge the estimate at the peak of an average, and report each step.

    Args:
        model: Model that `open_inverse` knows.
        recording: Path of the recording.
        out: ``.html`` file to write; the ``.json`` is beside it.
        reading: Options for reading the recording.
        setup: Noise covariance and head.
        window: Start and end of the search for the peak, s.
        options: Simulation.
        open_inverse: Opens the model.

    Returns:
        The advice, after all lines are consumed.

    Raises:
        ValueError: As in `deepesi.runtime.apply.apply`; or a forward solution, no average, or a
            head whose anatomy cannot be varied. Nothing is written.

    """
    check_file_out(out, ".html")
    _check_setup(setup)
    opened = yield from open_recording(model, recording, reading, setup, open_inverse)
    check_average(opened.data, "advise")
    template, inverse = free_template(opened.model, opened.inverse), opened.inverse
    check_window(window, opened.data.times)
    ready = yield from correct_recording(opened, reading)
    opened = opened._replace(data=ready.recording)
    judged = strongest_sample(ready.recording, inverse, window)
    yield f"peak at {1e3 * judged.time:.0f} ms, SNR {judged.snr_db:.1f} dB"
    source, methods = prepare_study(model.stem, inverse, template, judged)
    ranges, snr_db, n = ranges_of(inverse, template), round(judged.snr_db), options.n_strangers
    yield f"{n} simulated recordings of other people at {snr_db} dB, and under better set-ups"
    study, is_kept = cached_study(source, methods, ranges, snr_db, n, options.cache)
    if is_kept:
        yield "their results are from the cache"
    estimates = methods.apply_at(judged.data, judged.sample)
    name = f"{recording.name}, {ready.recording.comment}".removesuffix(", ")
    advice = _advice(name, opened, methods, judged, estimates, study, ranges)
    yield advice.summary
    yield from (f"because: {reason}" for reason in advice.reasons)
    yield from (f"check: {caution}" for caution in advice.to_check)
    strength = magnitudes(estimates.means.T, inverse.space.n_orient)[:, 0]
    peaks = estimates.strongest[0].tolist()
    write_json(advice, out.with_suffix(".json"))
    drawn = Drawn(strength, peaks, methods.head.source_pos, template.display)
    write_advice_page(advice, study, drawn, out)
    yield f"wrote {out} and {out.with_suffix('.json')}"
    return advice


def _check_setup(setup: SetupOptions) -> None:
    if setup.forward is not None:
        raise ValueError(
            "--forward: it has the lead field of one anatomy and one cap, so other people cannot "
            "be simulated with it. Leave it out to use the packaged head, or give --head."
        )


def _advice(
    name: str,
    opened: Opened,
    methods: Methods,
    judged: Judged,
    estimates: MethodEstimates,
    study: Study,
    ranges: StrangerRanges,
) -> Advice:
    inverse, positions = opened.inverse, methods.head.source_pos
    odd = unexplained_channels(inverse.channel_precision, judged.data, inverse.sensors)
    by_method = dict(zip(methods.names, estimates.strongest[0].tolist(), strict=True))
    return Advice(
        recording=name,
        model=methods.names[0],
        head=inverse.space.name,
        n_channels=len(inverse.ch_names),
        bads=[c for c in opened.data.info["bads"] if c in opened.data.ch_names],
        nave=inverse.nave,
        rank=inverse.rank,
        rank_reason=inverse.rank_reason,
        time_ms=round(1e3 * judged.time, 1),
        snr_db=round(judged.snr_db, 1),
        cap=_cap(opened),
        unexplained_channels=[inverse.ch_names[row] for row in odd],
        cautions=_cautions(opened, judged),
        locations={
            method: Location(location(source, inverse), _mni(source, inverse))
            for method, source in by_method.items()
        },
        distances_mm={
            f"{a} to {b}": round(float(1e3 * np.linalg.norm(positions[i] - positions[j])), 1)
            for (a, i), (b, j) in itertools.combinations(by_method.items(), 2)
        },
        evidence=_evidence(methods, judged, estimates, study),
        prediction_set=_set_size(methods, judged, estimates, study),
        gains=gains(study.errors[:, 0], study.better),
        n_strangers=len(study.apart),
        analyst_knows=ranges.known,
    )


def _mni(source: int, inverse: PreparedInverse) -> tuple[float, ...] | None:
    position = mni_of(source, inverse)
    return None if position is None else tuple(round(value, 1) for value in position)


def _evidence(
    methods: Methods, judged: Judged, estimates: MethodEstimates, study: Study
) -> Evidence:
    apart = largest_distance(methods.head.source_pos, estimates.strongest)[0]
    return Evidence(
        p_noise=noise_probability(judged.power, methods.inverse.rank, judged.n_samples),
        misfit=tuple(map(Compared.of, estimates.residual[0], study.residual.T)),
        agreement=Compared.of(apart, study.apart),
        expected=dict(zip(methods.names, map(Error.of, study.errors.T), strict=True)),
    )


def _set_size(
    methods: Methods, judged: Judged, estimates: MethodEstimates, study: Study
) -> SetSize | None:
    own = methods.inverse.prediction_set(estimates.means[0], judged.data[:, judged.sample])
    if own is None or own.area is None:
        return None
    return SetSize(
        own.level,
        round(1e4 * own.area, 1),
        round(float(np.median(study.areas)), 1),
        round(float(study.covered.mean()), 3),
    )


def _cap(opened: Opened) -> Cap | None:
    placement = opened.inverse.placement
    if placement is None:
        return None
    pitch = None if placement.pitch is None else round(placement.pitch, 1)
    return Cap(placement.method, round(1e3 * placement.residual, 1), pitch)


def _cautions(opened: Opened, judged: Judged) -> list[str]:
    """What `apply` warns of."""
    inverse, placement = opened.inverse, opened.inverse.placement
    outside = inverse.out_of_distribution(opened.data)
    return [
        *([] if placement is None else placement.warnings),
        *(f"out of distribution: {line}" for line in outside),
        *inverse.unexplained(judged.data),
    ]
