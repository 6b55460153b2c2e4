"""Exports an inverse model to ONNX, with its contract in the metadata, and checks the file."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from deepesi import __version__
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel, PosteriorModel, as_tensors
from deepesi.export.branches import by_cortex, by_length
from deepesi.export.loops import draw_in_parts, repeat_steps
from deepesi.export.optimize import optimize
from deepesi.export.quantize import Precision, quantize
from deepesi.models.by_cortex import ByCortex
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput, OwnNormals, prepare
from deepesi.physics.head_inputs.declaration import Axes, noise_size, sensor_kinds
from deepesi.runtime.contract import (
    DATA,
    DIGEST_KEY,
    METADATA_KEY,
    NOISE,
    OUTPUT_NAMES,
    Calibration,
    Contract,
    Output,
    TrainingRanges,
    as_tuples,
)
from deepesi.runtime.protobuf import digest
from deepesi.runtime.self_test import N_TIMES, SelfTest, small_heads, small_recording
from deepesi.runtime.session import ORT_ERRORS, as_feeds, open_model
from deepesi.utils.files import atomic

OPSET = 20
#: Largest difference between file and model, relative to the largest estimate. Smaller weights cost
#: accuracy, which `deepesi evaluate` measures; a larger difference is an error.
MAX_DIFFERENCE: dict[str, float] = {
    "float32": 1e-4,
    "float16": 0.05,
    "int8": 0.5,
}
#: Axes of head inputs that are fixed if a model is bound to one source space.
SOURCE_AXES = ("sources", "dipoles", "edges", "neighbours", "patch_pairs", "patch_members")


class _Graph(nn.Module):
    """The model with its inputs as positional arguments, as the exporter needs them."""

    def __init__(self, model: InverseModel, kinds: Sequence[str]) -> None:
        super().__init__()
        self.model, self.kinds = model, kinds
        self.keys = list(dict.fromkeys(d.key for d in model.head_inputs))

    def forward(self, data: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        draws = isinstance(self.model, PosteriorModel)
        inputs = dict(zip(self.keys, others[draws:], strict=True))
        if isinstance(self.model, PosteriorModel):
            estimate = self.model.with_samples(data, inputs, others[0])
        else:
            estimate = self.model(data, inputs)
        return tuple(getattr(estimate, kind) for kind in self.kinds)


def export_onnx(
    model: InverseModel,
    head: HeadModel,
    path: Path,
    identity: Mapping[str, Any] | None = None,
    anatomy: str | None = None,
    calibration: Calibration | None = None,
    precision: Precision = "float32",
) -> Contract:
    """Write a model to an ONNX file, whole or not at all, and return its contract.

    Batch size, number of channels and duration stay free; so does the number of dipoles if the
    model is not bound to a source space.

    Args:
        model: Any inverse model.
        head: A head to trace with; for a bound model, with its source space.
        path: ``.onnx`` file to write.
        identity: Metadata of the weights, as in `deepesi.training.weights.load_network`.
        anatomy: Fingerprint of the template it was trained on.
        calibration: Calibration from ``deepesi calibrate``.
        precision: Precision of the weights, as in `deepesi.export.quantize.Precision`.

    Raises:
        ValueError: The model is a solver without an exported form; it gives other outputs on the
            other kind of cortex; an unknown precision; ONNX Runtime cannot compute the graph, or
            gives NaN for a small example.

    """
    if not model.exportable:
        raise ValueError(
            f"export_onnx: {type(model).__name__} has no form in ONNX: it iterates on every "
            "recording. Export a network, or a linear inverse (MinimumNorm)."
        )
    model.eval()
    declarations = tuple(dict.fromkeys(model.head_inputs))
    inputs = as_tensors(prepare(declarations, head))
    # Sizes of the example must not look like constants to the exporter: none is 0, 1 or equal, nor
    # is the number of stretches that a network cuts the window into.
    n_times = max(head.n_channels, model.window_needs.shortest) + 21
    data = torch.randn(2, head.n_channels, n_times) * head.noise_level
    with torch.no_grad():
        estimate = model(data, inputs)
    kinds = _kinds(estimate)
    _check_other_cortex(model, data, inputs, kinds)
    free, noise, noise_axes, n_draws = torch.export.Dim.DYNAMIC, {}, None, None
    if isinstance(model, PosteriorModel):
        kinds, noise_axes = [*kinds, "samples"], model.noise_axes
        n_draws = None if estimate.samples is None else model.n_draws
        noise = {NOISE: torch.randn(4, 2, model.noise_size(data, inputs))}

    def dynamic(axis: str) -> Any:
        bound = model.bound_to_space and axis in SOURCE_AXES
        return torch.export.Dim.STATIC if bound or axis == "orientations" else free

    shapes = tuple(
        {i: dynamic(a) for i, a in enumerate(d.axes) if isinstance(a, str)} for d in declarations
    )
    graph = _Graph(model, kinds)
    example = (data, *noise.values(), *inputs.values())
    names = ([DATA, *noise, *inputs], [OUTPUT_NAMES[kind] for kind in kinds])
    free_axes = (dict.fromkeys(range(3), free), (*_noise_shape(noise_axes), *shapes))

    def traced() -> onnx.ModelProto:
        return _traced(graph, example, names, free_axes, precision)

    proto = _of_every_cortex(model, lambda: _of_every_length(model, traced))
    identity, space = identity or {}, head.space if model.bound_to_space else None
    trained = identity.get("trained")
    contract = Contract(
        head_inputs=declarations,
        space_name=None if space is None else space.name,
        space_fingerprint=None if space is None else space.fingerprint,
        vertices=None if space is None else tuple(tuple(v.tolist()) for v in space.vertices),
        n_orient=head.space.n_orient if space or _has_orientations(declarations) else None,
        anatomy=anatomy if space else None,
        montages=tuple(identity.get("montages", ())),
        outputs=tuple(map(Output.of_kind, kinds)),
        noise=noise_axes,
        model=dict(identity.get("model", {"_target_": type(model).__qualname__})),
        trained=trained and TrainingRanges(**as_tuples(trained)),
        config_sha256=identity.get("config_sha256"),
        calibration=calibration,
        versions={
            "deepesi": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        self_test=example_of(
            proto, declarations, model.bound_to_space, head, noise_axes, model.window_needs.shortest
        ),
        precision=precision,
        n_draws=n_draws,
        sensor_kinds=_sensor_kinds(identity, declarations),
        window_needs=model.window_needs,
    )
    write_contract(proto, contract)
    onnx.checker.check_model(proto, full_check=True)
    with atomic(path) as partial:
        partial.write_bytes(proto.SerializeToString())
    return contract


def _kinds(estimate: Estimate) -> list[str]:
    """Kinds of output of a model, without samples."""
    kinds = ["mean"] + ["std"] * (estimate.std is not None)
    return kinds + ["source_counts"] * (estimate.source_counts is not None)


def _check_other_cortex(
    model: InverseModel, data: Tensor, inputs: dict[str, Tensor], kinds: Sequence[str]
) -> None:
    """Refuse a model that gives other kinds of output on the other kind of cortex.

    Raises:
        ValueError: It does.

    """
    key = OwnNormals().key
    if key not in inputs:
        return
    with torch.no_grad():
        other = _kinds(model(data, inputs | {key: 1 - inputs[key]}))
    if other != kinds:
        raise ValueError(
            f"export_onnx: {type(model).__name__} gives {' and '.join(kinds)} on one kind of "
            f"cortex and {' and '.join(other)} on the other, but a file has the same outputs for "
            "every head. Join two networks that both give a standard deviation "
            "(model.heteroscedastic=true), or none."
        )


def _traced(
    graph: _Graph,
    example: tuple[Tensor, ...],
    names: tuple[Sequence[str], Sequence[str]],
    free_axes: tuple[Any, ...],
    precision: Precision,
) -> onnx.ModelProto:
    """One graph, in the form that ONNX Runtime computes fast."""
    for exporter in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(exporter).setLevel(logging.ERROR)
    program = torch.onnx.export(
        graph.eval(),
        example,
        input_names=names[0],
        output_names=names[1],
        dynamic_shapes=free_axes,
        dynamo=True,
        opset_version=OPSET,
        optimize=False,  # `optimize` does this
        verbose=False,
    )
    assert program is not None  # the older exporter returns None
    optimize(program.model)
    proto = quantize(program.model_proto, precision)
    repeat_steps(proto)  # first: steps are within draws
    draw_in_parts(proto)
    return proto


def _of_every_length(model: InverseModel, traced: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """The graphs of a model for short and for long windows as one, if it has two."""
    if not model.short_form:
        return traced()
    try:
        model.traces_short = True
        short = traced()
    finally:
        model.traces_short = False
    return by_length(short, traced())


def _of_every_cortex(model: InverseModel, traced: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """The graphs of a model for both kinds of cortex as one, if it contains two networks."""
    chosen = [part for part in model.modules() if isinstance(part, ByCortex)]
    if not chosen:
        return traced()
    try:
        for part in chosen:
            part.traced = "own"
        own = traced()
    finally:
        for part in chosen:
            part.traced = "template"
    return by_cortex(own, traced(), chosen[0].cortex.key)


def _sensor_kinds(
    identity: Mapping[str, Any], declarations: Sequence[HeadInput]
) -> tuple[str, ...]:
    """Kinds of sensors of the training, or else all that the head inputs take."""
    possible = sensor_kinds(declarations)
    trained = identity.get("sensor_kinds", ("eeg",) if identity.get("trained") else possible)
    return tuple(kind for kind in possible if kind in trained)


def _noise_shape(axes: Axes | None) -> list[dict[int, Any]]:
    """Free axes of the noise; the last one is free if it contains a named axis."""
    if axes is None:
        return []
    free, fixed = torch.export.Dim.DYNAMIC, torch.export.Dim.STATIC
    return [{0: free, 1: free, 2: free if any(isinstance(axis, str) for axis in axes) else fixed}]


def write_contract(proto: onnx.ModelProto, contract: Contract) -> None:
    """Write a contract and the digest of graph and contract into the metadata of a model."""
    proto.ClearField("metadata_props")
    text = contract.to_json()
    found = digest(proto.SerializeToString(), text)
    onnx.helper.set_model_props(proto, {METADATA_KEY: text, DIGEST_KEY: found})


def example_of(
    proto: onnx.ModelProto,
    declarations: Sequence[HeadInput],
    bound: bool,
    head: HeadModel,
    noise_axes: Axes | None = None,
    shortest: int = 1,
) -> SelfTest:
    """The smallest example that a graph can compute, on a part of a head.

    Args:
        proto: The graph.
        declarations: Head inputs of the graph.
        bound: Whether it is bound to the source space of the head.
        head: Head for `deepesi.runtime.self_test.small_heads`.
        noise_axes: Axes of the noise of a posterior model; None for any other.
        shortest: Fewest samples of a window.

    Raises:
        ValueError: There is no such example, or it gives NaN.

    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal errors are raised
    content = proto.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    refusals = []
    for small in small_heads(head, bound):
        data = small_recording(small, max(N_TIMES, shortest))
        feeds = {DATA: data, **as_feeds(dict(prepare(declarations, small)))}
        if noise_axes is not None:
            shapes = {key: values.shape for key, values in feeds.items()}
            size = noise_size(noise_axes, declarations, shapes[DATA], shapes)
            draws = np.random.default_rng(0).standard_normal((2, 1, size), dtype=np.float32)
            feeds[NOISE] = draws
        try:
            return SelfTest.of_session(session, feeds)
        except ORT_ERRORS as error:  # it may need more sources
            refusals.append(error)
    raise ValueError(
        f"export_onnx: ONNX Runtime cannot compute the graph ({refusals[-1]}). The model uses an "
        "operation that is different in ONNX; it was not exported."
    ) from refusals[-1]


