"""Feature whitening per site: a layer gets the statistics that it has on training recordings."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.core.unlabelled import Unlabelled
from deepesi.training.tasks.features import named_layer

#: Share of the mean variance that is added to every variance, so that constant features stay.
SHRINKAGE = 1e-3


class FeatureStatistics(NamedTuple):
    """Mean ``(F,)`` of feature vectors, and symmetric root of their covariance ``(F, F)``."""

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, rows: Float[Tensor, "N F"]) -> "FeatureStatistics":
        """Statistics of feature vectors, float64."""
        cov = torch.cov(rows.T)
        shrinkage = SHRINKAGE * cov.diagonal().mean().clamp_min(torch.finfo(cov.dtype).tiny)
        values, vectors = torch.linalg.eigh(cov + shrinkage * torch.eye(len(cov)).to(cov))
        return cls(rows.mean(0), vectors * values.sqrt() @ vectors.T)

    def transport_to(
        self, other: "FeatureStatistics", rows: Float[Tensor, "*N F"]
    ) -> Float[Tensor, "*N F"]:
        """Vectors with these statistics, transformed to the statistics of another site."""
        return (rows - self.mean) @ torch.linalg.solve(self.root, other.root) + other.mean


class SiteWhitening(InverseModel):
    """A network with whitened features: ``μ + Σ^½ Σ_site^-½ (f − μ_site)`` for a feature vector f.

    A site is one recording, or several of one set-up. Its features in one layer get the mean and
    covariance of the training recordings, in closed form. No weight changes and no target is
    needed. Call `fit` once with simulated recordings, and `adapt` for every site; until then the
    network does not change.

    Args:
        network: A trained network.
        layer: Name of the layer, as in ``network.named_modules()``; of a tuple the first entry.
        feature_axis: Axis of the features in its output.

    Raises:
        ValueError: The network has no such layer.

    Source: Roy et al. 2019, arXiv:1903.03215. Difference: whitened per recording after training,
    and coloured again, so that the layers above do not change.

    """

    exportable = False

    def __init__(self, network: InverseModel, layer: str, feature_axis: int) -> None:
        super().__init__()
        self.network, self.feature_axis = network, feature_axis
        self.head_inputs = network.head_inputs
        self.bound_to_space = network.bound_to_space
        self.window_needs = network.window_needs
        self._layer = (named_layer(network, layer, "SiteWhitening", "layer"),)  # registered once
        self._training: FeatureStatistics | None = None
        self._site: FeatureStatistics | None = None

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the network."""
        return self.network.assumptions

    def fit(self, batches: Iterable[Batch | Unlabelled]) -> None:
        """Take the statistics of training recordings."""
        features = [self._features(batch.data, batch.inputs) for batch in batches]
        self._training = FeatureStatistics.of(torch.cat(features))

    def adapt(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> None:
        """Take the statistics of a site from its windows.

        Raises:
            RuntimeError: `fit` was not called.

        """
        if self._training is None:
            raise RuntimeError("SiteWhitening: call fit with training recordings before adapt.")
        self._site = FeatureStatistics.of(self._features(data, inputs))

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Estimate with the features of the site whitened and coloured."""
        if self._training is None or self._site is None:
            return self.network(data, inputs)
        site, training = self._site, self._training

        def whitened(output: Tensor) -> Tensor:
            rows = output.movedim(self.feature_axis, -1)
            changed = site.transport_to(training, rows.double())
            return changed.to(output.dtype).movedim(-1, self.feature_axis)

        return self._run(data, inputs, whitened)

    def _features(self, data: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """Feature vectors of every example and source location ``(N, F)``."""
        rows: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            rows.append(output.movedim(self.feature_axis, -1).flatten(0, -2).double())
            return output

        with torch.no_grad():
            self._run(data, inputs, keep)
        return torch.cat(rows)

    def _run(
        self, data: Tensor, inputs: dict[str, Tensor], change: Callable[[Tensor], Tensor]
    ) -> Estimate:
        """The network with the output of the layer changed."""

        def hook(layer: Any, arguments: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return change(output[0]), *output[1:]
            return change(output)

        handle = self._layer[0].register_forward_hook(hook)
        try:
            return self.network(data, inputs)
        finally:
            handle.remove()
