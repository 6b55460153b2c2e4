"""Where the sources of an example are by one method: a set of source locations, part by part."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from deepesi.calibration.conformal import estimated_snr_db, reach_kernel, source_scores
from deepesi.calibration.sample_sources import sources_of
from deepesi.core.arrays import as_array
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.core.onnx_model import OnnxModel
from deepesi.core.quantities import magnitude
from deepesi.evaluation.methods import Model
from deepesi.metrics.functional import half_maximum_area
from deepesi.physics.graph import adjacency, source_areas
from deepesi.physics.head import HeadModel
from deepesi.physics.noise import rank_of, whitener
from deepesi.runtime.contract import Calibration
from deepesi.runtime.prediction_sets import sets_of

Array = NDArray[np.float64]

#: Name of the set of a method that has no other.
HALF_MAXIMUM = "half-maximum area"


class SourceSet(NamedTuple):
    """A set of source locations and its connected parts.

    Attributes:
        kind: Kind of the set, in words.
        parts: Sources of every connected part, the part with the largest magnitude first.
        area_cm2: Area of all parts, cm².

    """

    kind: str
    parts: tuple[NDArray[np.int64], ...]
    area_cm2: float

    def held(self, peaks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each true source is in the set ``(K,)``."""
        inside = np.concatenate([np.empty(0, np.int64), *self.parts])
        return np.isin(peaks, inside)


def source_set(model: Model, estimate: Estimate, batch: Batch) -> SourceSet:
    """The set of a method for one example on a cortex.

    The prediction set of a calibrated file; of samples the set that holds all of their sources
    with 90 %; of other methods the half-maximum area, which promises no probability.

    Args:
        model: The method.
        estimate: Its estimate of the example.
        batch: The example.

    """
    head = batch.head
    values = as_array(magnitude(estimate.mean, head.space.n_orient)[0])
    kind, inside = _kind_and_set(model, estimate, batch, values)
    areas = source_areas(head.source_pos, head.space.edges)
    return SourceSet(kind, connected_parts(inside, values, head), 1e4 * float(areas[inside].sum()))


def _kind_and_set(
    model: Model, estimate: Estimate, batch: Batch, values: Array
) -> tuple[str, NDArray[np.bool_]]:
    head = batch.head
    calibration = model.opened.contract.calibration if isinstance(model, OnnxModel) else None
    if calibration is not None:
        inside = _calibrated(calibration, values, batch)
        return _percent(calibration.level, "prediction set"), inside
    if estimate.samples is not None:
        samples = as_array(magnitude(estimate.samples[:, 0], head.space.n_orient))
        found = sources_of(samples, head.source_pos, head.space.edges)
        return _percent(found.level, "set of the samples"), found.joint_set
    inside = np.zeros(len(values), dtype=bool)
    inside[half_maximum_area(values)] = True
    return HALF_MAXIMUM, inside


def _percent(level: float, what: str) -> str:
    return f"{100 * level:g} % {what}"


def _calibrated(calibration: Calibration, values: Array, batch: Batch) -> NDArray[np.bool_]:
    """Prediction set by the thresholds of a file, as `deepesi calibrate` computes them."""
    head = batch.head
    scores = source_scores(values[None], reach_kernel(head.source_pos))
    white = whitener(head.noise_cov) @ as_array(batch.data)
    snr_db = estimated_snr_db(white, rank_of(head.noise_cov))
    return np.asarray(sets_of(calibration).prediction_sets(scores, snr_db)[0])


def nearest_peak(positions: Array, peaks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the true source that is nearest to each source location ``(S,)``."""
    return np.asarray(cdist(positions, positions[peaks]).argmin(axis=1))


def connected_parts(
    inside: NDArray[np.bool_], values: Array, head: HeadModel
) -> tuple[NDArray[np.int64], ...]:
    """Connected parts of a set of sources ``(S,)``, by their largest of values ``(S,)``."""
    sources = np.flatnonzero(inside)
    neighbours = adjacency(head.space.edges, head.space.n_sources)
    n_parts, label = connected_components(neighbours[sources][:, sources], directed=False)
    parts = [sources[label == number] for number in range(n_parts)]
    return tuple(sorted(parts, key=lambda part: -float(values[part].max())))
