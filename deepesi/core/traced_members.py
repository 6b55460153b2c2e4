"""Traces one member of an ensemble for all, so that a graph computes them together."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import is_dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from deepesi.core.contracts import Estimate, InverseModel

#: Marks in a traced graph, in this ONNX domain: between them one member represents all.
#: `deepesi.export.members` replaces them.
DOMAIN, ONE_OF, ALL_OF = "deepesi.members", "OneOf", "AllOf"
#: Outputs of members that a mixture combines.
COMBINED = ("mean", "std", "source_counts")
#: Whether a member is being traced: an ensemble in it is computed member by member.
_inside = ContextVar("_inside", default=False)


def is_tracing_members() -> bool:
    """Whether an ensemble should trace one of its members for all."""
    return torch.compiler.is_exporting() and not _inside.get()


def trace_side_by_side(
    member: InverseModel,
    tensors: Mapping[str, Tensor],
    data: Float[Tensor, "B C T"],
    inputs: dict[str, Tensor],
) -> list[Estimate]:
    """Outputs of the members during tracing for ONNX; nothing is computed.

    Args:
        member: Any member.
        tensors: Parameters and buffers that differ, by name, stacked along a first axis.
        data: Recordings, `SensorArray.head_units`.
        inputs: Head inputs.

    """
    n_members = len(next(iter(tensors.values())))
    of_one = {name: _mark(ONE_OF, value, value.shape[1:]) for name, value in tensors.items()}
    token = _inside.set(True)
    try:
        estimate = functional_call(member, of_one, (data, inputs))
    finally:
        _inside.reset(token)
    outputs = outputs_of(estimate).items()
    return of_members({k: _mark(ALL_OF, v, (n_members, *v.shape)) for k, v in outputs})


def outputs_of(estimate: Estimate) -> dict[str, Tensor]:
    """Outputs of a member that a mixture combines, by name."""
    values = {kind: getattr(estimate, kind) for kind in COMBINED}
    return {kind: value for kind, value in values.items() if value is not None}


def of_members(stacked: Mapping[str, Tensor]) -> list[Estimate]:
    """Estimates of the members from outputs with a leading axis of members."""
    return [
        Estimate(**dict(zip(stacked, values, strict=True)))
        for values in zip(*stacked.values(), strict=True)
    ]


def _mark(name: str, value: Tensor, shape: Sequence[int | torch.SymInt]) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", [value], dtype=value.dtype, shape=shape, version=1
    )


def alike(modules: Sequence[nn.Module]) -> bool:
    """Whether modules differ only by the values of their parameters and buffers.

    Layers, sizes and settings are compared. Settings that are no plain values are equal only if
    they are the same object.
    """
    first, *others = [[_described(m) for m in module.modules()] for module in modules]
    has_tensors = any(sizes for _, _, sizes, _ in first)
    return has_tensors and all(other == first for other in others)


def _described(module: nn.Module) -> tuple[type, list[str], dict[str, object], dict[str, object]]:
    tensors = module._parameters | module._buffers
    sizes: dict[str, object] = {
        name: t if t is None else (t.shape, t.dtype) for name, t in tensors.items()
    }
    common = vars(nn.Module())  # attributes of every module: tensors, layers, hooks
    settings = {k: _comparable(v) for k, v in vars(module).items() if k not in common}
    return type(module), list(module._modules), sizes, settings


def _comparable(value: object) -> object:
    """Settings as values for comparison with another module."""
    if _plain(value):
        return value
    # Annotations of a class, in an object per instance.
    noted = type(value).__module__.startswith("torch_geometric.inspector")
    return type(value) if noted else id(value)


def _plain(value: object) -> bool:
    """Whether equal values are the same."""
    if isinstance(value, tuple | list | set):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    return isinstance(value, bool | int | float | str | type(None)) or is_dataclass(value)
