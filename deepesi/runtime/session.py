"""Opens an ONNX file of deepesi: session and contract, or an error with the reason."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from deepesi.physics.head import SourceSpace
from deepesi.physics.head_inputs.declaration import noise_size
from deepesi.runtime.contract import (
    DATA,
    DIGEST_KEY,
    METADATA_KEY,
    NOISE,
    OUTPUT_NAMES,
    Contract,
)
from deepesi.runtime.packaged import PACKAGED
from deepesi.runtime.protobuf import digest, metadata
from deepesi.runtime.self_test import MAX_DIFFERENCE
from deepesi.utils.nearest import near_names

Array = NDArray[np.float32]

#: Errors of ONNX Runtime for invalid files and inputs.
ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
#: Text of its error for lack of memory.
OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
#: Execution providers in order of preference.
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
#: Target memory of the examples computed at once, bytes; a single one may need more.
AT_ONCE = 2**29


class OpenModel(NamedTuple):
    """A session with its contract. Several threads may run it at once."""

    session: ort.InferenceSession
    contract: Contract

    @property
    def sha256(self) -> str:
        """Digest of graph and contract in the file, checked when it is opened."""
        return str(self.session.get_modelmeta().custom_metadata_map[DIGEST_KEY])

    @property
    def longest(self) -> int | None:
        """The longest window in the training of the network, samples; None: any."""
        trained = self.contract.trained
        return None if trained is None else trained.n_times[1]

    def run(
        self,
        data: Array,
        inputs: dict[str, NDArray[np.generic]],
        noise: Array | None = None,
        kinds: Collection[str] | None = None,
    ) -> dict[str, Array]:
        """Estimates of recordings, by kind of output.

        Examples are computed a few at a time, as `examples_at_once` sets.

        Args:
            data: ``(B, C, T)``, units of heads (EEG: V), in the reference of the head.
            inputs: Prepared head inputs.
            noise: Standard normal ``(N, B, Z)`` for samples, ``Z`` from `noise_size`; None: no
                samples.
            kinds: Kinds of output to compute, such as ``("samples",)``; None: all.

        Returns:
            ``"mean"`` and, if the file has it, ``"std"`` ``(B, D, T)``, A m; with noise also
            ``"samples"`` ``(N, B, D, T)``; if the file counts sources, ``"source_counts"``
            ``(B, K)``, probabilities of 1, 2, ... sources.

        Raises:
            ValueError: The shapes of the inputs do not fit the model; windows shorter than a
                filter in it; noise for a file without samples.
            MemoryError: A single example needs more than the available memory.

        """
        self.contract.window_needs.check_length(data.shape[2])
        if noise is not None:
            self._check_noise(data, inputs, noise)
            most = max(1, AT_ONCE // max(1, sum(4 * values.size for values in inputs.values())))
            # A few draws at a time, so that memory does not grow with them; a graph with fixed
            # draws does so itself.
            if self.contract.n_draws is None and len(noise) > most:
                first = self.run(data, inputs, noise[:most], kinds)
                parts = [first] + [
                    self.run(data, inputs, noise[i : i + most], ("samples",))
                    for i in range(most, len(noise), most)
                ]
                samples = np.concatenate([part["samples"] for part in parts])
                return parts[0] | {"samples": samples}
        n = examples_at_once(data.shape[2], inputs, 0 if noise is None else len(noise))
        parts = [
            self._run(
                data[i : i + n], inputs, None if noise is None else noise[:, i : i + n], kinds
            )
            for i in range(0, max(1, len(data)), n)
        ]
        return {
            kind: np.concatenate([part[kind] for part in parts], axis=int(kind == "samples"))
            for kind in parts[0]
        }

    def noise_size(self, data: Array, inputs: dict[str, NDArray[np.generic]]) -> int:
        """Number ``Z`` of noise values of one draw for recordings ``(B, C, T)``; 0: none."""
        if self.contract.noise is None:
            return 0
        shapes = {key: values.shape for key, values in inputs.items()}
        return noise_size(self.contract.noise, self.contract.head_inputs, data.shape, shapes)

    def _check_noise(
        self, data: Array, inputs: dict[str, NDArray[np.generic]], noise: Array
    ) -> None:
        if self.contract.noise is None:
            raise ValueError(
                "OpenModel: noise was given, and the file has no input for it: it draws no samples "
                f"(its outputs: {', '.join(self.contract.kinds)}). Leave the noise out, or export "
                "a posterior model."
            )
        size = self.noise_size(data, inputs)
        if noise.ndim != 3 or noise.shape[1:] != (len(data), size):
            raise ValueError(
                f"OpenModel: noise of shape {noise.shape}, expected (draws, {len(data)}, {size}): "
                "draws, recordings, and the size that noise_size gives for these recordings."
            )

    def _run(
        self,
        data: Array,
        inputs: dict[str, NDArray[np.generic]],
        noise: Array | None,
        kinds: Collection[str] | None,
    ) -> dict[str, Array]:
        asked = {o.name: o.kind for o in self.contract.outputs if o.kind != "samples"}
        feeds = {DATA: data.astype(np.float32), **inputs}
        if noise is not None:
            asked[OUTPUT_NAMES["samples"]] = "samples"
            feeds[NOISE] = noise.astype(np.float32)
        elif self.contract.noise is not None:  # the graph needs at least one draw
            feeds[NOISE] = np.zeros((1, len(data), self.noise_size(data, inputs)), np.float32)
        if kinds is not None:
            asked = {name: kind for name, kind in asked.items() if kind in kinds}
        options = ort.RunOptions()
        # Only what the outputs asked for need is computed.
        options.only_execute_path_to_fetches = len(asked) < len(self.contract.outputs)
        try:
            found = self.session.run(list(asked), feeds, options)
            return dict(zip(asked.values(), found, strict=True))
        except ORT_ERRORS as error:
            if any(sign in str(error) for sign in OUT_OF_MEMORY):
                raise MemoryError(
                    f"{len(data)} window(s) of {data.shape[2]} samples, {data.shape[1]} channels "
                    "and "
                    f"{sum(values.nbytes for values in inputs.values()) / 1e6:.2g} MB of head "
                    f"inputs: {_first_line(error)}"
                ) from error
            raise ValueError(
                f"the model cannot compute with data of shape {data.shape} and these head inputs "
                f"({_first_line(error)}). Prepare it again for this set-up."
            ) from error


def examples_at_once(
    n_times: int, inputs: Mapping[str, NDArray[np.generic]], n_draws: int = 0
) -> int:
    """Number of examples computed at once, so that memory does not grow with the batch.

    The assumed memory of a graph per example and sample is that of the head inputs in single
    precision.

    Args:
        n_times: Number of samples of an example in time.
        inputs: Prepared head inputs.
        n_draws: Posterior draws per example; each needs at most the memory of the estimate.

    """
    size = 4 * max(1, n_times) * sum(values.size for values in inputs.values()) * (1 + n_draws)
    return max(1, AT_ONCE // max(1, size))


def open_model(path: Path, n_threads: int = 0) -> OpenModel:
    """Open an exported file.

    Args:
        path: The ``.onnx`` file.
        n_threads: Threads of one inference, 0 for all cores.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not an ONNX file, truncated, altered, with data outside its folder, not
            written by deepesi, or computed differently on this machine.

    """
    if not path.is_file():
        near = near_names(path.name.lower(), PACKAGED)
        hint = f" Did you mean {near[0]!r}?" if near else f" Packaged are {', '.join(PACKAGED)}."
        raise FileNotFoundError(f"open_model: there is no file {path}.{hint}")
    contract = _read_contract(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 4  # fatal errors are raised
    # Planning which values may share memory takes most of the time of opening a large graph, and
    # plans for every size of input need memory; a session frees finished values anyway.
    options.enable_mem_reuse = options.enable_mem_pattern = False
    available = ort.get_available_providers()
    providers = [provider for provider in PROVIDERS if provider in available]
    try:
        # Opened by path, not by content, so that data outside its folder are refused.
        session = ort.InferenceSession(path, options, providers=providers)
    except ORT_ERRORS as error:
        raise ValueError(
            f"{path}: ONNX Runtime cannot compute it ({_first_line(error)}). Export it again with "
            "'deepesi export', or install the version it was written for."
        ) from error
    _check_contract(session, contract, path)
    _check_self_test(session, contract, path)
    return OpenModel(session, contract)


def _read_contract(path: Path) -> Contract:
    """The contract of a file, after a check that it is not damaged."""
    content = path.read_bytes()
    try:
        entries = metadata(content)
    except ValueError as error:  # also for invalid UTF-8
        raise ValueError(
            f"{path}: not a readable ONNX model ({error}). It is truncated or another kind of "
            "file; export it again with 'deepesi export'."
        ) from error
    if METADATA_KEY not in entries:
        raise ValueError(
            f"{path}: not an ONNX model exported by deepesi (no {METADATA_KEY!r} entry in "
            "its metadata), so what it expects is unknown. Use a file written by 'deepesi export'."
        )
    expected = digest(content, entries[METADATA_KEY])
    if entries.get(DIGEST_KEY, expected) != expected:
        raise ValueError(
            f"{path}: not the file that was written: its content does not have the SHA-256 that it "
            "names. It was damaged or altered; get or export it again."
        )
    contract = Contract.from_json(entries[METADATA_KEY], str(path))
    if DIGEST_KEY not in entries:
        raise ValueError(
            f"{path}: it does not name its SHA-256 (no {DIGEST_KEY!r} entry in its metadata), so "
            "whether it is whole is unknown. It was altered; export it again."
        )
    return contract


def _check_contract(session: ort.InferenceSession, contract: Contract, path: Path) -> None:
    """Refuse a graph with inputs, outputs or a source space that differ from its contract."""
    promised: dict[str, set[str | int | None]] = {
        "inputs": {DATA, *(d.key for d in contract.head_inputs)},
        "outputs": {output.name for output in contract.outputs},
    }
    if contract.noise is not None:
        promised["inputs"] |= {NOISE}
    found: dict[str, set[str | int | None]] = {
        "inputs": {i.name for i in session.get_inputs()},
        "outputs": {o.name for o in session.get_outputs()},
    }
    if contract.space_name is not None:
        vertices = tuple(np.array(part, dtype=np.int64) for part in contract.vertices or ())
        edges = np.empty((0, 2), dtype=np.int64)
        space = SourceSpace(contract.space_name, vertices, edges, contract.n_orient or 1)
        promised["source space"] = {contract.space_fingerprint, space.n_dipoles}
        sizes = {output.name: output.shape[1] for output in session.get_outputs()}
        found["source space"] = {space.fingerprint, sizes.get(OUTPUT_NAMES["mean"])}
    for what, names in promised.items():
        if found[what] != names:
            raise ValueError(
                f"{path}: its {what} {sorted(map(str, found[what]))} are not those its contract "
                f"declares ({sorted(map(str, names))}). The file was altered; export it again."
            )


def _check_self_test(session: ort.InferenceSession, contract: Contract, path: Path) -> None:
    """Refuse a file if this machine does not reproduce the outputs of its example."""
    try:
        off = contract.self_test.max_difference(session)
    except (ValueError, *ORT_ERRORS) as error:
        raise ValueError(
            f"{path}: the example in its contract cannot be computed ({_first_line(error)}). The "
            "file was altered; export it again."
        ) from error
    if not off <= MAX_DIFFERENCE:
        raise ValueError(
            f"{path}: this machine computes it wrongly. The example in its contract differs by "
            f"{100 * off:.2g} % of the largest value, more than {100 * MAX_DIFFERENCE:g} %. "
            f"Install another version of onnxruntime (this is {ort.__version__}, on "
            f"{', '.join(session.get_providers())}), or compute on another processor; if it "
            "differs there too, the file was altered: export it again."
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def as_feeds(arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Prepared head inputs in the types of the ONNX inputs: float32 or int64."""
    return {
        key: value.astype(np.float32 if np.issubdtype(value.dtype, np.floating) else np.int64)
        for key, value in arrays.items()
    }
