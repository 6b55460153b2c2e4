"""Conformal prediction sets of a file: sources that contain the active one, at a level."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.calibration.conformal import (
    PredictionSets,
    estimated_snr_db,
    reach_kernel,
    source_scores,
)
from deepesi.physics.graph import source_areas
from deepesi.physics.head import SourceSpace
from deepesi.runtime.contract import Calibration

Array = NDArray[np.float64]


class PredictionSet(NamedTuple):
    """Prediction set of source locations, as in `deepesi.calibration.conformal`.

    Attributes:
        sources: Whether a source is in the set ``(S,)``.
        area: Area of the set on the cortex, m²; None in a volume.
        level: Probability that the set contains the active source.

    """

    sources: NDArray[np.bool_]
    area: float | None
    level: float

    def __str__(self) -> str:
        area = "" if self.area is None else f"{1e4 * self.area:.1f} cm², "
        n_sources = int(self.sources.sum())
        return (
            f"{100 * self.level:g} % prediction set, calibrated on simulations: {area}{n_sources} "
            "sources"
        )


def sets_of(calibration: Calibration) -> PredictionSets:
    """Prediction sets with the thresholds of a file."""
    return PredictionSets(
        calibration.level, np.array(calibration.edges_db), np.array(calibration.thresholds)
    )


class PredictionSetFinder:
    """Computes the prediction sets of a file on one head.

    Args:
        calibration: Calibration of the file.
        positions: Source locations ``(S, 3)``, m.
        space: The source space.

    """

    def __init__(self, calibration: Calibration, positions: Array, space: SourceSpace) -> None:
        self.sets = sets_of(calibration)
        self.kernel = reach_kernel(positions)
        self.areas: Array | None = None
        if len(space.vertices) == 2:
            self.areas = source_areas(positions, space.edges)

    def prediction_set(self, magnitudes: Array, white: Array, rank: int) -> PredictionSet:
        """The prediction set of one sample.

        Args:
            magnitudes: Magnitudes of the estimate ``(S,)``, A m.
            white: Whitened recording ``(C,)``.
            rank: Rank of its noise covariance.

        """
        scores = source_scores(magnitudes[None], self.kernel)
        sources = self.sets.prediction_sets(scores, estimated_snr_db(white[None, :, None], rank))[0]
        area = None if self.areas is None else float(self.areas[sources].sum())
        return PredictionSet(sources, area, self.sets.level)
