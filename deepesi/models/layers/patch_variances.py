"""Prior variances of one component, from how well every patch explains a residual."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.patches import energy_by_chance, neighbour_mean, over_patches, small_linear
from deepesi.models.layers.skull_weights import TYPICAL_FREEDOM

#: Features of a source that are the same for every patch.
N_COMMON = 7
#: Largest prior variance of a component, noise variance 1. The estimate of its amplitude is then
#: 2 % too small, and single precision keeps six digits.
LARGEST = 50.0


class PatchVariances(nn.Module):
    """Softmax over patches, from their evidence and a network on the source mesh.

    Args:
        n_patches: Patches ``K`` around each source.
        log_mismatch: Logarithms of the initial share of the energy of a recording that is head
            mismatch, for the location of a source; one for each kind of patch.
        hidden: Width of the network.
        exchanged: Features of a message from a source to its neighbours.
        n_messages: Rounds of messages.
        first: Whether this is the first step. It accepts any energy.

    """

    def __init__(
        self,
        n_patches: int,
        log_mismatch: Sequence[float],
        hidden: int,
        exchanged: int,
        n_messages: int,
        first: bool,
    ) -> None:
        super().__init__()
        self.n_patches = n_patches
        self.first = nn.Linear(4 * n_patches + N_COMMON + hidden, hidden)
        self.send = nn.ModuleList(nn.Linear(hidden, exchanged) for _ in range(n_messages))
        self.receive = nn.ModuleList(
            nn.Linear(hidden + exchanged, hidden) for _ in range(n_messages)
        )
        self.last = small_linear(hidden, n_patches + 1)
        # The threshold is in units of the energy that noise alone reaches.
        self.threshold = nn.Parameter(torch.tensor(0.0 if first else 2.0))
        # The last one is for whether there is a source.
        self.log_mismatch = nn.Parameter(torch.tensor([*log_mismatch, -2.5]))

    def variance(
        self, excess: Float[Tensor, " B"], change: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N B"]:
        """Variances of noise and head mismatch: for each kind of patch, and for the presence.

        They bound the evidence, and with it the effect of rounding on the softmax.

        Args:
            excess: `mismatch_energy` of the recording; noise has variance 1.
            change: Added to the logarithms of the shares of mismatch. None: nothing.

        """
        log_share = self.log_mismatch if change is None else self.log_mismatch + change
        return 1 + log_share.exp()[:, None] * excess / TYPICAL_FREEDOM

    def forward(
        self,
        energy: Float[Tensor, "K S B"],
        evidence: Float[Tensor, "K S B"],
        residual_power: Float[Tensor, " B"],
        total: Float[Tensor, " B"],
        excess: Float[Tensor, " B"],
        n_free: Float[Tensor, " 1"],
        n_signals: int | torch.SymInt,
        sensitivity: Float[Tensor, " S"],
        others: Float[Tensor, "K S B"],
        own: Float[Tensor, "K S B"],
        hidden: Float[Tensor, "S B H"],
        neighbours: Tensor,
    ) -> tuple[Float[Tensor, "K S B"], Float[Tensor, "S B H"]]:
        """Compute new variances and hidden state. Noise has variance 1.

        Args:
            energy: Energy of the residual along each patch.
            evidence: Log-likelihood of each patch, relative to the largest.
            residual_power: Energy of the residual of the other components.
            total: Energy of the recording.
            excess: `mismatch_energy` of the recording.
            n_free: Rank of the noise covariance times number of samples.
            n_signals: Degrees of freedom of `energy`.
            sensitivity: Logarithm of the moment that is as strong as the noise.
            others: Prior variances of the other components.
            own: Prior variances of this component before.
            hidden: State of the network.
            neighbours: Array of `deepesi.physics.head_inputs.graphs.MeshNeighbours`.

        """
        strongest = energy.amax((0, 1))
        presence_variance = self.variance(excess)[-1]
        freedom: Tensor = torch.ones_like(total) * n_signals  # type: ignore[assignment] # SymInt
        by_chance = energy_by_chance(freedom)
        surplus = strongest * torch.sigmoid(
            (strongest / presence_variance - self.threshold * by_chance) / by_chance.sqrt()
        )
        # The evidence is bounded, so that the network can compute in single precision.
        dtype = hidden.dtype
        features = _features(
            energy.to(dtype),
            evidence.clamp_min(-20).to(dtype),
            others.to(dtype),
            own.to(dtype),
            strongest.to(dtype),
            surplus.to(dtype),
            residual_power.to(dtype),
            total.to(dtype),
            sensitivity.to(dtype),
            n_free,
        )
        # As matrices: ONNX Runtime adds the bias in the same operation.
        rows = torch.cat([features.permute(1, 2, 0), hidden], dim=2).flatten(0, 1)
        state = functional.gelu(self.first(rows))
        for send, receive in zip(self.send, self.receive, strict=True):
            sent = send(state).unflatten(0, hidden.shape[:2])
            received = neighbour_mean(sent, neighbours).flatten(0, 1)
            state = state + functional.gelu(receive(torch.cat([state, received], dim=1)))
        hidden = hidden + state.unflatten(0, hidden.shape[:2])
        k = self.n_patches
        out = self.last(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]).permute(2, 0, 1)
        weight = evidence + 10 * out[:k]
        share = over_patches(weight)
        strength = out[k].clamp(-8, 8).exp() * surplus / freedom
        return share * (LARGEST * strength / (LARGEST + strength)), hidden


def _features(
    energy: Float[Tensor, "K S B"],
    evidence: Float[Tensor, "K S B"],
    others: Float[Tensor, "K S B"],
    own: Float[Tensor, "K S B"],
    strongest: Float[Tensor, " B"],
    surplus: Float[Tensor, " B"],
    residual_power: Float[Tensor, " B"],
    total: Float[Tensor, " B"],
    sensitivity: Float[Tensor, " S"],
    n_free: Float[Tensor, " 1"],
) -> Float[Tensor, "F S B"]:
    """Input features of the network for every source, scaled to order one."""
    by_radius = [
        energy.log1p() / 4,
        energy / (residual_power + 1e-3),
        evidence / 10,
        others.log1p() / 4,
    ]
    common = [
        strongest.log1p() / 4,
        (residual_power / n_free + 1e-6).log() / 3,
        (total / n_free + 1e-6).log() / 3,
        surplus.log1p() / 4,
        sensitivity[:, None],
        evidence.amax(0) / 10,
        own.sum(0).log1p() / 4,
    ]
    return torch.cat([torch.cat(by_radius), *(c.expand(1, *energy.shape[1:]) for c in common)])
