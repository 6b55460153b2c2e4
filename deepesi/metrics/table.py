"""The one table of metrics: files, tables, figures, training and documentation read it.

A new metric is a function and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deepesi.metrics import functional as spatial
from deepesi.metrics import moments, scoring_rules
from deepesi.metrics.example import Example, Geometry
from deepesi.physics.similarity import cosine, residual_variance, scaled_residual_variance

HIGHER, LOWER, NEITHER = True, False, None
#: Limits of shares and of correlations.
SHARE, CORRELATION = (0.0, 1.0), (-1.0, 1.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        function: Value of one example on one head; NaN where there is none.
        title: Heading of a column or an axis, without the unit.
        higher_is_better: Direction; None where neither is better.
        unit: Unit of the value; empty for none.
        decimals: Decimals in tables.
        limits: Least and largest value there can be; intervals of means end there.
        in_tables: Whether the tables of a benchmark show it. Files have every metric.

    """

    function: Callable[[Example, Geometry], float]
    title: str
    higher_is_better: bool | None
    unit: str = ""
    decimals: int = 3
    limits: tuple[float, float] = (0.0, np.inf)
    in_tables: bool = False

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


#: Every metric by its name in files.
METRICS = {
    "localization_error": Metric(
        lambda e, g: spatial.localization_error(e.estimate, e.peaks, g.positions, g.neighbours),
        "loc. error",
        LOWER,
        "mm",
        1,
        in_tables=True,
    ),
    "nemd": Metric(
        lambda e, g: spatial.nemd(e.estimate, e.target, g.distances_mm, g.uniform_mm(e.target)),
        "nEMD",
        LOWER,
        in_tables=True,
    ),
    "auc": Metric(
        lambda e, _: spatial.auc(e.estimate, e.target), "AUC", HIGHER, limits=SHARE, in_tables=True
    ),
    "spatial_dispersion": Metric(
        lambda e, g: spatial.spatial_dispersion(e.estimate, e.peaks, g.positions),
        "dispersion",
        LOWER,
        "mm",
        1,
        in_tables=True,
    ),
    "half_maximum_area_distance": Metric(
        lambda e, g: spatial.half_maximum_area_distance(e.estimate, e.target, g.distances_mm),
        "half-maximum area distance",
        LOWER,
        "mm",
        1,
    ),
    "fwhm": Metric(  # the target has a width, too, so narrower is not better
        lambda e, g: spatial.full_width_at_half_maximum(e.estimate, g.areas, g.neighbours),
        "FWHM",
        NEITHER,
        "mm",
        1,
    ),
    "balanced_auc": Metric(
        lambda e, g: spatial.balanced_auc(e.estimate, e.target, g.distances_mm),
        "balanced AUC",
        HIGHER,
        limits=SHARE,
    ),
    "precision": Metric(
        lambda e, _: spatial.detection(e.estimate, e.target).precision,
        "precision",
        HIGHER,
        limits=SHARE,
    ),
    "recall": Metric(
        lambda e, _: spatial.detection(e.estimate, e.target).recall, "recall", HIGHER, limits=SHARE
    ),
    "f1": Metric(
        lambda e, _: spatial.detection(e.estimate, e.target).f1, "F1", HIGHER, limits=SHARE
    ),
    "nmse": Metric(
        lambda e, _: residual_variance(e.estimated_moments, e.target_moments), "NMSE", LOWER
    ),
    "scaled_nmse": Metric(
        lambda e, _: scaled_residual_variance(e.estimated_moments, e.target_moments),
        "scaled NMSE",
        LOWER,
    ),
    "cosine": Metric(
        lambda e, _: cosine(e.estimated_moments, e.target_moments),
        "cosine",
        HIGHER,
        limits=CORRELATION,
    ),
    "amplitude_correlation": Metric(
        lambda e, _: moments.amplitude_correlation(e.estimate, e.target),
        "amplitude correlation",
        HIGHER,
        limits=CORRELATION,
    ),
    "temporal_correlation": Metric(
        lambda e, g: moments.temporal_correlation(
            e.estimated_moments, e.target_moments, e.peaks, g.n_orient
        ),
        "temporal correlation",
        HIGHER,
        limits=CORRELATION,
    ),
    "residual_variance": Metric(  # noise should stay unexplained, so less is not better
        lambda e, g: residual_variance(g.explained(e), e.data), "residual variance", NEITHER
    ),
    "rdm": Metric(lambda e, g: moments.topographic_rdm(g.explained(e), e.data), "RDM", NEITHER),
    "lnmag": Metric(
        lambda e, g: moments.topographic_ln_magnitude(g.explained(e), e.data),
        "lnMAG",
        NEITHER,
        limits=(-np.inf, np.inf),
    ),
    "crps": Metric(
        lambda e, _: scoring_rules.moments_crps(
            e.estimated_moments, e.std, e.samples, e.target_moments
        ),
        "CRPS",
        LOWER,
        "nA m",
        4,
    ),
    "energy_score": Metric(
        lambda e, _: scoring_rules.moments_energy_score(e.samples, e.target_moments),
        "energy score",
        LOWER,
        "nA m",
    ),
}
#: Metrics that the tables of a benchmark show, in their order.
IN_TABLES = tuple(name for name, metric in METRICS.items() if metric.in_tables)
