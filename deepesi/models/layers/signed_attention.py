"""Attention between sensors that is an odd function of the signals."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax


class SignedAttention(MessagePassing):  # type: ignore[misc] # torch_geometric has no types
    r"""GATv2 attention between sensors, over states and signals.

    ``w_ij = softmax_j a · LeakyReLU(K x_j + Q x_i + E e_ij)`` depends on the states ``x``, which
    do not change sign with the data. The signals ``s`` change sign with the data. They are only
    added up with these weights and mixed linearly, so the output is an odd function of them.

    Args:
        n_states: Features ``F`` of a state.
        n_signals: Input signals ``Q`` per sensor.
        n_out: Output signals per sensor.
        n_heads: Attention heads ``A``.

    """

    def __init__(self, n_states: int, n_signals: int, n_out: int, n_heads: int) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.key = nn.Linear(n_states, n_states)
        self.query = nn.Linear(n_states, n_states, bias=False)
        self.edge = nn.Linear(2, n_states, bias=False)
        self.score = nn.Linear(n_states, n_heads, bias=False)
        self.states = nn.Linear(n_heads * n_states, n_states)
        self.signals = nn.Linear((n_heads + 1) * n_signals, n_out, bias=False)
        nn.init.normal_(self.signals.weight, std=1e-2)  # start near the unchanged recording

    def forward(
        self,
        states: Float[Tensor, "C B F"],
        signals: Float[Tensor, "C B T Q"],
        edges: Int[Tensor, "E 2"],
        features: Float[Tensor, "E 2"],
    ) -> tuple[Float[Tensor, "C B F"], Float[Tensor, "C B T out"]]:
        """Return new states and the mixed signals of each sensor and its neighbours."""
        weights = self.weights(states, edges, features)
        received = self.propagate(edges.T, weights=weights, value=states).flatten(2)
        summed = self.propagate(edges.T, weights=weights, value=signals.flatten(2))
        by_head = summed.unflatten(3, signals.shape[2:]).transpose(2, 3).flatten(3)
        mixed = self.signals(torch.cat([by_head, signals], dim=3))
        return states + self.states(functional.relu(received)), mixed

    def weights(
        self,
        states: Float[Tensor, "C B F"],
        edges: Int[Tensor, "E 2"],
        features: Float[Tensor, "E 2"],
    ) -> Float[Tensor, "E B A"]:
        """Attention of the receiver of every edge to its sender; they sum to 1 over senders."""
        sender, receiver = edges.unbind(1)
        hidden = self.key(states)[sender] + self.query(states)[receiver]
        scores = self.score(functional.leaky_relu(hidden + self.edge(features)[:, None], 0.2))
        return softmax(scores, receiver, num_nodes=states.shape[0])

    def message(self, weights: Tensor, value_j: Tensor) -> Tensor:
        """Weighted values of the sender, ``(E, B, A, ...)``."""
        return weights[..., None] * value_j[:, :, None]
