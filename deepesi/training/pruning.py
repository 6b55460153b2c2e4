"""Structured pruning: a narrower network starts from the strongest units of a wider one."""

import copy
from itertools import takewhile
from typing import Any

import torch
import torch_pruning
from torch import nn

from deepesi.core.contracts import InverseModel, as_tensors
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import prepare

#: Layers with output units that can be removed.
LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)


def start_from_strongest(narrow: InverseModel, wide: InverseModel, head: HeadModel) -> None:
    """Copy the units with the largest weights from a wider network.

    Units that depend on each other (for example because the outputs of layers are added) are kept
    or removed together, by the norm of all their input and output weights.

    Args:
        narrow: Network that receives the weights. Its widths are the numbers of units to keep.
        wide: Network of the same class, with the same settings but larger widths. Not changed.
        head: Any head, used to trace the network.

    Raises:
        ValueError: The networks differ in more than widths, a layer of `narrow` is wider, or no
            layer is narrower; or the network has several parts with physics between them, so that
            units cannot be traced.

    Source: Fang et al. 2023, DepGraph, arXiv:2301.12900 (torch-pruning).

    """
    _check(narrow, wide)
    pruned, given = copy.deepcopy(wide).train(False), dict(narrow.named_modules())
    changed = [
        name
        for name, layer in pruned.named_modules()
        if isinstance(layer, LAYERS) and layer.weight.shape != given[name].weight.shape
    ]
    part = pruned.get_submodule(_common_parent(changed))
    if part is pruned and not wide.bound_to_space:
        raise ValueError(
            f"pruning: the widths of {type(wide).__name__} that differ belong to several networks "
            "with physics between them, through which units cannot be traced. Train the "
            "narrower network from scratch, or by distillation (experiment=distill)."
        )
    names = {layer: name for name, layer in pruned.named_modules()}
    layers = [layer for layer in part.modules() if isinstance(layer, LAYERS)]
    widths = {layer: (_width(given[names[layer]]), _width(layer)) for layer in layers}
    for module in part.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 1  # groups are formed anew, so any channel can be removed
    torch_pruning.pruner.BasePruner(
        part,
        _arguments(part, pruned, head),
        torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.0,
        # Half a unit more, because the pruner rounds down.
        pruning_ratio_dict={
            layer: 1 - (kept + 0.5) / width
            for layer, (kept, width) in widths.items()
            if kept < width
        },
        ignored_layers=[layer for layer, (kept, width) in widths.items() if kept == width],
        forward_fn=lambda module, arguments: module(*arguments),
        output_transform=_tensors,
    ).step()
    narrow.load_state_dict(pruned.state_dict())


def _check(narrow: InverseModel, wide: InverseModel) -> None:
    """Refuse two networks if the first is not a narrower version of the second."""
    narrow_shapes, wide_shapes = (
        {k: v.shape for k, v in m.state_dict().items()} for m in (narrow, wide)
    )
    if type(narrow) is not type(wide) or narrow_shapes.keys() != wide_shapes.keys():
        raise ValueError(
            f"pruning: a {type(narrow).__name__} with {len(narrow_shapes)} arrays of weights "
            f"cannot start from a {type(wide).__name__} with {len(wide_shapes)}. Use the same "
            "model, with all settings but the widths as in the run that it starts from."
        )
    wider = [
        f"{name} {tuple(shape)} from {tuple(wide_shapes[name])}"
        for name, shape in narrow_shapes.items()
        if any(a > b for a, b in zip(shape, wide_shapes[name], strict=True))
    ]
    if wider or narrow_shapes == wide_shapes:
        raise ValueError(
            "pruning: "
            + (f"these weights would be larger: {wider}." if wider else "no width differs.")
            + " Make the network narrower than its start, for example with model.hidden=256."
        )


def _common_parent(names: list[str]) -> str:
    """Name of the innermost module that contains all of these layers."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _width(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _arguments(part: nn.Module, network: InverseModel, head: HeadModel) -> tuple[Any, ...]:
    """Arguments that a part of a network receives for a random recording."""
    received: list[tuple[Any, ...]] = []
    hook = part.register_forward_pre_hook(lambda _, arguments: received.append(arguments))
    data = torch.randn(2, head.n_channels, 3) * head.noise_level
    with torch.no_grad():
        network(data, as_tensors(prepare(network.head_inputs, head)))
    hook.remove()
    return received[0]


def _tensors(output: Any) -> list[torch.Tensor]:
    """All tensors in the output of a module."""
    parts = output if isinstance(output, tuple) else (output,)
    return [part for part in parts if part is not None]
