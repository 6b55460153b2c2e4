"""Alignment: features of two streams should have the same distribution."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.core.quantities import magnitude
from deepesi.losses.base import LossTerm
from deepesi.physics.head_inputs import SourcePositions

#: Kernels of the distance relative to the bandwidth.
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda distance: torch.exp(-0.5 * distance.square()),
    "laplace": lambda distance: torch.exp(-distance),
    "energy": lambda distance: -distance,
}


class MaximumMeanDiscrepancy(nn.Module):
    r"""Squared maximum mean discrepancy of two samples of features ``()``.

    ``E k(x, x') + E k(y, y') − 2 E k(x, y)``, the mean over all kernels and bandwidths, estimated
    without bias: 0 for equal distributions on average, so it can be below 0. Without `linear` from
    all pairs; with it from ``N / 2`` disjoint pairs of each sample, in linear time and memory, with
    more variance.

    Args:
        kernels: Names of `KERNELS`. ``"energy"`` gives the energy distance and needs no bandwidth.
        bandwidths: Bandwidths, relative to the median distance between the features.
        linear: Whether to use disjoint pairs only.
        unit: Distance that replaces the median; None: the median of the two samples together.

    Raises:
        ValueError: A kernel is unknown, a bandwidth is not positive; a sample has fewer than two
            rows, or with `linear` both have not the same even number of rows (in `forward`).

    Source: Gretton et al. 2012, JMLR 13 (linear time: lemma 14); several kernels as in Long et al.
    2015, arXiv:1502.02791.

    """

    def __init__(
        self,
        kernels: Sequence[str] = ("gaussian",),
        bandwidths: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
        linear: bool = False,
        unit: float | None = None,
    ) -> None:
        super().__init__()
        unknown = sorted(set(kernels) - KERNELS.keys())
        if unknown or not kernels:
            raise ValueError(
                f"MaximumMeanDiscrepancy: kernels must be of {sorted(KERNELS)}, got "
                f"{list(kernels)}."
            )
        if not bandwidths or min(bandwidths) <= 0 or (unit is not None and unit <= 0):
            raise ValueError(
                "MaximumMeanDiscrepancy: bandwidths and unit must be above 0, got "
                f"bandwidths={list(bandwidths)}, unit={unit}."
            )
        self.kernels, self.bandwidths = tuple(kernels), tuple(bandwidths)
        self.linear, self.unit = linear, unit

    def forward(
        self, first: Float[Tensor, "N F"], second: Float[Tensor, "M F"]
    ) -> Float[Tensor, ""]:
        """Discrepancy of two samples, one row per example."""
        self._check(first, second)
        return self._of_pairs(first, second) if self.linear else self._of_all(first, second)

    def _of_all(self, first: Tensor, second: Tensor) -> Tensor:
        both = torch.cat([first, second])
        distance = _distances(both[:, None] - both[None])
        n, m = len(first), len(second)
        upper = torch.triu_indices(n + m, n + m, offset=1, device=both.device)
        kernel = self._kernel(distance, distance[upper[0], upper[1]])
        own = torch.eye(n + m, device=both.device, dtype=torch.bool)
        kernel = kernel.masked_fill(own, 0.0)
        within_first = kernel[:n, :n].sum() / (n * (n - 1))
        within_second = kernel[n:, n:].sum() / (m * (m - 1))
        return within_first + within_second - 2 * kernel[:n, n:].mean()

    def _of_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        (a, b), (c, d) = (sample.unflatten(0, (-1, 2)).unbind(1) for sample in (first, second))
        distance = _distances(torch.stack([a - b, c - d, a - d, b - c]))
        within_first, within_second, *between = self._kernel(distance, distance)
        return (within_first + within_second - between[0] - between[1]).mean()

    def _kernel(self, distance: Tensor, reference: Tensor) -> Tensor:
        """Mean of all kernels; their unit is the median of the reference distances."""
        unit = reference.median().clamp_min(TINY) if self.unit is None else self.unit
        relative = distance / unit
        return torch.stack(
            [KERNELS[name](relative / width) for name in self.kernels for width in self.bandwidths]
        ).mean(0)

    def _check(self, first: Tensor, second: Tensor) -> None:
        n, m = len(first), len(second)
        if min(n, m) < 2:
            raise ValueError(
                f"MaximumMeanDiscrepancy: samples of {n} and {m} rows; without bias it needs two "
                "rows or more of each. Take larger batches."
            )
        if self.linear and (n != m or n % 2):
            raise ValueError(
                f"MaximumMeanDiscrepancy: in linear time both samples need the same even number of "
                f"rows, got {n} and {m}. Cut the longer one, or use linear=False."
            )


#: Smallest square of a distance and smallest median, so that equal features have a gradient.
TINY = 1e-12


def _distances(differences: Tensor) -> Tensor:
    return (differences.square().sum(-1) + TINY).sqrt()


def reverse_gradient(values: Tensor, strength: float = 1.0) -> Tensor:
    """The same values; their gradient is multiplied by ``-strength``.

    Source: Ganin et al. 2016, JMLR 17, arXiv:1505.07818.
    """
    return values.detach() - strength * (values - values.detach())


class DomainAdversary(nn.Module):
    r"""Cross-entropy ``()`` of a classifier that tells two streams apart by their features.

    The gradient that reaches the features is reversed: one optimizer improves the classifier and
    makes the features harder to tell apart. ``log 2`` if they cannot be told apart. Its weights
    belong into the optimizer (deepesi's training does this for every objective).

    Args:
        n_features: Number of features ``F``.
        hidden: Hidden units of the classifier.
        strength: Factor of the reversed gradient, 0 or more. 0: the classifier only watches.

    Raises:
        ValueError: A size is below 1 or the strength is negative.

    Source: Ganin et al. 2016, JMLR 17, arXiv:1505.07818 (DANN).

    """

    def __init__(self, n_features: int, hidden: int = 32, strength: float = 1.0) -> None:
        super().__init__()
        if min(n_features, hidden) < 1 or strength < 0:
            raise ValueError(
                "DomainAdversary: n_features and hidden must be 1 or more and strength 0 or more, "
                f"got {n_features}, {hidden} and {strength}."
            )
        self.strength = strength
        self.classifier = nn.Sequential(
            nn.Linear(n_features, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )

    def forward(
        self, first: Float[Tensor, "N F"], second: Float[Tensor, "M F"]
    ) -> Float[Tensor, ""]:
        """Mean of the cross-entropies of both streams, each with half of the weight."""
        entropies = []
        for domain, features in enumerate((first, second)):
            score = self.classifier(reverse_gradient(features, self.strength))
            entropies.append(
                functional.binary_cross_entropy_with_logits(score, torch.full_like(score, domain))
            )
        return torch.stack(entropies).mean()


class SkullAlignment(LossTerm):
    r"""Alignment of the estimates for skulls of low and of high conductivity (no unit).

    In the simulation, sources do not depend on the skull. So the estimates of the examples with
    the lower half of the conductivities should be distributed as those of the upper half. If they
    differ, the network lets the skull move its sources. Features of an estimate: `map_moments`.
    Needs no target.

    Args:
        alignment: Distance of two samples of features, such as `MaximumMeanDiscrepancy` or
            `DomainAdversary` with `N_MOMENTS` features.

    Raises:
        ValueError: A batch of fewer than 4 examples, or a head with one lead field only, so that
            conductivities are unknown (in `forward`).

    Source: own method, with the alignments above; domains are halves of a batch.

    """

    def __init__(self, alignment: nn.Module) -> None:
        super().__init__()
        self.alignment, self.positions = alignment, SourcePositions()
        self.head_inputs = (self.positions,)

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """The same value for every example."""
        conductivity, size = batch.scene.tissues[:, 0], len(batch.data) // 2
        if size < 2 or not conductivity.isfinite().all():
            raise ValueError(
                f"SkullAlignment: needs 4 examples or more with known skull conductivities, got "
                f"{len(batch.data)} on the head {batch.scene.head_name!r}. Use a packaged head and "
                "a larger data.batch_size, or another loss."
            )
        features = map_moments(estimate, batch, batch.inputs[self.positions.key])
        order = conductivity.argsort()
        value = self.alignment(features[order[:size]], features[order[-size:]])
        return value.expand(len(batch.data))


#: Number of features of `map_moments`.
N_MOMENTS = 10
#: Scale of the positions, m.
HEAD_SIZE = 0.1
#: Magnitude added to every source, as a fraction of the largest of the target.
BACKGROUND = 1e-5


def map_moments(
    estimate: Estimate, batch: Batch, positions: Float[Tensor, "S 3"]
) -> Float[Tensor, "B 10"]:
    """Mean and covariance of the location (in 10 cm), and log of the number of active sources.

    The map of magnitudes, divided by its sum, is the distribution of the location. Independent of
    scale and sign. The number of active sources is ``(Σ m)² / Σ m²``.
    """
    n_orient = batch.head.space.n_orient
    largest = magnitude(batch.sources, n_orient).amax(1, keepdim=True)
    relative = magnitude(estimate.mean, n_orient) / largest + BACKGROUND
    share, scaled = relative / relative.sum(1, keepdim=True), positions / HEAD_SIZE
    mean = share @ scaled
    products = scaled[:, :, None] * scaled[:, None]
    covariance = (share @ products.flatten(1)).unflatten(1, (3, 3)) - mean[:, :, None] * mean[
        :, None
    ]
    row, column = torch.triu_indices(3, 3, device=mean.device)
    active = -share.square().sum(1, keepdim=True).log()
    return torch.cat([mean, covariance[:, row, column], active], dim=1)
