"""Number of sources behind a recording, from what every further patch adds to the evidence."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

#: Features of every further source.
N_FEATURES = 5
#: Logarithm of the factor on what is added to the evidence, and the share of the logarithm of the
#: number of patches that does not count, before training: the best on 900 simulated recordings.
START = (-2.8, 0.96)
#: Factor on the output of the network, so that a short training moves it far enough.
FASTER = 4.0


class SourceCounts(nn.Module):
    """Posterior of the number of sources, 1 to `most`.

    The odds of one more source would be what it adds to the evidence, divided by the number of
    patches it is chosen from: Bayes' rule for equal priors, with one support per number. But other
    supports of the same number count, too, and errors of the head model add to the evidence. So a
    small network scales the logarithm of both. Before training these are two constants.

    Args:
        most: Largest number of sources.
        hidden: Width of the network.

    """

    def __init__(self, most: int, hidden: int) -> None:
        super().__init__()
        self.most = most
        self.first, self.last = nn.Linear(N_FEATURES, hidden), nn.Linear(hidden, 2)
        nn.init.zeros_(self.last.weight)
        self.last.bias = nn.Parameter(torch.tensor(START) / FASTER)

    def forward(
        self,
        gains: Float[Tensor, "B K"],
        n_patches: Float[Tensor, ""],
        power: Float[Tensor, " B"],
        n_times: Float[Tensor, " B"],
    ) -> Float[Tensor, "B K"]:
        """Logarithmic probabilities.

        Args:
            gains: Result of `evidence_gains`.
            n_patches: Number of patches in the dictionary.
            power: Power of the whitened recording.
            n_times: Number of samples in time.

        """
        earlier = functional.pad(gains[:, :-1], (1, 0))
        number = torch.ones_like(gains).cumsum(1) / self.most
        common = [v[:, None].expand_as(gains) for v in (power.log1p() / 4, n_times.log() / 4)]
        features = torch.stack([gains.log1p(), earlier.log1p(), number, *common], dim=2)
        hidden = functional.gelu(self.first(features.to(self.first.weight.dtype)))
        change = FASTER * self.last(hidden)
        scale, shift = change.to(gains.dtype).unbind(2)
        odds = scale.exp() * gains + (shift - 1) * n_patches.log()
        return torch.log_softmax(odds.cumsum(1), dim=1)


def evidence_gains(
    white: Float[Tensor, "B C T"], rows: Float[Tensor, "B A O C"], most: int
) -> Float[Tensor, "B K"]:
    """What every further patch adds to the logarithm of the evidence, in greedy order.

    Each patch has the variance of highest evidence, ``max(0, r - 1) O / s`` with ``s = sum qᵀ P q``
    over its ``O`` topographies, ``r = sum ‖qᵀ P V‖² / (T s)`` and the precision ``P`` of the
    residual of the earlier patches. It adds ``O T (r - 1 - log r) / 2``; exact for one orientation,
    and for orthogonal topographies of equal ``s``.

    Args:
        white: Data ``V``, noise variance 1.
        rows: Topographies ``q`` of the candidates.
        most: Number of patches ``K`` to add.

    """
    n_orient = rows.shape[2]
    n_times = torch.ones_like(white[:, 0]).sum(1, keepdim=True)
    precision = torch.diag_embed(torch.ones_like(white[..., 0]))
    gains = []
    for _ in range(most):
        filtered = rows.flatten(1, 2) @ precision
        information = (filtered * rows.flatten(1, 2)).sum(2).unflatten(1, rows.shape[1:3]).sum(2)
        energy = (filtered @ white).square().sum(2).unflatten(1, rows.shape[1:3]).sum(2)
        ratio = (energy / (n_times * information)).clamp_min(1)
        gain, number = (0.5 * n_orient * n_times * (ratio - 1 - ratio.log())).max(1, keepdim=True)
        gains.append(gain)
        best = rows.gather(1, number[..., None, None].expand(-1, -1, *rows.shape[2:]))[:, 0]
        variance = (ratio - 1) * n_orient / information
        precision = _with_patch(precision, best, variance.gather(1, number)[..., None])
    return torch.cat(gains, dim=1)


def _with_patch(
    precision: Float[Tensor, "B C C"],
    topographies: Float[Tensor, "B O C"],
    variance: Float[Tensor, "B 1 1"],
) -> Float[Tensor, "B C C"]:
    """Inverse covariance with one more patch, by one update of rank one per topography."""
    for topography in topographies.split(1, dim=1):
        filtered = topography @ precision
        information = (filtered * topography).sum(2, keepdim=True)
        precision = precision - filtered.mT @ filtered * (variance / (1 + variance * information))
    return precision


def count_loss(
    log_probabilities: Float[Tensor, "B K"], counts: Int[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Mean negative logarithm of the probability of the true numbers, at most ``K``."""
    number = counts.clamp(1, log_probabilities.shape[1]) - 1
    return -log_probabilities.gather(1, number[:, None]).mean()
