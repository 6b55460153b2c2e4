"""Contrastive pretraining: two views of one window have similar features."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import InverseModel, Objective, as_tensors
from deepesi.core.unlabelled import Unlabelled
from deepesi.physics.head_inputs import prepare
from deepesi.training.tasks.base import Task
from deepesi.training.tasks.features import LayerFeatures
from deepesi.training.tasks.masked import Masking, referenced_to_visible, visible_head


def nt_xent(
    first: Float[Tensor, "B F"], second: Float[Tensor, "B F"], temperature: float
) -> Float[Tensor, ""]:
    """Normalized temperature-scaled cross entropy over ``2 B`` views, ``first[i] ~ second[i]``.

    Args:
        first: Features of one view of every example; their length does not matter.
        second: Features of the other view.
        temperature: Divides the cosines.

    Source: Chen et al. 2020, arXiv:2002.05709 (SimCLR).

    """
    views = functional.normalize(torch.cat([first, second]), dim=1)
    own = torch.eye(len(views), dtype=torch.bool, device=views.device)
    scores = (views @ views.T / temperature).masked_fill(own, -torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return functional.cross_entropy(scores, partner)


class Contrastive(Task):
    """Views of a window that differ in time, channels and line noise have similar features.

    The reference is not varied: every network gets data in the reference of its sensors, which
    undoes any other reference exactly.

    Args:
        features: Layer whose features are compared.
        n_features: Its number of features.
        n_projected: Output features of the projection head, which is not saved.
        temperature: Of `nt_xent`.
        jitter: Share of the window that the two views may be shifted by.
        dropout: Largest share of missing channels.
        line_noise: Largest standard deviation of line noise, in units of the noise.
        line_frequency: Lowest and highest frequency of line noise, Hz.

    Raises:
        ValueError: A share or a scale is out of range.

    """

    batches: ClassVar[type[Unlabelled]] = Unlabelled

    def __init__(
        self,
        features: LayerFeatures,
        n_features: int,
        n_projected: int = 16,
        temperature: float = 0.2,
        jitter: float = 0.25,
        dropout: float = 0.3,
        line_noise: float = 1.0,
        line_frequency: tuple[float, float] = (50.0, 60.0),
    ) -> None:
        super().__init__()
        if not (temperature > 0 and line_noise >= 0 and 0 <= jitter < 1 and 0 <= dropout < 1):
            raise ValueError(
                "Contrastive: temperature must be above 0, line_noise 0 or more, jitter and "
                f"dropout shares below 1; got {temperature}, {line_noise}, {jitter}, {dropout}."
            )
        self.features, self.temperature = features, temperature
        self.jitter, self.dropout, self.line_noise = jitter, dropout, line_noise
        self.line_frequency = tuple(line_frequency)
        self.project = nn.Sequential(
            nn.Linear(n_features, n_features), nn.ReLU(), nn.Linear(n_features, n_projected)
        )

    def training_loss(
        self, model: InverseModel, batch: Unlabelled, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """`nt_xent` of two views of every window."""
        first, second = (self.project(self._view(model, batch, rng)) for _ in range(2))
        return {"loss": nt_xent(first, second, self.temperature)}

    def _view(
        self, model: InverseModel, batch: Unlabelled, rng: torch.Generator
    ) -> Float[Tensor, "B F"]:
        """Features of one random view."""
        n_channels, n_times = batch.data.shape[1:]
        room = round(self.jitter * n_times) if n_times > 1 else 0
        shift = int(torch.randint(room + 1, (), generator=rng, device=rng.device))
        data = self._with_line_noise(batch, rng)[..., shift : n_times - room + shift]
        share = self.dropout * float(torch.rand((), generator=rng, device=rng.device))
        masking = Masking.draw(n_channels, share, rng)
        arrays = prepare(model.head_inputs, visible_head(batch.head, masking))
        visible = referenced_to_visible(data, batch.head.sensors, masking)[:, masking.visible]
        return self.features(model, visible, as_tensors(arrays, data.device))[1]

    def _with_line_noise(self, batch: Unlabelled, rng: torch.Generator) -> Float[Tensor, "B C T"]:
        """The recordings with a sine of random phase, frequency and topography."""
        n_examples, n_channels, n_times = batch.data.shape
        draw = torch.rand((3, n_examples, 1, 1), generator=rng, device=rng.device)
        low, high = self.line_frequency
        frequency = low + (high - low) * draw[0]
        time = torch.arange(n_times, device=rng.device) / batch.sfreq
        sine = torch.sin(2 * torch.pi * (frequency * time + draw[1]))
        topography = torch.randn((n_examples, n_channels, 1), generator=rng, device=rng.device)
        scale = self.line_noise * batch.head.noise_level * draw[2]
        operator = torch.as_tensor(batch.head.sensors.reference_operator).to(batch.data)
        return batch.data + operator @ (2**0.5 * scale * topography * sine)