def _has_orientations(declarations: Sequence[HeadInput]) -> bool:
    """Whether the file keeps the number of orientations it was traced with."""
    return any("orientations" in declaration.axes for declaration in declarations)


class Parity(NamedTuple):
    """Comparison of an exported file with its model.

    Attributes:
        max_difference: Largest difference over the largest estimate, of the worst kind of output.
        latency_ms: Median time of one frame on one core, ms.
        n_channels: Number of channels of that frame.
        opset: ONNX operator set of the file.

    """

    max_difference: float
    latency_ms: float
    n_channels: int
    opset: int = OPSET


def check_parity(model: InverseModel, path: Path, batch: Batch, n_timed: int = 200) -> Parity:
    """Compare a file with its model on a batch, and time one frame on one core.

    Raises:
        ValueError: An output differs by more than `MAX_DIFFERENCE` of its largest value, or is not
            finite.

    """
    opened = open_model(path, n_threads=1)
    feeds = as_feeds(prepare(opened.contract.head_inputs, batch.head))
    model.eval()
    inputs, noise = as_tensors(prepare(model.head_inputs, batch.head)), None
    with torch.no_grad():
        estimate = model(batch.data, inputs)
        if isinstance(model, PosteriorModel):
            noise = torch.randn(3, len(batch.data), model.noise_size(batch.data, inputs))
            estimate = estimate._replace(samples=model.sample(batch.data, inputs, noise))
    found = opened.run(batch.data.numpy(), feeds, None if noise is None else noise.numpy())
    expected = {kind: getattr(estimate, kind).numpy() for kind in found}
    differences = {kind: np.abs(found[kind] - expected[kind]).max() for kind in found}
    largest = {kind: np.abs(values).max() for kind, values in expected.items()}
    own = np.max([differences[kind] / largest[kind] for kind in found])
    most = MAX_DIFFERENCE[opened.contract.precision]
    if not own <= most:
        raise ValueError(
            f"check_parity: {path.name} differs from {type(model).__name__} in torch by "
            f"{own:.1e} of the largest value of an output, more than {most:g}. The model uses "
            "an operation that is different in ONNX, or needs weights with more bits; it was not "
            "exported."
        )
    frame = batch.data[:1, :, : model.window_needs.shortest].numpy()
    times = []
    for _ in range(n_timed):
        start = time.perf_counter()
        opened.run(frame, feeds)
        times.append(time.perf_counter() - start)
    moments = found.keys() - {"source_counts"}
    difference = float(max(differences[k] for k in moments) / max(largest[k] for k in moments))
    return Parity(difference, 1e3 * float(np.median(times)), frame.shape[1])
