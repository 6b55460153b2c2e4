"""Structured pruning: a narrower network that starts from the strongest units of a wider one."""

import copy
from itertools import takewhile
from typing import Any

import torch
import torch_pruning
from torch import nn

from deepesi.core.contracts import InverseModel, as_tensors
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import prepare

#: Layers whose outputs are units that can be left out.
LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)


def start_from_strongest(narrow: InverseModel, wide: InverseModel, head: HeadModel) -> None:
    """Give a network those units of a wider one whose weights are the largest.

    Units that depend on each other (of layers whose outputs are added, say) are kept or left out
    together, by the norm of all weights that lead to and from them.

    Args:
        narrow: Takes the weights. Its sizes say how many units of every layer are kept.
        wide: Of the same class and otherwise of the same settings. It stays as it is.
        head: Any head, to follow the units through the network with.

    Raises:
        ValueError: They differ in more than widths, a layer of `narrow` is the wider one or none
            is narrower; or the widths that differ lie between the physics of a network on graphs,
            where units cannot be followed.

    Source: Fang et al. 2023, DepGraph, arXiv:2301.12900 (torch-pruning).

    """
    _check(narrow, wide)
    pruned, given = copy.deepcopy(wide).train(False), dict(narrow.named_modules())
    changed = [
        name
        for name, layer in pruned.named_modules()
        if isinstance(layer, LAYERS) and layer.weight.shape != given[name].weight.shape
    ]
    part = pruned.get_submodule(_what_holds(changed))
    if part is pruned and not wide.bound_to_space:
        raise ValueError(
            f"pruning: the widths of {type(wide).__name__} that differ are of several networks "
            "with physics between them, and units cannot be followed through that. Train the "
            "narrower network from the start; or teach it (experiment=distill)."
        )
    names = {layer: name for name, layer in pruned.named_modules()}
    layers = [layer for layer in part.modules() if isinstance(layer, LAYERS)]
    widths = {layer: (_width(given[names[layer]]), _width(layer)) for layer in layers}
    for module in part.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 1  # what is kept is grouped anew, so any channel may go
    torch_pruning.pruner.BasePruner(
        part,
        _arguments(part, pruned, head),
        torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.0,
        # Half a unit more than is kept, as the pruner rounds down.
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
    """Refuse networks of which one is not a narrower one of the other's kind."""
    ours, theirs = ({k: v.shape for k, v in m.state_dict().items()} for m in (narrow, wide))
    if type(narrow) is not type(wide) or ours.keys() != theirs.keys():
        raise ValueError(
            f"pruning: a {type(narrow).__name__} with {len(ours)} arrays of weights cannot start "
            f"from a {type(wide).__name__} with {len(theirs)}. Choose the same model, with all "
            "settings but its widths as in the run that it starts from."
        )
    wider = [
        f"{name} {tuple(shape)} from {tuple(theirs[name])}"
        for name, shape in ours.items()
        if any(a > b for a, b in zip(shape, theirs[name], strict=True))
    ]
    if wider or ours == theirs:
        raise ValueError(
            "pruning: "
            + (f"these weights would have to grow: {wider}." if wider else "no width differs.")
            + " Make the network narrower than the one it starts from (model.hidden=256, say)."
        )


def _what_holds(names: list[str]) -> str:
    """The innermost module that holds all of some layers."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _width(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _arguments(part: nn.Module, network: InverseModel, head: HeadModel) -> tuple[Any, ...]:
    """What a part of a network is given when the network sees a recording."""
    seen: list[tuple[Any, ...]] = []
    hook = part.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    data = torch.randn(2, head.n_channels, 3) * head.noise_level
    with torch.no_grad():
        network(data, as_tensors(prepare(network.head_inputs, head)))
    hook.remove()
    return seen[0]


def _tensors(output: Any) -> list[torch.Tensor]:
    """All tensors of what a module returns."""
    parts = output if isinstance(output, tuple) else (output,)
    return [part for part in parts if part is not None]
