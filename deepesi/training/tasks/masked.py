"""Masked-channel modelling: predict channels that the network does not receive."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.core.contracts import InverseModel, Objective, as_tensors
from deepesi.core.unlabelled import Unlabelled
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import prepare
from deepesi.physics.io.channels import MIN_CHANNELS
from deepesi.physics.sensors import SensorArray
from deepesi.training.tasks.base import Task

#: Power that is added to that of the missing channels, in units of the noise.
SMALL_POWER = 1.0


class Masking(NamedTuple):
    """Channels that a network receives and those that it predicts, both ascending."""

    visible: Int[Tensor, " V"]
    missing: Int[Tensor, " M"]

    @classmethod
    def draw(cls, n_channels: int, share: float, rng: torch.Generator) -> "Masking":
        """A random share of the channels is missing; at least one, and `MIN_CHANNELS` remain."""
        n_missing = max(1, min(round(share * n_channels), n_channels - MIN_CHANNELS))
        order = torch.randperm(n_channels, generator=rng, device=rng.device).cpu()
        return cls(order[n_missing:].sort().values, order[:n_missing].sort().values)


def visible_head(head: HeadModel, masking: Masking) -> HeadModel:
    """The head under the set-up of the visible channels."""
    return head.pick([head.sensors.names[i] for i in masking.visible.tolist()])


def referenced_to_visible(
    data: Float[Tensor, "B C T"], sensors: SensorArray, masking: Masking
) -> Float[Tensor, "B C T"]:
    """Data of all channels in the reference of the visible channels."""
    operator = sensors.reference_to(masking.visible.numpy())
    return torch.as_tensor(operator, dtype=data.dtype, device=data.device) @ data


def predict_missing(
    model: InverseModel,
    data: Float[Tensor, "B C T"],
    head: HeadModel,
    masking: Masking,
    background: InverseModel | None = None,
) -> Float[Tensor, "B M T"]:
    """Missing channels from sources that the model estimates from the visible ones.

    The lead field projects the estimate onto all channels. The reference is that of the visible
    ones.

    Args:
        model: Network, or any other inverse model.
        data: All channels, `SensorArray.head_units`; the model receives the visible ones only.
        head: Head of all channels.
        masking: Which channels are visible.
        background: Inverse model that estimates the sources of what `model` leaves unexplained in
            the visible channels; None: not used.

    """
    models = [model] if background is None else [model, background]
    declarations = dict.fromkeys(d for one in models for d in one.head_inputs)
    inputs = as_tensors(prepare(declarations, visible_head(head, masking)), data.device)
    leadfield = torch.as_tensor(head.leadfield, dtype=data.dtype, device=data.device)
    rest = referenced_to_visible(data, head.sensors, masking)[:, masking.visible]
    predicted = torch.zeros_like(data)
    for one in models:
        explained = referenced_to_visible(leadfield @ one(rest, inputs).mean, head.sensors, masking)
        rest, predicted = rest - explained[:, masking.visible], predicted + explained
    return predicted[:, masking.missing]


def unexplained(
    predicted: Float[Tensor, "B M T"],
    data: Float[Tensor, "B C T"],
    head: HeadModel,
    masking: Masking,
) -> Float[Tensor, " B"]:
    """Share of the power of the missing channels, in units of their noise, that is not predicted.

    0: predicted exactly; 1: as good as no prediction.
    """
    std = torch.as_tensor(head.noise_cov.diagonal().copy(), dtype=data.dtype).sqrt()
    std = std.clamp_min(1e-3 * std.max()).to(data.device)[masking.missing, None]
    target = referenced_to_visible(data, head.sensors, masking)[:, masking.missing] / std
    error = (predicted / std - target).square().mean((1, 2))
    return error / (target.square().mean((1, 2)) + SMALL_POWER)


class MaskedChannels(Task):
    """The network estimates sources from some channels, and the lead field predicts the others.

    So the whole network is trained, with any montage, and no weight is added to it.

    Args:
        background: Inverse method for what the network leaves unexplained, such as the activity of
            the whole cortex that no small number of patches describes. None: no background.
        missing: Shares of missing channels; one of them per batch.

    Raises:
        ValueError: A share is not between 0 and 1.

    Source: masked modelling as in He et al. 2022, arXiv:2111.06377. Difference: the decoder is the
    lead field, so the network learns an inverse.

    """

    batches: ClassVar[type[Unlabelled]] = Unlabelled

    def __init__(
        self, background: InverseModel | None = None, missing: Sequence[float] = (0.1, 0.3, 0.5)
    ) -> None:
        super().__init__()
        if not missing or not all(0 < share < 1 for share in missing):
            raise ValueError(
                f"MaskedChannels: missing must hold shares between 0 and 1, got {list(missing)}."
            )
        # Its weights, if any, are not trained.
        self.background = None if background is None else background.requires_grad_(False)
        self.missing = tuple(missing)

    def training_loss(
        self, model: InverseModel, batch: Unlabelled, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean unexplained share of the missing channels."""
        choice = int(torch.randint(len(self.missing), (), generator=rng, device=rng.device))
        masking = Masking.draw(batch.data.shape[1], self.missing[choice], rng)
        predicted = predict_missing(model, batch.data, batch.head, masking, self.background)
        return {"loss": unexplained(predicted, batch.data, batch.head, masking).mean()}
