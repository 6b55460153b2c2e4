"""The contract every part of deepesi meets: Batch, Estimate, InverseModel."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput


class Estimate(NamedTuple):
    """What an inverse model says: dipole moments and, if it claims any, their uncertainty."""

    mean: Float[Tensor, "B D T"]  # A m
    std: Float[Tensor, "B D T"] | None = None


class InverseModel(nn.Module, ABC):
    """Anything that maps scalp potentials to sources.

    Contract, held by one test suite over all models: reordering the channels of head and EEG
    changes nothing; scaling the EEG by ``a`` and the noise covariance by ``a²`` scales the
    estimate by ``a``; montage, batch size and duration are free; `forward` exports to ONNX.

    Attributes:
        head_inputs: What the model asks of a head. `forward` finds each array under its key.
        bound_to_space: Whether the weights belong to one source space. If not, the model follows
            the source space of the head it is given.

    """

    head_inputs: tuple[HeadInput, ...]
    bound_to_space: bool = True

    @abstractmethod
    def forward(self, eeg: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Invert average-referenced EEG (V); exportable operations only."""


def as_tensors(
    arrays: Mapping[str, NDArray[Any]], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Prepared head inputs as tensors: floats become float32, integers int64."""
    return {
        key: torch.as_tensor(
            value,
            dtype=torch.float32 if np.issubdtype(value.dtype, np.floating) else torch.int64,
            device=device,
        )
        for key, value in arrays.items()
    }


def _move(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    if isinstance(value, Tensor | _Tensors):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, dict):
        return {k: _move(v, device, non_blocking) for k, v in value.items()}
    return value


def _pin(value: Any) -> Any:
    if isinstance(value, Tensor | _Tensors):
        return value.pin_memory()
    return {k: _pin(v) for k, v in value.items()} if isinstance(value, dict) else value


_T = TypeVar("_T", bound="_Tensors")


class _Tensors:
    """Frozen dataclasses whose tensors move together; everything else stays as it is."""

    def _mapped(self: _T, function: Any) -> _T:
        changed = {f.name: function(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self: _T, device: torch.device | str, non_blocking: bool = False) -> _T:
        """All tensors on a device."""
        return self._mapped(lambda value: _move(value, device, non_blocking))

    def pin_memory(self: _T) -> _T:
        """All tensors in page-locked memory, for asynchronous copies to a GPU."""
        return self._mapped(_pin)


@dataclass(frozen=True)
class LowRankLeadField(_Tensors):
    """The lead fields that rendered a batch, one per example, never formed as ``(B, C, D)``.

    ``L_b = average_reference(sum_k coefficients[b, k] W_b scalp_modes[k]) source_modesᵀ`` with
    ``W_b`` the barycentric weights of the electrodes of example ``b``. See
    `deepesi.physics.family.LeadFieldFamily`.
    """

    coefficients: Float[Tensor, "B K"]
    vertices: Int[Tensor, "B C 3"]
    weights: Float[Tensor, "B C 3"]
    scalp_modes: Float[Tensor, "K N R"]
    source_modes: Float[Tensor, "D R"]

    def project(self, sources: Float[Tensor, "B D T"]) -> Float[Tensor, "B C T"]:
        """Average-referenced scalp potential (V) of sources (A m)."""
        n_examples, n_channels, _ = self.vertices.shape
        reduced = torch.einsum("dr,bdt->btr", self.source_modes, sources)
        by_node = self.coefficients[:, None, :, None] * reduced[:, :, None]
        modes = self.scalp_modes.permute(0, 2, 1).flatten(0, 1)
        scalp = by_node.flatten(2) @ modes
        corners = self.vertices.reshape(n_examples, 1, -1).expand(-1, scalp.shape[1], -1)
        values = scalp.gather(2, corners).unflatten(2, (n_channels, 3))
        eeg = (values * self.weights[:, None]).sum(-1).transpose(1, 2)
        return eeg - eeg.mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class Scene(_Tensors):
    """What was drawn for each example of a batch.

    Attributes:
        peaks: Source numbers of the patch centres ``(B, K)``, -1 where there are fewer than ``K``.
        extents: Patch radii ``(B, K)``, m.
        snr_db: ``(B,)``.
        skull_conductivity: ``(B,)``, S/m.
        key: ``(seed, split, rank, step)`` from which the batch can be drawn again.

    """

    peaks: Int[Tensor, "B K"]
    extents: Float[Tensor, "B K"]
    snr_db: Float[Tensor, " B"]
    skull_conductivity: Float[Tensor, " B"]
    key: tuple[int, str, int, int]


@dataclass(frozen=True)
class Batch(_Tensors):
    """Simulated recordings under one set-up.

    Attributes:
        eeg: Average-referenced potentials ``(B, C, T)``, V.
        sources: Dipole moments ``(B, D, T)``, A m.
        head: The *nominal* head: what an analyst would have.
        inputs: Its prepared head inputs.
        truth: The lead fields that really rendered each example.
        scene: What was drawn.

    """

    eeg: Float[Tensor, "B C T"]
    sources: Float[Tensor, "B D T"]
    head: HeadModel
    inputs: dict[str, Tensor]
    truth: LowRankLeadField
    scene: Scene


def magnitude(values: Float[Tensor, "B D T"], n_orient: int) -> Float[Tensor, "B S"]:
    """Magnitude per source: norm over orientation, RMS over time."""
    by_source = values.unflatten(1, (-1, n_orient))
    return by_source.square().sum(2).mean(-1).sqrt()
