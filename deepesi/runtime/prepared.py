"""``head.npz``: arrays prepared for a set-up, read and checked against the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head_inputs.declaration import Axes
from deepesi.runtime.contract import Contract
from deepesi.utils.files import parsing

#: Other entries of ``head.npz`` than prepared inputs and vertices: axes, kinds of values.
_ENTRIES: dict[str, tuple[Axes, str]] = {
    "ch_kinds": (("channels",), "U"),
    "ch_names": (("channels",), "U"),
    "channel_precision": (("channels", "channels"), "f"),
    "edges": (("edges", 2), "iu"),
    "n_orient": ((), "iu"),
    "nave": ((), "iuf"),
    "origin": ((), "U"),
    "positions": (("sources", 3), "f"),
    "rank_reason": ((), "U"),
    "recorded_pos": (("channels", 3), "f"),
    "sensor_ori": (("channels", 3), "f"),
    "sensor_pos": (("channels", 3), "f"),
    "space_name": ((), "U"),
    "whitener": (("channels", "channels"), "f"),
}


def read_prepared(path: Path, contract: Contract) -> dict[str, NDArray[Any]]:
    """The arrays that `deepesi.runtime.prepared_inverse.PreparedInverse.save` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not such a file, for another model, or damaged.

    """
    again = "Write it again with 'deepesi prepare'."
    with parsing(path, "head.npz", again), np.load(path, allow_pickle=False) as file:
        content = dict(file)
    _check(content, contract, str(path))
    return content


def _check(content: Mapping[str, NDArray[Any]], contract: Contract, origin: str) -> None:
    """Refuse the inputs of another model, and arrays with wrong shapes or non-finite values."""
    inputs = {f"input/{d.key}": (d.axes, "fiu") for d in contract.head_inputs}
    parts = {f"vertices{i}" for i in range(len(content))} & content.keys()
    expected = inputs | _ENTRIES | {part: ((part,), "iu") for part in parts}
    if content.keys() != expected.keys() or not parts:
        raise ValueError(
            f"{origin}: holds {sorted(content)}, the model needs {sorted(expected)} and the "
            "vertices of a source space. Write it again with 'deepesi prepare' for this model."
        )
    sizes: dict[str, int] = {}
    for key, (axes, kinds) in sorted(expected.items()):
        values = content[key]
        if len(values.shape) != len(axes) or any(
            n != (axis if isinstance(axis, int) else sizes.setdefault(axis, n))
            for axis, n in zip(axes, values.shape, strict=True)
        ):
            raise ValueError(
                f"{origin}: {key} has shape {values.shape}, expected {axes} with {sizes}. Write "
                "it again with 'deepesi prepare'."
            )
        if values.dtype.kind not in kinds or (
            values.dtype.kind == "f" and not np.isfinite(values).all()
        ):
            raise ValueError(
                f"{origin}: {key} holds NaN, infinite values or values of another kind "
                f"({values.dtype}). Write it again with 'deepesi prepare'."
            )
    n_sources = sum(len(content[part]) for part in parts)
    n_orient = int(content["n_orient"])
    found = [sizes[axis] for axis in ("sources", "dipoles") if axis in sizes]
    if found != [n_sources, n_sources * n_orient][: len(found)]:
        raise ValueError(
            f"{origin}: its arrays are for {found} sources and dipoles, its vertices are "
            f"{n_sources} with {n_orient} orientation(s). Write it again with 'deepesi prepare'."
        )
