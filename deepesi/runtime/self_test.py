"""A small example with its outputs in every file, computed again when the file is opened.

A processor or a version of ONNX Runtime may compute an operation differently, without an error. The
example detects this.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel

#: Largest difference, relative to the largest value of an output. Another order of summation
#: changes at most 1e-4 in all networks of deepesi; saturated products change 4 to 18 %.
MAX_DIFFERENCE = 0.01
#: Size of the example: channels, samples, and sources of the smallest head.
N_CHANNELS, N_TIMES, N_SOURCES = 8, 2, 32

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class StoredArray:
    """An array as JSON.

    Attributes:
        dtype: ``"float32"`` or ``"int64"``.
        shape: Shape of the array.
        data: Values, little-endian, row by row, in base64.

    """

    dtype: str
    shape: tuple[int, ...]
    data: str

    @classmethod
    def of(cls, values: NDArray[Any]) -> "StoredArray":
        """Store an array of single precision or of whole numbers."""
        kept = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        text = base64.b64encode(kept.tobytes()).decode()
        return cls(values.dtype.name, values.shape, text)

    def values(self) -> NDArray[Any]:
        """The array.

        Raises:
            ValueError: Not base64, or another number of values than the shape says.

        """
        try:
            content = base64.b64decode(self.data, validate=True)
        except binascii.Error as error:
            raise ValueError(f"an array is not in base64 ({error})") from error
        kind = np.dtype(self.dtype)
        flat = np.frombuffer(content, kind.newbyteorder("<")).astype(kind)
        return flat.reshape(self.shape)


@dataclass(frozen=True)
class SelfTest:
    """Inputs and outputs of a small example.

    Attributes:
        inputs: The recording ``data`` and every head input, by the names of the ONNX inputs.
        outputs: Outputs by the names of the ONNX outputs.

    """

    inputs: dict[str, StoredArray]
    outputs: dict[str, StoredArray]

    @classmethod
    def of_session(cls, session: ort.InferenceSession, inputs: Arrays) -> "SelfTest":
        """Compute the outputs of a session for an example.

        Raises:
            ValueError: NaN or infinite values.

        """
        outputs = _run(session, inputs)
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise ValueError(
                "SelfTest: the model gives NaN or infinite values for one source in the noise. "
                "Look at its weights and train it again; it was not exported."
            )
        return cls(*({k: StoredArray.of(v) for k, v in part.items()} for part in (inputs, outputs)))

    def max_difference(self, session: ort.InferenceSession) -> float:
        """Largest difference over the largest value, of the worst output.

        Raises:
            ValueError: The example does not fit the session.

        """
        found = _run(session, {name: stored.values() for name, stored in self.inputs.items()})
        expected = {name: stored.values() for name, stored in self.outputs.items()}
        shapes = [{k: v.shape for k, v in part.items()} for part in (found, expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"outputs of shapes {shapes[0]}, expected {shapes[1]}")
        differences = [np.abs(found[name] - expected[name]).max() for name in expected]
        largest = [np.abs(values).max() for values in expected.values()]
        off = np.divide(differences, np.maximum(largest, np.finfo(np.float32).tiny))
        return float(np.max(off))  # NaN if any is


def _run(session: ort.InferenceSession, inputs: Arrays) -> dict[str, NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def small_heads(head: HeadModel, bound_to_space: bool) -> list[HeadModel]:
    """Parts of a head, from the smallest on: a few channels, and sources near each other.

    A network may need more sources than the smallest part has; one that is bound to its source
    space needs all of them.
    """
    rows = range(head.n_channels)
    of_all = np.linspace(rows[0], rows[-1], min(N_CHANNELS, len(rows))).astype(int)
    head = head.pick([head.sensors.names[i] for i in of_all])
    sizes = [] if bound_to_space else [N_SOURCES, 4 * N_SOURCES, 16 * N_SOURCES]
    return [*(_near(head, n) for n in sizes if n < head.space.n_sources), head]


def _near(head: HeadModel, n_sources: int) -> HeadModel:
    """A head with only the sources nearest to the first one."""
    apart = np.linalg.norm(head.source_pos - head.source_pos[0], axis=1)
    kept = np.sort(np.argsort(apart, kind="stable")[:n_sources])
    number = np.full(head.space.n_sources, -1)
    number[kept] = np.arange(n_sources)
    edges = number[head.space.edges]
    parts = np.split(number, np.cumsum([len(v) for v in head.space.vertices])[:-1])
    n_orient = head.space.n_orient
    columns = (n_orient * kept[:, None] + np.arange(n_orient)).ravel()
    return replace(
        head,
        leadfield=head.leadfield[:, columns],
        source_pos=head.source_pos[kept],
        source_normals=head.source_normals[kept],
        space=replace(
            head.space,
            vertices=tuple(
                v[part >= 0] for v, part in zip(head.space.vertices, parts, strict=True)
            ),
            edges=edges[(edges >= 0).all(axis=1)],
        ),
    )


def small_recording(head: HeadModel, n_times: int = N_TIMES) -> NDArray[np.float32]:
    """One source in noise ``(1, C, T)``, with twice the strength of the noise per channel."""
    rng = np.random.default_rng(0)
    topography = head.leadfield[:, head.space.n_dipoles // 2]
    source = 2 * head.noise_level * topography / np.sqrt(np.square(topography).mean())
    noise = head.noise_level * rng.normal(size=(head.n_channels, n_times))
    return head.sensors.reference(source[:, None] + noise)[None].astype(np.float32)
