"""Any metric of the table as a torchmetrics class."""

from collections.abc import Iterator

import torch
import torchmetrics
from torch import Tensor

from deepesi.core.arrays import as_array
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.core.quantities import magnitude
from deepesi.metrics.example import Example, Geometry
from deepesi.metrics.table import METRICS
from deepesi.utils.nearest import nearest


def examples(estimate: Estimate, batch: Batch) -> Iterator[Example]:
    """The examples of a batch as arrays."""
    n_orient = batch.head.space.n_orient
    estimates, targets = (as_array(magnitude(m, n_orient)) for m in (estimate.mean, batch.sources))
    moments, true_moments, data = map(as_array, (estimate.mean, batch.sources, batch.data))
    for i, peaks in enumerate(batch.scene.peaks.cpu().numpy()):
        yield Example(
            estimates[i],
            targets[i],
            peaks[peaks >= 0],
            moments[i],
            true_moments[i],
            data[i],
            None if estimate.std is None else as_array(estimate.std[i]),
            # One example at a time: the samples of a whole batch may not fit the memory twice.
            None if estimate.samples is None else as_array(estimate.samples[:, i]),
        )


class SourceMetric(torchmetrics.Metric):
    """Mean of one metric over all examples, accumulated over batches and processes.

    Args:
        name: Name of the metric in `deepesi.metrics.table.METRICS`.

    Raises:
        ValueError: There is no such metric.

    """

    total: Tensor
    count: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in METRICS:
            raise ValueError(f"SourceMetric: no metric {name!r}. {nearest(name, METRICS)}")
        self.name = name
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self._geometry: dict[bytes, Geometry] = {}

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override] # there an attribute
        """Direction of the metric."""
        return METRICS[self.name].higher_is_better

    def update(self, estimate: Estimate, batch: Batch) -> None:
        """Add the examples of a batch."""
        key = batch.head.leadfield.tobytes()  # one head under one recording set-up
        if key not in self._geometry:
            self._geometry = {key: Geometry(batch.head)}
        function = METRICS[self.name].function
        values = [function(e, self._geometry[key]) for e in examples(estimate, batch)]
        self.total += sum(values)
        self.count += len(values)

    def compute(self) -> Tensor:
        """The mean."""
        return (self.total / self.count).float()
