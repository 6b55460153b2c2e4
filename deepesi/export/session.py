"""Opens an ONNX file of ours: session and contract, or an error that says why not."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
)

from deepesi.export.contract import METADATA_KEY, Contract

Array = NDArray[np.float32]


class OpenModel(NamedTuple):
    """A session with what it promises."""

    session: ort.InferenceSession
    contract: Contract

    def run(self, eeg: Array, inputs: dict[str, NDArray[np.generic]]) -> list[Array]:
        """``(B, C, T)`` in volts, average-referenced, to ``[mean]`` or ``[mean, std]``."""
        feeds = {"eeg": eeg.astype(np.float32), **inputs}
        return list(self.session.run(None, feeds))


def open_model(path: Path, n_threads: int = 0) -> OpenModel:
    """Open an exported file.

    Args:
        path: The ``.onnx`` file.
        n_threads: Threads of one inference, 0 for all cores.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not an ONNX file, truncated, or not written by deepesi.

    """
    if not path.is_file():
        raise FileNotFoundError(f"open_model: there is no file {path}.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (InvalidProtobuf, InvalidGraph, InvalidArgument, Fail) as error:
        raise ValueError(
            f"{path}: not a readable ONNX model ({str(error).splitlines()[0]}). It is truncated or "
            "another kind of file; export it again with 'deepesi export'."
        ) from error
    metadata = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in metadata:
        raise ValueError(
            f"{path}: an ONNX model, but not one exported by deepesi (no {METADATA_KEY!r} entry in "
            "its metadata), so what it expects is unknown. Use a file written by 'deepesi export'."
        )
    contract = Contract.from_json(metadata[METADATA_KEY], str(path))
    expected = {"eeg", *(d.key for d in contract.head_inputs)}
    found = {i.name for i in session.get_inputs()}
    if found != expected:
        raise ValueError(
            f"{path}: its inputs {sorted(found)} are not those its contract declares "
            f"({sorted(expected)}). The file was altered; export it again."
        )
    return OpenModel(session, contract)


def as_feeds(arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Prepared head inputs in the types of the ONNX inputs: float32 or int64."""
    return {
        key: value.astype(np.float32 if np.issubdtype(value.dtype, np.floating) else np.int64)
        for key, value in arrays.items()
    }
