"""Where one place of activity is: a learned posterior over patches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.patches import over_first

#: Whitened power that keeps logarithms of silence finite.
QUIET = 1e-2


class Evidence(nn.Module):
    """Where one place of activity is, given how well the patches around every source explain it.

    Args:
        n_radii: Radii ``K`` of the patches.
        n_token: Features of a token.
        hidden: Width ``H``.

    """

    #: Numbers that describe a recording.
    N_RECORDING = 6

    def __init__(self, n_radii: int, n_token: int, hidden: int) -> None:
        super().__init__()
        self.of_patches = nn.Linear(4 * n_radii, hidden, bias=False)
        self.of_token = nn.Linear(n_token, hidden, bias=False)
        self.of_recording = nn.Linear(self.N_RECORDING, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, n_radii)
        self.temperature = nn.Linear(self.N_RECORDING, 1)
        self.presence = nn.Linear(hidden + self.N_RECORDING, 1)
        self.memory = nn.Parameter(torch.tensor(0.5))
        self.mismatch = nn.Parameter(torch.tensor(-2.5))
        # Start from the likelihood alone, sure that there is something to find.
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
        """Probability of every patch, and the features behind it.

        Args:
            energy: Of the matched filters, mean over samples, in units of the noise.
            weights: Of this place before, and the sum of the other places'.
            power: Of the recording, and of what the other places leave; sum over channels.
            n_channels: Rank of the noise and one: the electrodes, unless some were interpolated or
                components taken out.
            n_times: Samples of the window.
            tokens: Of the sources.
            read: By the tokens from the electrodes.

        """
        share = energy / (power[1] + QUIET)
        best = share.detach().amax((0, 1))
        unexplained = (1 - best) * power[1] / n_channels
        powers = torch.cat([power / n_channels, unexplained[None]])
        rest = torch.stack([best, (best * power[1]).log1p() / 3, n_times.log().expand_as(best)])
        recording = torch.cat([(powers + QUIET).log(), rest]).T
        chance = (weights * (weights.shape[1] * weights.shape[2])).log1p() / 3
        patches = torch.cat([3 * share, energy.log1p() / 3, chance.flatten(0, 1)])
        hidden = torch.tensordot(self.of_patches.weight, patches, 1) + read
        hidden = hidden + self.of_token(tokens).T[:, :, None]
        hidden = functional.relu(hidden + self.of_recording(recording).T[:, None])
        hidden = functional.relu(over_first(self.second, hidden))
        # Half the energy, were the patch alone, its lead field right and the noise white. What it
        # leaves beyond the noise, and a share of the power, count as errors that samples have in
        # common; and neighbouring samples say the same twice.
        frames = n_times**self.memory
        error = functional.relu(unexplained - 1)
        error = error + functional.softplus(self.mismatch) * power[0] / n_channels
        slope = 0.5 * frames / (1 + frames * error) * self.temperature(recording)[:, 0].exp()
        score = over_first(self.score, hidden) + slope * energy
        posterior = torch.softmax(score.flatten(0, 1), dim=0).unflatten(0, energy.shape[:2])
        pooled = (hidden * posterior.sum(0)).sum(1).T
        presence = torch.sigmoid(self.presence(torch.cat([pooled, recording], dim=1)))
        return posterior * presence[:, 0], hidden
