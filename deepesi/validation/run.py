"""Run every method on every case and head; list excluded combinations with reasons."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_check import channel_precision, unexplained_channels
from deepesi.physics.head import magnitudes
from deepesi.physics.io.heads import head_from_forward, head_on_template, place_recording
from deepesi.physics.noise import rank_of, spanned_projector, whitened_power, whitener
from deepesi.physics.similarity import residual_variance, scaled_residual_variance
from deepesi.runtime.methods import Method
from deepesi.utils.rows import write_rows
from deepesi.validation.case import Case, CaseHead
from deepesi.validation.statistics import (
    UNITS,
    Track,
    lateralization,
    summarize,
)

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """Result of one method for one case and head.

    Attributes:
        case: Response.
        case_head: Head, with distances to the target.
        method: Name of the method.
        track: Time courses of the tested quantities.
        data: Referenced data ``(C, T)``, V.
        magnitude: Magnitudes of the estimate at the sample of largest power ``(S,)``, A m.
        statistics: Statistics by name, as in `deepesi.validation.statistics`.

    """

    case: Case
    case_head: CaseHead
    method: str
    track: Track
    data: Array
    magnitude: Array
    statistics: dict[str, float]


@dataclass(frozen=True)
class Excluded:
    """Combination of method and head that was not run, with the reason."""

    method: str
    head: str
    reason: str


def template_case_head(
    case: Case, method: Method, trans: "mne.Transform | None" = None
) -> CaseHead:
    """Packaged head of the method, with the sensors and noise covariance of a case.

    `trans` places the sensors, as in `place_recording`.
    """
    template, evoked = method.template(), case.evoked
    placement = place_recording(evoked.info, template, trans)
    head = head_on_template(evoked.info, case.noise_cov, template, evoked.nave, placement=placement)
    landmark = case.expectation.landmark
    distance = np.linalg.norm(template.source_mni - landmark, axis=1)
    how = "; ".join([str(placement), *placement.warnings])
    target = _describe_landmark(case)
    return CaseHead("template", head, template.source_mni, distance, target, how)


def own_case_head(case: Case, n_orient: int = 1) -> CaseHead:
    """Subject head with the noise covariance of a case."""
    own, evoked = case.own, case.evoked
    assert own is not None
    solution = evoked.info, case.noise_cov, own.forward, evoked.nave
    head = head_from_forward(*solution, n_orient=n_orient)
    to_landmark = np.linalg.norm(own.source_mni - case.expectation.landmark, axis=1)
    distance = own.target_distance.get(case.condition, to_landmark)
    target = own.target.get(case.condition, _describe_landmark(case))
    return CaseHead("own", head, own.source_mni, distance, target)


def _describe_landmark(case: Case) -> str:
    expected = case.expectation
    x, y, z = expected.landmark
    return (
        f"centre of the {expected.hemisphere} {expected.area}, MNI ({x:.0f}, {y:.0f}, {z:.0f}) mm"
    )


def evaluate(case: Case, case_head: CaseHead, method: Method) -> Result:
    """Estimate the whole average, and compute statistics of baseline and response.

    Raises:
        ValueError: The method cannot be used with this recording or head.

    """
    head, expected, evoked = case_head.head, case.expectation, case.evoked
    data = head.sensors.reference(evoked.get_data(picks=list(head.sensors.names)))
    sources = method.estimator(head, evoked.nave)(data)
    magnitude = magnitudes(sources, head.space.n_orient)
    peaks = magnitude.argmax(axis=0)
    in_lobe = expected.in_lobe(case_head.mni)
    times, white = evoked.times, whitener(head.noise_cov)
    track = Track(
        times=times,
        window=(times >= case.window[0]) & (times <= case.window[1]),
        power=whitened_power(white @ data, rank_of(head.noise_cov)),
        distance=case_head.target_distance[peaks],
        in_lobe=in_lobe[peaks],
        lateralization=lateralization(magnitude, expected.in_hemisphere(case_head.mni)),
    )
    statistics = summarize(track, float(in_lobe.mean()))
    sample = track.sample
    potential = spanned_projector(head.noise_cov) @ head.leadfield @ sources[:, sample]
    x, y, z = case_head.mni[peaks[sample]]
    statistics |= {
        "residual_variance": residual_variance(potential, data[:, sample]),
        "residual_variance_whitened": scaled_residual_variance(
            white @ potential, white @ data[:, sample]
        ),
        "peak_x": x,
        "peak_y": y,
        "peak_z": z,
    }
    return Result(case, case_head, method.name, track, data, magnitude[:, sample], statistics)


def unexplained(result: Result) -> list[str]:
    """Names of channels that no source can explain together with the other channels."""
    head = result.case_head.head
    precision = channel_precision(head)
    rows = unexplained_channels(precision, result.data, head.sensors)
    return [head.sensors.names[row] for row in rows]


def excluded(cases: Sequence[Case], methods: Sequence[Method]) -> list[Excluded]:
    """Methods that cannot be run on the subject head."""
    if all(case.own is None for case in cases):
        return [Excluded("all", "own", "the recording has no subject head")]
    return [
        Excluded(
            method.name,
            "own",
            f"it is bound to the source space {method.bound_to}",
        )
        for method in methods
        if method.bound_to is not None
    ]


def run(
    cases: Sequence[Case], methods: Sequence[Method], trans: "mne.Transform | None" = None
) -> Iterator[Result]:
    """Yield all results one by one; `trans` places the sensors on the packaged head."""
    for case in cases:
        for method in methods:
            yield evaluate(case, template_case_head(case, method, trans), method)
        if case.own is not None:
            own_head = functools.cache(functools.partial(own_case_head, case))
            for method in methods:
                if method.bound_to is None:
                    yield evaluate(case, own_head(method.n_orient or 1), method)


COLUMNS = ("recording", "condition", "head", "method", "statistic", "value", "unit")


def write_csv(results: Sequence[Result], path: Path) -> None:
    """Write the statistics atomically, one per row."""
    rows = (
        (*_key(r), name, f"{value:.6g}", UNITS[name])
        for r in results
        for name, value in r.statistics.items()
    )
    write_rows(path, COLUMNS, rows)


def _key(r: Result) -> tuple[str, str, str, str]:
    return r.case.recording, r.case.condition, r.case_head.name, r.method
