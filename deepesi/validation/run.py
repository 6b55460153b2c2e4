"""Run every method on every case and head; list excluded combinations with reasons."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_check import channel_precision, unexplained_channels
from deepesi.physics.head import HeadModel, magnitudes
from deepesi.physics.io.covariance import with_noise
from deepesi.physics.io.forward_head import forward_head
from deepesi.physics.io.heads import on_template
from deepesi.physics.noise import rank_of, spanned_projector, whitened_power, whitener
from deepesi.physics.similarity import residual_variance, scaled_residual_variance
from deepesi.physics.template import Template
from deepesi.runtime.methods import Estimator, Method
from deepesi.runtime.prediction_sets import PredictionSet
from deepesi.utils.rows import write_rows
from deepesi.validation.case import Case, CaseHead
from deepesi.validation.expectation import Expectation
from deepesi.validation.statistics import UNITS, Track, lateralization, summarize

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """Result of one method for one case and head.

    Attributes:
        case: Response.
        case_head: Head, with distances to the target.
        method: Name of the method.
        track: Time courses of the tested quantities.
        data: Referenced data ``(C, T)``, SI units.
        magnitude: Magnitudes of the estimate at the sample of largest power ``(S,)``, A m.
        in_window: Magnitudes in the window of the response ``(S, W)``, A m.
        std_in_window: Standard deviations there ``(S, W)``, A m; None if the method gives none.
        sets_in_window: Prediction set of every sample there; None if it is not calibrated.
        statistics: Statistics by name, as in `deepesi.validation.statistics`.

    """

    case: Case
    case_head: CaseHead
    method: str
    track: Track
    data: Array
    magnitude: Array
    in_window: Array
    statistics: dict[str, float]
    std_in_window: Array | None = None
    sets_in_window: Sequence[PredictionSet] | None = None

    @property
    def heading(self) -> str:
        """Name of the response, head and source space."""
        head = self.case_head
        return f"{self.case.condition}, {head.name} head ({head.head.space.name})"


@dataclass(frozen=True)
class Excluded:
    """Combination of method and head that was not run, with the reason."""

    method: str
    head: str
    reason: str


def template_case_head(case: Case, template: Template) -> CaseHead:
    """Packaged head with the sensors and noise covariance of a case."""
    evoked = case.evoked
    placed = on_template(evoked.info, case.kinds, template, case.trans)
    head = with_noise(placed.head, evoked.info, case.noise_cov, evoked.nave)
    how = "; ".join([str(placed), *placed.warnings])
    distance = _landmark_distance(case.expectation, template.source_mni)
    target = case.expectation.landmark_text
    return CaseHead("template", head, template.source_mni, distance, target, how)


def own_case_head(case: Case, n_orient: int = 1) -> CaseHead:
    """Subject head with the sensors and noise covariance of a case."""
    own, evoked = case.own, case.evoked
    assert own is not None
    head = forward_head(evoked.info, own.forward, case.kinds, n_orient)
    head = with_noise(head, evoked.info, case.noise_cov, evoked.nave)
    to_landmark = _landmark_distance(case.expectation, own.source_mni)
    distance = own.target_distance.get(case.condition, to_landmark)
    target = own.target.get(case.condition, case.expectation.landmark_text)
    return CaseHead("own", head, own.source_mni, distance, target)


def _landmark_distance(expected: Expectation, mni: Array) -> Array | None:
    """Distance of sources ``(S, 3)``, MNI mm, to the landmark, if there is one."""
    landmark = expected.landmark
    return None if landmark is None else np.linalg.norm(mni - landmark, axis=1)


def evaluate(case: Case, case_head: CaseHead, method: Method) -> Result:
    """Estimate the whole average, and compute statistics of baseline and response.

    Raises:
        ValueError: The method cannot be used with this recording or head.

    """
    head, evoked = case_head.head, case.evoked
    data = head.sensors.reference(evoked.get_data(picks=list(head.sensors.names)))
    in_units = head.sensors.to_head(data)
    estimator = method.estimator(head, evoked.nave)
    sources, *stds = estimator.estimate(data)
    magnitude = magnitudes(sources, head.space.n_orient)
    met = case.expectation.met(case_head.mni, case_head.target_distance)
    track = _track(case, case_head, in_units, magnitude, met)
    statistics = summarize(track, {name: float(inside.mean()) for name, inside in met.items()})
    sample = track.sample
    peak = int(magnitude[:, sample].argmax())
    statistics |= dict(zip(("peak_x", "peak_y", "peak_z"), case_head.mni[peak], strict=True))
    statistics |= _residual_variances(head, sources[:, sample], in_units[:, sample])
    if case_head.target_distance is not None:
        held = estimator.prediction_set(sources[:, sample], data[:, sample])
        statistics |= _by_chance(case_head.target_distance, peak, held)
    return Result(
        case,
        case_head,
        method.name,
        track,
        data,
        magnitude[:, sample],
        magnitude[:, case.in_response],
        statistics,
        magnitudes(stds[0][:, case.in_response], head.space.n_orient) if stds else None,
        _sets(estimator, sources[:, case.in_response], data[:, case.in_response]),
    )


def _sets(estimator: Estimator, means: Array, data: Array) -> list[PredictionSet] | None:
    """Prediction sets of samples, from estimates ``(D, W)`` and data ``(C, W)``."""
    found = [estimator.prediction_set(m, d) for m, d in zip(means.T, data.T, strict=True)]
    known = [one for one in found if one is not None]
    return known or None


def _track(
    case: Case,
    case_head: CaseHead,
    data: Array,
    magnitude: Array,
    met: dict[str, Mask],
) -> Track:
    """Time courses of data ``(C, T)`` and magnitudes ``(S, T)``.

    Data are in `SensorArray.head_units`; `met` as in `Expectation.met`.
    """
    head, distance = case_head.head, case_head.target_distance
    peaks, side = magnitude.argmax(axis=0), met.get("hemisphere")
    return Track(
        times=case.evoked.times,
        baseline=case.in_baseline,
        window=case.in_response,
        power=whitened_power(whitener(head.noise_cov) @ data, rank_of(head.noise_cov)),
        distance=None if distance is None else distance[peaks],
        met={name: inside[peaks] for name, inside in met.items()},
        lateralization=None if side is None else lateralization(magnitude, side),
    )


def _residual_variances(head: HeadModel, sources: Array, data: Array) -> dict[str, float]:
    """Share of one sample ``(C,)`` that its estimate ``(D,)`` does not explain.

    Data are in `SensorArray.head_units`.
    """
    white = whitener(head.noise_cov)
    potential = spanned_projector(head.noise_cov) @ head.leadfield @ sources
    return {
        "residual_variance": residual_variance(potential, data),
        "residual_variance_whitened": scaled_residual_variance(white @ potential, white @ data),
    }


def _by_chance(distance: Array, peak: int, held: PredictionSet | None) -> dict[str, float]:
    """Share of the sources as near as the peak to the target; whether the set holds the target.

    The target is in the set if the source nearest to it is.
    """
    statistics = {"p_distance_chance": float((distance <= distance[peak]).mean())}
    if held is not None:
        statistics["target_in_set"] = float(held.sources[distance.argmin()])
        statistics["sources_in_set"] = float(held.sources.mean())
    return statistics


def unexplained(result: Result) -> list[str]:
    """Names of channels that no source can explain together with the other channels."""
    head = result.case_head.head
    precision = channel_precision(head)
    rows = unexplained_channels(precision, result.data, head.sensors)
    return [head.sensors.names[row] for row in rows]


def excluded(cases: Sequence[Case], methods: Sequence[Method]) -> list[Excluded]:
    """Methods that cannot be run on the subject head."""
    if all(case.own is None for case in cases):
        return [Excluded("all", "own", "the recording has no subject head for its sensors")]
    return [
        Excluded(
            method.name,
            "own",
            f"it is bound to the source space {method.bound_to}",
        )
        for method in methods
        if method.bound_to is not None
    ]


def run(cases: Sequence[Case], methods: Sequence[Method]) -> Iterator[Result]:
    """Yield all results one by one."""
    for case in cases:
        for method in methods:
            yield evaluate(case, template_case_head(case, method.template()), method)
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
