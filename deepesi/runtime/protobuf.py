"""The outermost layer of an ONNX file, read without the onnx package: metadata and a digest.

It is read before ONNX Runtime opens the file, so that nothing parses a damaged graph.
"""

import hashlib
import math
from collections.abc import Iterator

#: Field of ONNX's ``ModelProto`` that holds the metadata, the digest among them.
METADATA_FIELD = 14
#: Fields of its graph, of the tensors a graph keeps, and of their sizes.
GRAPH_FIELD, INITIALIZER_FIELD, DIMS_FIELD = 7, 5, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def metadata(content: bytes) -> dict[str, str]:
    """Metadata of a serialized model.

    Raises:
        ValueError: Not a protocol buffer, or truncated.

    """
    found = {}
    for number, _, entry in _fields(memoryview(content)):
        if number == METADATA_FIELD:
            parts = {n: bytes(value).decode() for n, _, value in _fields(entry)}
            found[parts.get(1, "")] = parts.get(2, "")
    return found


def n_values(content: bytes) -> int:
    """Number of values in a serialized model: its weights and a few constants.

    Scalars do not count: they are constants of the arithmetic.

    Raises:
        ValueError: Not a protocol buffer, or truncated.

    """
    graphs = [value for n, _, value in _fields(memoryview(content)) if n == GRAPH_FIELD]
    tensors = [value for g in graphs for n, _, value in _fields(g) if n == INITIALIZER_FIELD]
    sizes = [math.prod(_dims(tensor)) for tensor in tensors]
    return sum(size for size in sizes if size > 1)


def _dims(tensor: memoryview) -> Iterator[int]:
    """Sizes of a tensor, written one by one or together."""
    for number, _, value in _fields(tensor):
        position = 0
        while number == DIMS_FIELD and position < len(value):
            size, position = _varint(value, position)
            yield size


def digest(content: bytes, contract: str) -> str:
    """SHA-256 of a serialized model without its metadata, and of its contract.

    It detects damage, not forgery: a forger can compute a new digest.

    Args:
        content: ONNX file.
        contract: JSON.

    Raises:
        ValueError: Not a protocol buffer, or truncated.

    """
    found = hashlib.sha256(contract.encode())
    for number, whole, _ in _fields(memoryview(content)):
        if number != METADATA_FIELD:
            found.update(whole)
    return found.hexdigest()


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, bytes and content of every field of a message, in order."""
    position = 0
    while position < len(view):
        start = position
        tag, position = _varint(view, position)
        kind, begin = tag & 7, position
        if kind == _BYTES:
            length, begin = _varint(view, position)
            position = begin + length
        elif kind == _VARINT:
            _, position = _varint(view, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is no protocol buffer")
        if position > len(view):
            raise ValueError("it ends too early")
        yield tag >> 3, view[start:position], view[begin:position]


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise ValueError("it ends too early")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is no protocol buffer")
