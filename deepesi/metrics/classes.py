"""The functional metrics as torchmetrics classes: mean over examples, accumulated over batches."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepesi.core.contracts import Batch, Estimate, magnitude
from deepesi.metrics import functional, moments
from deepesi.physics.graph import adjacency, triangles, vertex_areas
from deepesi.physics.head import HeadModel

Array = NDArray[np.float64]


class Geometry:
    """What metrics need of a head, computed once."""

    def __init__(self, head: HeadModel) -> None:
        space = head.space
        self.positions, self.leadfield = head.source_pos, head.leadfield
        self.space, self.n_orient = space, space.n_orient
        self.distances_mm = functional.distances_mm(head.source_pos, head.source_pos)
        self.neighbours: csr_array = adjacency(space.edges, space.n_sources)
        self._of_uniform: tuple[bytes, float] = (b"", 0.0)

    def transport_of_uniform(self, target: Array) -> float:
        """Earth mover's distance of the uniform map, mm: one for all methods on an example."""
        if self._of_uniform[0] != target.tobytes():
            uniform = functional.transport(np.ones_like(target), target, self.distances_mm)
            self._of_uniform = target.tobytes(), uniform
        return self._of_uniform[1]

    @functools.cached_property
    def areas(self) -> Array:
        """Of the vertices ``(S,)``, m²; few metrics ask, and finding the triangles takes time."""
        faces = triangles(self.space.edges, self.space.n_sources)
        return vertex_areas(self.positions, faces)


class Example(NamedTuple):
    """One estimate and its truth."""

    estimate: Array  # magnitudes (S,)
    target: Array  # magnitudes (S,)
    peaks: NDArray[np.int64]  # true peaks (K,)
    estimated_moments: Array  # estimated moments (D, T), A m
    target_moments: Array  # moments (D, T), A m
    data: Array  # (C, T), V


def examples(estimate: Estimate, batch: Batch) -> Iterator[Example]:
    """The examples of a batch as arrays."""
    n_orient = batch.head.space.n_orient
    arrays = (
        magnitude(estimate.mean.detach(), n_orient),
        magnitude(batch.sources, n_orient),
        batch.scene.peaks,
        estimate.mean.detach(),
        batch.sources,
        batch.data,
    )
    estimated_moments, target_moments, peaks, *signals = (a.cpu().numpy() for a in arrays)
    estimated_moments, target_moments, *signals = (
        a.astype(np.float64) for a in (estimated_moments, target_moments, *signals)
    )
    for number, places in enumerate(peaks):
        yield Example(
            estimated_moments[number],
            target_moments[number],
            places[places >= 0],
            *(s[number] for s in signals),
        )


class SourceMetric(torchmetrics.Metric, ABC):
    """Mean of one functional metric over all examples seen."""

    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self._geometry: dict[bytes, Geometry] = {}

    @staticmethod
    @abstractmethod
    def value(example: Example, geometry: Geometry) -> float:
        """The metric of one example."""

    def update(self, estimate: Estimate, batch: Batch) -> None:
        """Add the examples of a batch."""
        key = batch.head.leadfield.tobytes()  # of a head and a set-up
        if key not in self._geometry:
            self._geometry = {key: Geometry(batch.head)}
        values = [self.value(e, self._geometry[key]) for e in examples(estimate, batch)]
        self.total += sum(values)
        self.count += len(values)

    def compute(self) -> torch.Tensor:
        """The mean."""
        return (self.total / self.count).float()


class LocalizationError(SourceMetric):
    """Mean localization error, mm."""

    higher_is_better = False

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.localization_error`."""
        return functional.localization_error(
            example.estimate, example.peaks, geometry.positions, geometry.neighbours
        )


class NEMD(SourceMetric):
    """Mean normalized earth mover's distance."""

    higher_is_better = False

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.nemd`."""
        return functional.nemd(
            example.estimate,
            example.target,
            geometry.distances_mm,
            geometry.transport_of_uniform(example.target),
        )


class AUC(SourceMetric):
    """Mean area under the ROC curve."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.auc`."""
        return functional.auc(example.estimate, example.target)


