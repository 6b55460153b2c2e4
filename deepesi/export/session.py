"""Opens an ONNX file of ours: session and contract, or an error that says why not."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from deepesi.export.contract import DIGEST_KEY, METADATA_KEY, Contract
from deepesi.export.protobuf import digest, metadata
from deepesi.physics.head import SourceSpace

Array = NDArray[np.float32]

#: What ONNX Runtime raises of files and inputs that it cannot compute with.
REFUSALS = (
    ort_errors.EPFail, ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf, ort_errors.NoSuchFile, ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)  # fmt: skip
#: Where to compute, in this order, where the machine and its ONNX Runtime can.
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OpenModel(NamedTuple):
    """A session with what it promises. Many threads may run it at once."""

    session: ort.InferenceSession
    contract: Contract

    @property
    def sha256(self) -> str:
        """Digest of graph and contract that the file names, held against them when opened."""
        return str(self.session.get_modelmeta().custom_metadata_map[DIGEST_KEY])

    def run(self, eeg: Array, inputs: dict[str, NDArray[np.generic]]) -> list[Array]:
        """``(B, C, T)`` in volts, average-referenced, to ``[mean]`` or ``[mean, std]``.

        Raises:
            ValueError: Inputs of other shapes than the model was written for.

        """
        if self.contract.precision == "int8":
            # It scales activations by the largest there is. No example is to depend on others, nor
            # a sample of a network that takes one at a time.
            trained = self.contract.trained
            single = trained is not None and trained.n_times[1] == 1
            for axis in (0, 2) if single else (0,):
                if eeg.shape[axis] > 1:
                    alone = [self.run(one, inputs) for one in np.split(eeg, eeg.shape[axis], axis)]
                    return [np.concatenate(o, axis) for o in zip(*alone, strict=True)]
        feeds = {"eeg": eeg.astype(np.float32), **inputs}
        try:
            return list(self.session.run(None, feeds))
        except REFUSALS as error:
            raise ValueError(
                f"the model cannot compute with EEG of shape {eeg.shape} and these head inputs "
                f"({_first_line(error)}). Prepare it again for this set-up."
            ) from error


def open_model(path: Path, n_threads: int = 0) -> OpenModel:
    """Open an exported file.

    Args:
        path: The ``.onnx`` file.
        n_threads: Threads of one inference, 0 for all cores.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not an ONNX file, truncated, altered, with data outside its folder, or not
            written by deepesi.

    """
    if not path.is_file():
        raise FileNotFoundError(f"open_model: there is no file {path}.")
    contract = _read_contract(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 4  # what is fatal is raised
    available = ort.get_available_providers()
    providers = [provider for provider in PROVIDERS if provider in available]
    try:
        # By its path, not its content: data outside its folder are refused.
        session = ort.InferenceSession(path, options, providers=providers)
    except REFUSALS as error:
        raise ValueError(
            f"{path}: ONNX Runtime cannot compute it ({_first_line(error)}). Export it again with "
            "'deepesi export', or install the version it was written for."
        ) from error
    _check_promises(session, contract, path)
    return OpenModel(session, contract)


def _read_contract(path: Path) -> Contract:
    """The contract of a file that is still what was written."""
    content = path.read_bytes()
    try:
        entries = metadata(content)
    except ValueError as error:  # of broken text, too
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
            "names. It was damaged or altered; get it anew, or export it again."
        )
    contract = Contract.from_json(entries[METADATA_KEY], str(path))
    if DIGEST_KEY not in entries:
        raise ValueError(
            f"{path}: it does not name its SHA-256 (no {DIGEST_KEY!r} entry in its metadata), so "
            "whether it is whole is unknown. It was altered; export it again."
        )
    return contract


def _check_promises(session: ort.InferenceSession, contract: Contract, path: Path) -> None:
    """Refuse a graph whose inputs, outputs or source space are not those of its contract."""
    promised = {
        "inputs": {"eeg", *(d.key for d in contract.head_inputs)},
        "outputs": {"dipole_mean", "dipole_std"} if contract.has_std else {"dipole_mean"},
    }
    found = {
        "inputs": {i.name for i in session.get_inputs()},
        "outputs": {o.name for o in session.get_outputs()},
    }
    if contract.space_name is not None:
        vertices = tuple(np.array(part, dtype=np.int64) for part in contract.vertices or ())
        edges = np.empty((0, 2), dtype=np.int64)
        space = SourceSpace(contract.space_name, vertices, edges, contract.n_orient or 1)
        promised["source space"] = {contract.space_fingerprint, space.n_dipoles}
        found["source space"] = {space.fingerprint, session.get_outputs()[0].shape[1]}
    for what, names in promised.items():
        if found[what] != names:
            raise ValueError(
                f"{path}: its {what} {sorted(map(str, found[what]))} are not those its contract "
                f"declares ({sorted(map(str, names))}). The file was altered; export it again."
            )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def as_feeds(arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Prepared head inputs in the types of the ONNX inputs: float32 or int64."""
    return {
        key: value.astype(np.float32 if np.issubdtype(value.dtype, np.floating) else np.int64)
        for key, value in arrays.items()
    }
