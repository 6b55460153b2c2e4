"""Learned posterior probability over the location and radius of one active patch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.patches import over_first, over_patches
from deepesi.models.layers.mismatch_noise import mismatch_energy

#: Smallest prior variance of a patch, as a share of the power of noise.
MIN_STRENGTH = 0.1
#: Whitened power that is added so that logarithms of zero power stay finite.
SMALL_POWER = 1e-2


class Evidence(nn.Module):
    """Posterior probability of every patch, from the data that the patches explain.

    Not to be confused with the step of `deepesi.models.matched_filter`, which turns energies into
    prior variances, without attention and with messages on the mesh. Both take the softmax over all
    patches (`deepesi.core.patches.over_patches`).

    Args:
        n_radii: Number ``K`` of patch radii.
        n_token: Features of a source token.
        hidden: Width ``H``.

    """

    #: Number of features of a whole recording.
    N_RECORDING = 6

    def __init__(self, n_radii: int, n_token: int, hidden: int) -> None:
        super().__init__()
        self.patch_layer = nn.Linear(4 * n_radii, hidden, bias=False)
        self.token_layer = nn.Linear(n_token, hidden, bias=False)
        self.recording_layer = nn.Linear(self.N_RECORDING, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, n_radii)
        self.temperature = nn.Linear(self.N_RECORDING, 1)
        self.presence = nn.Linear(hidden + self.N_RECORDING, 1)
        self.memory = nn.Parameter(torch.tensor(0.5))
        self.mismatch = nn.Parameter(torch.tensor(-2.5))
        # Start from the likelihood alone, with a high probability that the patch is active.
        nn.init.normal_(self.score.weight, std=1e-2)
        for layer in (self.temperature, self.presence):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.temperature.bias)
        nn.init.constant_(self.presence.bias, 2.0)

    def forward(
        self,
        energy: Float[Tensor, "K S B"],
        weights: Float[Tensor, "2 K S B"],
        power: Float[Tensor, "2 B"],
        n_channels: Float[Tensor, " 1"],
        n_times: Float[Tensor, ""],
        tokens: Float[Tensor, "S n"],
        read: Float[Tensor, "H S B"],
    ) -> tuple[Float[Tensor, "K S B"], Float[Tensor, "H S B"]]:
        """Compute the probability of every patch.

        Args:
            energy: Energy of the matched filters, mean over samples; noise has variance 1.
            weights: Previous probabilities of this component, and the sum of all others'.
            power: Whitened power, sum over channels: of the recording, of the others' residual.
            n_channels: Rank of the noise covariance plus 1: the number of sensors, less the
                interpolated channels and removed components.
            n_times: Number of samples.
            tokens: Features of the sources.
            read: Features that the source tokens attended to.

        Returns:
            Probabilities (they sum to less than 1: the patch may be absent) and hidden features.

        """
        share = energy / (power[1] + SMALL_POWER)
        # Weights of sensors change the angles between topographies, so shares may exceed 1.
        best = share.detach().amax((0, 1)).clamp_max(1.0)
        unexplained = (1 - best) * power[1] / n_channels
        powers = torch.cat([power / n_channels, unexplained[None]])
        rest = torch.stack([best, (best * power[1]).log1p() / 3, n_times.log().expand_as(best)])
        recording = torch.cat([(powers + SMALL_POWER).log(), rest]).T
        prior = (weights * (weights.shape[1] * weights.shape[2])).log1p() / 3
        patches = torch.cat([3 * share, energy.log1p() / 3, prior.flatten(0, 1)])
        hidden = torch.tensordot(self.patch_layer.weight, patches, 1) + read
        hidden = hidden + self.token_layer(tokens).T[:, :, None]
        hidden = functional.relu(hidden + self.recording_layer(recording).T[:, None])
        hidden = functional.relu(over_first(self.second, hidden))
        # The log-likelihood is half the energy if the patch is the only source, the lead field
        # exact and the noise white. The unexplained power above the noise, and a share of
        # `mismatch_energy`, count as errors common to all samples. Samples are correlated in time,
        # so fewer than `n_times` of them count.
        frames = n_times**self.memory
        error = functional.relu(unexplained - 1) + self._mismatch(power, n_channels, n_times)
        slope = 0.5 * frames / (1 + frames * error) * self.temperature(recording)[:, 0].exp()
        score = over_first(self.score, hidden) + slope * energy
        posterior = over_patches(score)
        pooled = (hidden * posterior.sum(0)).sum(1).T
        presence = torch.sigmoid(self.presence(torch.cat([pooled, recording], dim=1)))
        return posterior * presence[:, 0], hidden

    def _mismatch(
        self,
        power: Float[Tensor, "2 B"],
        n_channels: Float[Tensor, " 1"],
        n_times: Float[Tensor, ""],
    ) -> Float[Tensor, " B"]:
        """Variance per channel of an error of the head model, common to all samples."""
        excess = mismatch_energy(power[0], n_channels, n_channels / n_times)
        return functional.softplus(self.mismatch) * excess / n_channels

    def strength(
        self,
        power: Float[Tensor, "2 B"],
        rank: Float[Tensor, " 1"],
        n_times: Float[Tensor, ""],
    ) -> Float[Tensor, " B"]:
        """Prior variance of a patch, in units of the variance of noise and errors.

        Args:
            power: As in `forward`.
            rank: Dimensions of the noise.
            n_times: As in `forward`.

        """
        signal = (power[1] - rank).maximum(MIN_STRENGTH * rank)
        return signal / (1 + n_times**self.memory * self._mismatch(power, rank, n_times))