class SpatialDispersion(SourceMetric):
    """Mean spatial dispersion, mm."""

    higher_is_better = False

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.spatial_dispersion`."""
        return functional.spatial_dispersion(example.estimate, example.peaks, geometry.positions)


class RegionLocalizationError(SourceMetric):
    """Mean distance between the regions above half of the maximum, mm."""

    higher_is_better = False

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.region_localization_error`."""
        return functional.region_localization_error(
            example.estimate, example.target, geometry.distances_mm
        )


class FullWidthAtHalfMaximum(SourceMetric):
    """Mean width of the peak along the cortex, mm; the true patch has one too."""

    higher_is_better = None

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.full_width_at_half_maximum`."""
        return functional.full_width_at_half_maximum(
            example.estimate, geometry.areas, geometry.neighbours
        )


class BalancedAUC(SourceMetric):
    """Mean area under the ROC curve, close and far sources counted alike."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.balanced_auc`."""
        return functional.balanced_auc(example.estimate, example.target, geometry.distances_mm)


class Precision(SourceMetric):
    """Mean precision of the sources called active."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.detection`."""
        return functional.detection(example.estimate, example.target).precision


class Recall(SourceMetric):
    """Mean recall of the active sources."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.detection`."""
        return functional.detection(example.estimate, example.target).recall


class F1(SourceMetric):
    """Mean harmonic mean of precision and recall."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.detection`."""
        return functional.detection(example.estimate, example.target).f1


class NMSE(SourceMetric):
    """Mean normalized squared error of the moments."""

    higher_is_better = False

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.nmse`."""
        return moments.nmse(example.estimated_moments, example.target_moments)


class ScaledNMSE(SourceMetric):
    """Mean normalized squared error of the moments after optimal scaling."""

    higher_is_better = False

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.scaled_nmse`."""
        return moments.scaled_nmse(example.estimated_moments, example.target_moments)


class CosineSimilarity(SourceMetric):
    """Mean cosine of estimated and true moments."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.cosine`."""
        return moments.cosine(example.estimated_moments, example.target_moments)


class AmplitudeCorrelation(SourceMetric):
    """Mean correlation over space of the magnitudes."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.amplitude_correlation`."""
        return moments.amplitude_correlation(example.estimate, example.target)


class TemporalCorrelation(SourceMetric):
    """Mean correlation over time at the true peaks; NaN for single samples."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.temporal_correlation`."""
        return moments.temporal_correlation(
            example.estimated_moments, example.target_moments, example.peaks, geometry.n_orient
        )


class ResidualVariance(SourceMetric):
    """Mean share of the recording that the estimate leaves, through the nominal lead field."""

    higher_is_better = None

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.residual_variance`."""
        return moments.residual_variance(
            geometry.leadfield @ example.estimated_moments, example.data
        )


class TopographicRDM(SourceMetric):
    """Mean relative difference of the topographies of estimate and recording, nominal lead field.

    Of the sample where the recording is strongest.
    """

    higher_is_better = None

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.rdm`; √2, as of orthogonal ones, for an estimate of zero."""
        explained, observed = _topographies(example, geometry)
        return moments.rdm(explained, observed) if explained.any() else 2**0.5


class TopographicLnMagnitude(SourceMetric):
    """Mean logarithm of the strength of the estimate's topography over that of the recording.

    Of the sample where the recording is strongest; negative: the estimate is shrunk.
    """

    higher_is_better = None

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.moments.ln_magnitude`; at least that of a millionth."""
        explained, observed = _topographies(example, geometry)
        least = moments.ln_magnitude(1e-6 * observed, observed)
        return max(moments.ln_magnitude(explained, observed), least) if explained.any() else least


def _topographies(example: Example, geometry: Geometry) -> tuple[Array, Array]:
    """Potentials ``(C,)`` that the estimate explains and that were recorded, V."""
    sample = int((example.data**2).sum(axis=0).argmax())
    return geometry.leadfield @ example.estimated_moments[:, sample], example.data[:, sample]
