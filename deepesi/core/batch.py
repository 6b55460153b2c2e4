"""Simulated recordings under one set-up, as tensors: Batch, its true lead fields and its scene."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepesi.physics.head import HeadModel


def _move(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    if isinstance(value, Tensor | Tensors):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, dict):
        return {k: _move(v, device, non_blocking) for k, v in value.items()}
    return value


def _pin(value: Any) -> Any:
    if isinstance(value, Tensor | Tensors):
        return value.pin_memory()
    return {k: _pin(v) for k, v in value.items()} if isinstance(value, dict) else value


_T = TypeVar("_T", bound="Tensors")


@dataclass(frozen=True)
class Tensors:
    """Base of frozen dataclasses whose tensors move together; other fields stay as they are."""

    def _mapped(self: _T, function: Any) -> _T:
        changed = {f.name: function(getattr(self, f.name)) for f in fields(self)}
        return replace(self, **changed)

    def to(self: _T, device: torch.device | str, non_blocking: bool = False) -> _T:
        """All tensors on a device."""
        return self._mapped(lambda value: _move(value, device, non_blocking))

    def pin_memory(self: _T) -> _T:
        """All tensors in page-locked memory, for asynchronous copies to a GPU."""
        return self._mapped(_pin)


@dataclass(frozen=True)
class LowRankLeadField(Tensors):
    """True lead fields of a batch, one per example, in factors instead of ``(B, C, D)``.

    ``L_b = E_b (sum_k c_bk G_k) Vᵀ`` with ``E_b`` the referenced patterns at the sensors of
    example ``b``. See `deepesi.physics.family.LeadFieldFamily`. Terms ``k`` that only
    touch the first patterns and modes are kept apart, as smaller matrices.

    Attributes:
        coefficients: ``c``, of the wide and then of the narrow terms.
        patterns: ``E``, no unit.
        wide: Core of the wide terms, `SensorArray.head_units`.
        narrow: Core of the narrow terms, `SensorArray.head_units`.
        source_modes: ``V``, 1/(A m).

    """

    coefficients: Float[Tensor, "B K"]
    patterns: Float[Tensor, "B C P"]
    wide: Float[Tensor, "K1 P R"]
    narrow: Float[Tensor, "K2 Q Q"]
    source_modes: Float[Tensor, "D R"]

    def project(self, sources: Float[Tensor, "B D T"]) -> Float[Tensor, "B C T"]:
        """Referenced data (`SensorArray.head_units`) of sources (A m)."""
        reduced = torch.einsum("dr,bdt->brt", self.source_modes, sources)
        return self.patterns @ self._on_scalp(reduced)

    def matrices(self) -> Float[Tensor, "B C D"]:
        """The lead fields as matrices, `SensorArray.head_units` per A m."""
        n_modes = self.source_modes.shape[1]
        unit = torch.eye(n_modes, device=self.source_modes.device)
        reduced = unit.expand(len(self.coefficients), -1, -1)
        return (self.patterns @ self._on_scalp(reduced)) @ self.source_modes.T

    def _on_scalp(self, reduced: Float[Tensor, "B R T"]) -> Float[Tensor, "B P T"]:
        """Weights of the patterns, from weights of the source modes."""
        n_wide, n_narrow = len(self.wide), self.narrow.shape[-1]
        scalp = _through_core(self.wide, self.coefficients[:, :n_wide], reduced)
        if len(self.narrow):
            first = reduced[:, :n_narrow]
            few = _through_core(self.narrow, self.coefficients[:, n_wide:], first)
            scalp = torch.cat([scalp[:, :n_narrow] + few, scalp[:, n_narrow:]], dim=1)
        return scalp


#: Columns up to which it is faster to apply every term of a core than to add the terms up first.
FEW_COLUMNS = 4


def _through_core(
    core: Float[Tensor, "K P R"],
    coefficients: Float[Tensor, "B K"],
    reduced: Float[Tensor, "B R T"],
) -> Float[Tensor, "B P T"]:
    """``(sum_k c_bk G_k) x_b``: every term is applied to few columns, or all are added up first."""
    if reduced.shape[2] > FEW_COLUMNS:
        leadfields: Tensor = (coefficients @ core.flatten(1)).unflatten(1, core.shape[1:]) @ reduced
        return leadfields
    rows = reduced.transpose(1, 2).flatten(0, 1) @ core.flatten(0, 1).T
    by_term = rows.unflatten(1, core.shape[:2]).unflatten(0, (len(reduced), -1))
    return torch.einsum("bk,btkp->bpt", coefficients, by_term)


@dataclass(frozen=True)
class Scene(Tensors):
    """Simulation parameters of each example of a batch.

    Attributes:
        peaks: Source numbers of the centres ``(B, K)``, -1 where there are fewer than ``K``.
        extents: Radii ``(B, K)``, m; 0 for a point, infinite for a field over the whole space.
        moments: Total dipole moment of every patch at its peak ``(B, K)``, A m: the sum of the
            magnitudes of its sources, without those of other patches.
        snr_db: SNR of the brain sources to the noise ``(B,)``, dB, without artifacts.
        tissues: Skull conductivity (S/m), skull thickness (m), scalp and brain conductivity (S/m)
            of the example ``(B, 4)``; NaN if the head has only one lead field.
        artifacts: Whether an example has each artifact of the generator ``(B, A)``.
        head_name: The head.
        key: ``(seed, split, rank, step)``, from which the batch can be drawn again.

    """

    peaks: Int[Tensor, "B K"]
    extents: Float[Tensor, "B K"]
    moments: Float[Tensor, "B K"]
    snr_db: Float[Tensor, " B"]
    tissues: Float[Tensor, "B 4"]
    artifacts: Bool[Tensor, "B A"]
    head_name: str
    key: tuple[int, str, int, int]


@dataclass(frozen=True)
class Batch(Tensors):
    """Simulated recordings under one set-up.

    Attributes:
        data: Referenced recordings ``(B, C, T)``, `SensorArray.head_units`.
        sources: Dipole moments ``(B, D, T)``, A m.
        head: The *nominal* head, which the analyst assumes.
        inputs: Prepared head inputs of the nominal head.
        true_leadfield: True lead field of each example.
        scene: Simulation parameters.

    """

    data: Float[Tensor, "B C T"]
    sources: Float[Tensor, "B D T"]
    head: HeadModel
    inputs: dict[str, Tensor]
    true_leadfield: LowRankLeadField
    scene: Scene

    @property
    def key(self) -> tuple[int, str, int, int]:
        """``(seed, split, rank, step)``."""
        return self.scene.key

    def example(self, number: int) -> "Batch":
        """One example as a batch of its own."""
        return self.part(slice(number, number + 1))

    def part(self, rows: slice) -> "Batch":
        """Some of the examples."""
        scene = {
            f.name: getattr(self.scene, f.name)[rows]
            for f in fields(self.scene)
            if isinstance(getattr(self.scene, f.name), Tensor)
        }
        true_leadfield = replace(
            self.true_leadfield,
            coefficients=self.true_leadfield.coefficients[rows],
            patterns=self.true_leadfield.patterns[rows],
        )
        return replace(
            self,
            data=self.data[rows],
            sources=self.sources[rows],
            true_leadfield=true_leadfield,
            scene=replace(self.scene, **scene),
        )
