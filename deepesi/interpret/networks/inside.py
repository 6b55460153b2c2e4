"""Steps inside networks: evidence for every source, step by step, and attention to sensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from deepesi.core.arrays import as_array
from deepesi.core.contracts import InverseModel
from deepesi.models.annealed_patches import AnnealedPatches
from deepesi.models.gnn import SensorGNN
from deepesi.models.layers.evidence import Evidence
from deepesi.models.layers.patch_variances import PatchVariances
from deepesi.models.loose_matched_filter import LooseMatchedFilter
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.models.transformer import SourceTransformer
from deepesi.models.unrolled_champagne import UnrolledChampagne
from deepesi.models.unrolled_ista import UnrolledISTA

Array = NDArray[np.float64]


#: Networks that estimate one component after the other.
BY_COMPONENT = SensorGNN | SourceTransformer | LooseMatchedFilter | UnrolledMatchedFilter
#: Networks with steps that `evidence_maps` shows.
WITH_STEPS = BY_COMPONENT | UnrolledISTA | UnrolledChampagne | AnnealedPatches


def has_steps(model: InverseModel) -> bool:
    """Whether `evidence_maps` shows the steps of a network."""
    return isinstance(model, WITH_STEPS)


def has_attention(model: InverseModel) -> bool:
    """Whether `attention_maps` shows the attention of a network."""
    return isinstance(model, SensorGNN | SourceTransformer)


class EvidenceMap(NamedTuple):
    """One step of a model.

    Attributes:
        title: The step in words.
        values: Share of every source ``(S,)``; the sum over sources is 1, or 0 if the step
            has no evidence for any source.

    """

    title: str
    values: Array


def evidence_maps(
    model: InverseModel, data: Float[Tensor, "1 C T"], inputs: dict[str, Tensor]
) -> list[EvidenceMap]:
    """Evidence for every source after each step, in the order of computation.

    Matched filters: prior variance of the component that is estimated, summed over patch radii.
    GNN, transformer: probability of the component. Unrolled ISTA: energy of the coefficients.
    Unrolled Champagne: prior variances of the updates of all patches, summed over radii. Annealed
    patches: share of the patches in the chains.

    Args:
        model: The network.
        data: One recording, V.
        inputs: Prepared head inputs.

    Raises:
        ValueError: The model has no such steps.

    """
    model.eval()
    if isinstance(model, UnrolledISTA):
        with torch.no_grad():
            codes = [
                code.square().sum((0, 2, 4))[:, 0] for code, _ in model.iterations(data, inputs)
            ]
        return [_map(f"step {number + 1}", code) for number, code in enumerate(codes)]
    if isinstance(model, UnrolledChampagne):
        return _variances(model, data, inputs)
    if isinstance(model, AnnealedPatches):
        return _patches_of_chains(model, data, inputs)
    if not isinstance(model, BY_COMPONENT):
        raise ValueError(
            f"evidence_maps: {type(model).__name__} has no steps to show. Expected an "
            "unrolled model, annealed patches, a GNN or a transformer; attributions explain any "
            "network."
        )
    in_rounds = isinstance(model, SensorGNN | SourceTransformer)
    name, n = "round" if in_rounds else "sweep", model.n_components
    with _outputs(model, PatchVariances | Evidence) as calls, torch.no_grad():
        model(data, inputs)
    return [
        _map(f"{name} {number // n + 1}, component {number % n + 1}", output[0].sum(0)[:, 0])
        for number, (_, _, output) in enumerate(calls)
    ]


def _variances(
    model: UnrolledChampagne, data: Float[Tensor, "1 C T"], inputs: dict[str, Tensor]
) -> list[EvidenceMap]:
    with _calls(model, "_correction") as calls, torch.no_grad():
        model(data, inputs)
    return [
        _map(
            f"update {number}" if number else "start",
            gamma[0].unflatten(0, (model.n_radii, -1)).sum(0),
        )
        for number, ((_, gamma, *_), _) in enumerate(calls)
    ]


def _patches_of_chains(
    model: AnnealedPatches, data: Float[Tensor, "1 C T"], inputs: dict[str, Tensor]
) -> list[EvidenceMap]:
    n_sources = len(inputs[model.positions.key])
    with _calls(model, "_sweep") as calls, torch.no_grad():
        model(data, inputs)
    sweeps = [chains.slots.centres.flatten() for _, (chains, *_) in calls]
    return [
        _map(f"sweep {number + 1}", torch.bincount(c[c >= 0], minlength=n_sources).double())
        for number, c in enumerate(sweeps)
    ]


def _map(title: str, values: Tensor) -> EvidenceMap:
    array = as_array(values)
    total = array.sum()
    return EvidenceMap(title, array / total if total > 0 else array)


@contextmanager
def _outputs(model: nn.Module, kind: Any) -> Iterator[list[tuple[nn.Module, Any, Any]]]:
    """Every call of the modules of a kind: the module, its arguments and its output."""
    calls: list[tuple[nn.Module, Any, Any]] = []
    hooks = [
        module.register_forward_hook(lambda *call: calls.append(call))
        for module in model.modules()
        if isinstance(module, kind)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _calls(model: nn.Module, method: str) -> Iterator[list[tuple[tuple[Any, ...], Any]]]:
    """Every call of a method of a model: its arguments and its output."""
    calls: list[tuple[tuple[Any, ...], Any]] = []
    original = getattr(model, method)

    def recorded(*arguments: Any) -> Any:
        output = original(*arguments)
        calls.append((arguments, output))
        return output

    object.__setattr__(model, method, recorded)
    try:
        yield calls
    finally:
        object.__delattr__(model, method)


class Attention(NamedTuple):
    """Attention of the GNN or the transformer.

    Attributes:
        sent: Mean attention that each sensor gets from its neighbours on the scalp ``(C,)``, 1 if
            all senders of a receiver count alike; mean over heads and rounds. None for the
            transformer, whose sensors all attend to each other.
        read: Attention of every source to every sensor ``(S, C)``, mean over heads. That of the GNN
            does not depend on the recording.

    """

    sent: Array | None
    read: Array


def attention_maps(
    model: InverseModel, data: Float[Tensor, "1 C T"], inputs: dict[str, Tensor]
) -> Attention:
    """Sensors that a GNN or a transformer attends to; arguments as in `evidence_maps`.

    Attention weights show which sensors are read, not how they change the estimate. They are not
    attributions.

    Raises:
        ValueError: The model has no attention.

    """
    if not isinstance(model, SensorGNN | SourceTransformer):
        raise ValueError(
            f"attention_maps: {type(model).__name__} has no attention, expected a SensorGNN or a "
            "SourceTransformer. Use an attribution, which explains any network."
        )
    model.eval()
    if isinstance(model, SourceTransformer):
        with torch.no_grad():
            _, attention = model(data, inputs, return_attention=True)
        return Attention(None, as_array(attention.sensors[0]))
    with _outputs(model, type(model.blocks[0]) | type(model.cross)) as calls, torch.no_grad():
        model(data, inputs)
        sent = [_sent(m, *arguments) for m, arguments, _ in calls if m is not model.cross]
        heads = [arguments[0] for m, arguments, _ in calls if m is model.cross]
        read = model.cross.weights(heads[0]).mean(0)
    return Attention(as_array(torch.stack(sent).mean(0)), as_array(read))


def _sent(
    module: Any, states: Tensor, signals: Tensor, edges: Tensor, features: Tensor
) -> Float[Tensor, " C"]:
    """Mean weight of each sender, times the number of senders of its receivers."""
    weights = module.weights(states, edges, features)[:, 0].mean(1)
    sender, receiver = edges.unbind(1)
    count = torch.bincount(receiver, minlength=len(states))[receiver]
    total = torch.zeros(len(states)).index_add(0, sender, weights * count)
    return total / torch.bincount(sender, minlength=len(states)).clamp_min(1)
