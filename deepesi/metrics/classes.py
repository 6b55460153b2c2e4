"""The functional metrics as torchmetrics classes: mean over examples, accumulated over batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepesi.contracts import Batch, Estimate, magnitude
from deepesi.metrics import functional
from deepesi.physics.graph import adjacency
from deepesi.physics.head import HeadModel

Array = NDArray[np.float64]


class Geometry:
    """What metrics need of a head, computed once."""

    def __init__(self, head: HeadModel) -> None:
        self.positions = head.source_pos
        self.distances_mm = functional.distances_mm(head.source_pos, head.source_pos)
        self.neighbours: csr_array = adjacency(head.space.edges, head.space.n_sources)


class Example(NamedTuple):
    """One estimate and its truth: magnitudes ``(S,)``, true peaks ``(K,)``."""

    estimate: Array
    truth: Array
    peaks: NDArray[np.int64]


def examples(estimate: Estimate, batch: Batch) -> Iterator[Example]:
    """The examples of a batch as arrays."""
    n_orient = batch.head.space.n_orient
    found = magnitude(estimate.mean.detach(), n_orient).cpu().double().numpy()
    true = magnitude(batch.sources, n_orient).cpu().double().numpy()
    for example, peaks in enumerate(batch.scene.peaks.cpu().numpy()):
        yield Example(found[example], true[example], peaks[peaks >= 0])


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
        places = batch.head.source_pos.tobytes()  # heads of one space differ in their places
        if places not in self._geometry:
            self._geometry[places] = Geometry(batch.head)
        values = [self.value(e, self._geometry[places]) for e in examples(estimate, batch)]
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
        return functional.nemd(example.estimate, example.truth, geometry.distances_mm)


class AUC(SourceMetric):
    """Mean area under the ROC curve."""

    higher_is_better = True

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.auc`."""
        return functional.auc(example.estimate, example.truth)


class SpatialDispersion(SourceMetric):
    """Mean spatial dispersion, mm."""

    higher_is_better = False

    @staticmethod
    def value(example: Example, geometry: Geometry) -> float:
        """See `deepesi.metrics.functional.spatial_dispersion`."""
        return functional.spatial_dispersion(example.estimate, example.peaks, geometry.positions)
