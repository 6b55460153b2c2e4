"""What is known of a recording before any patch is drawn, and learned scores of all patches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.patches import neighbour_mean, small_linear
from deepesi.core.quantities import summed_power
from deepesi.models.layers.patch_sequence import Recordings

#: Power, in units of that of the noise, which is added so that logarithms stay finite.
FLOOR = 1e-2
#: Smallest logarithm of the evidence of a skull relative to the best one.
MIN_EVIDENCE = -10.0


def power_features(
    recordings: Recordings, explained: Float[Tensor, "J M B"], rank: Float[Tensor, " 1"]
) -> Float[Tensor, "B F"]:
    """Logarithms of the power, of the residual power after 1 to ``J`` patches, and of the duration.

    Args:
        recordings: Recordings.
        explained: Result of `deepesi.models.layers.patch_sequence.greedy`.
        rank: Dimensions of the noise.

    """
    white = recordings.white
    power = summed_power(white)
    n_times = torch.ones_like(white[0, 0]).sum()
    residual = (power - explained.amax(1)).clamp_min(0)
    powers = (torch.cat([power[None], residual]) / rank + FLOOR).log() / 3
    return torch.cat([powers, (n_times.log() / 3).expand_as(power)[None]]).T


def skull_features(
    explained: Float[Tensor, "J M B"], slope: Float[Tensor, " B"]
) -> Float[Tensor, "B F"]:
    """Log-evidence of every skull relative to the best, with one patch and with ``J``.

    Args:
        explained: Result of `deepesi.models.layers.patch_sequence.greedy`.
        slope: Log-likelihood per explained power.

    """
    ends = torch.stack([explained[0], explained[-1]])
    evidence = slope * (ends - ends.amax(1, keepdim=True))
    return evidence.clamp_min(MIN_EVIDENCE).flatten(0, 1).T / 3


def with_step(
    features: Float[Tensor, "B F"], own: Float[Tensor, "N B G"], step: int, n_steps: int
) -> Float[Tensor, "N B H"]:
    """Features of recordings, of their configurations, and which of the steps it is."""
    one_hot = torch.eye(n_steps).to(own)[step].expand(*own.shape[:2], -1)
    return torch.cat([features.expand(own.shape[0], -1, -1), own, one_hot], dim=2)


class PatchScores(nn.Module):
    """Learned correction of the log-evidence of every patch, for each step of a sequence.

    Every source reads the shares of the power that its patches and those of its neighbours on the
    mesh explain, the sensitivity to it, and the features of the recording. The initial correction
    is near zero.

    Args:
        n_radii: Number ``K`` of patch radii.
        n_components: Number ``J`` of steps.
        n_features: Features of a recording.
        hidden: Width of the network.

    """

    def __init__(self, n_radii: int, n_components: int, n_features: int, hidden: int) -> None:
        super().__init__()
        self.n_radii, self.n_components = n_radii, n_components
        self.source = nn.Linear(2 * n_radii + 1, hidden)
        self.recording = nn.Linear(n_features, hidden, bias=False)
        self.received = nn.Linear(2 * hidden, hidden)
        self.last = small_linear(hidden, n_radii * n_components)

    def forward(
        self,
        energy: Float[Tensor, "B K S"],
        power: Float[Tensor, " B"],
        log_moments: Float[Tensor, " S"],
        features: Float[Tensor, "B F"],
        neighbours: Int[Tensor, "N S"],
    ) -> Float[Tensor, "J B P"]:
        """Correction of every patch.

        Args:
            energy: Power that each patch alone explains.
            power: Power of the recording.
            log_moments: Logarithm of the moment that is as strong as the noise.
            features: Features of the recording.
            neighbours: Array of `deepesi.physics.head_inputs.MeshNeighbours`.

        """
        shares = energy / (power[:, None, None] + FLOOR)
        sensitivity = log_moments.expand_as(shares[:, :1])
        read = torch.cat([3 * shares, energy.log1p() / 3, sensitivity], dim=1).permute(2, 0, 1)
        hidden = functional.relu(self.source(read) + self.recording(features))
        both = torch.cat([hidden, neighbour_mean(hidden, neighbours)], dim=2)
        hidden = hidden + functional.relu(self.received(both))
        scores = self.last(hidden).unflatten(2, (self.n_components, self.n_radii))
        return scores.permute(2, 1, 3, 0).flatten(2)
