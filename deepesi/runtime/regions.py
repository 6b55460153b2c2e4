"""Where on the cortex a source is with a probability that is kept: region sets of a file."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.calibration.conformal import (
    RegionSets,
    estimated_snr_db,
    place_scores,
    reach_kernel,
)
from deepesi.physics.graph import triangles, vertex_areas
from deepesi.physics.head import SourceSpace
from deepesi.runtime.contract import Calibration

Array = NDArray[np.float64]


class Region(NamedTuple):
    """Places that hold the source with a probability, see `deepesi.calibration.conformal`.

    Attributes:
        places: Which sources it holds ``(S,)``.
        area: Of them on the cortex, m²; None in a volume.
        level: The probability.

    """

    places: NDArray[np.bool_]
    area: float | None
    level: float

    def __str__(self) -> str:
        area = "" if self.area is None else f"{1e4 * self.area:.1f} cm², "
        n_places = int(self.places.sum())
        return f"{100 * self.level:g} % region, calibrated on simulations: {area}{n_places} places"


class CalibratedRegions:
    """Finds the regions of a file on a head; what does not depend on the recording, once.

    Args:
        calibration: Of the file.
        positions: Of the sources ``(S, 3)``, m.
        space: The source space.

    """

    def __init__(self, calibration: Calibration, positions: Array, space: SourceSpace) -> None:
        self.sets = RegionSets(
            calibration.level, np.array(calibration.edges_db), np.array(calibration.thresholds)
        )
        self.kernel = reach_kernel(positions)
        self.areas: Array | None = None
        if len(space.vertices) == 2:
            self.areas = vertex_areas(positions, triangles(space.edges, space.n_sources))

    def region(self, magnitudes: Array, white: Array, rank: int) -> Region:
        """The region of one sample.

        Args:
            magnitudes: Of the estimate ``(S,)``.
            white: Whitened recording ``(C,)``.
            rank: Of its noise covariance.

        """
        scores = place_scores(magnitudes[None], self.kernel)
        places = self.sets.regions(scores, estimated_snr_db(white[None, :, None], rank))[0]
        area = None if self.areas is None else float(self.areas[places].sum())
        return Region(places, area, self.sets.level)
