"""Files of magnetic families, with three components per source."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head_names import FREE, build_options
from deepesi.physics.magnetic import MagneticFieldFamily
from deepesi.utils.cache import cache_folder
from deepesi.utils.files import atomic, parsing

if TYPE_CHECKING:
    from deepesi.physics.template import Template

DATA = Path(__file__).parent / "data"
#: End of the name of a file of magnetic fields.
ENDING = "-meg.npz"
Array = NDArray[np.float64]


def save_magnetic(
    path: Path, family: MagneticFieldFamily, vertices: Sequence[NDArray[np.int64]]
) -> None:
    """Write a family of three components per source as ``.npz`` (no pickle).

    Args:
        path: File to write.
        family: Modes ``(3 S, r)``: x, y and z of every source, head frame.
        vertices: Vertex numbers of the sources per hemisphere.

    """
    numbers = {f"vertices_{i}": v.astype(np.int32) for i, v in enumerate(vertices)}
    with atomic(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **family.to_arrays(), **numbers)


@functools.lru_cache(maxsize=2)
def _read(path: Path) -> tuple[MagneticFieldFamily, tuple[NDArray[np.int64], ...]]:
    with parsing(path, "magnetic family", "Reinstall deepesi."), np.load(path) as file:
        arrays = dict(file)
    parts = sum(key.startswith("vertices_") for key in arrays)
    vertices = tuple(arrays.pop(f"vertices_{i}").astype(np.int64) for i in range(parts))
    return MagneticFieldFamily.from_arrays(arrays), vertices


def load_magnetic(template: "Template") -> MagneticFieldFamily:
    """The magnetic family of a head, for its sources and their orientation.

    Raises:
        ValueError: There is none for this head.

    """
    free = load_components(template)
    if template.space.n_orient == 3:
        return free
    modes = free.source_modes.reshape(len(template.source_pos), 3, -1)
    return free.with_sources(np.einsum("sjr,sj->sr", modes, template.source_normals))


def load_components(template: "Template") -> MagneticFieldFamily:
    """The magnetic family of a head, x, y and z of each of its sources.

    Packaged is one of fsaverage, for all spacings of the cortex; others are built into the cache.

    Raises:
        ValueError: There is none for this head.

    """
    path = _path(template)
    if path is None or template.cap is not None:
        raise ValueError(
            f"load_magnetic: the head {template.name!r} has no magnetic fields; packaged are those "
            f"of fsaverage-ico3 and fsaverage-ico4. Use one of them, {_command(template)}or a "
            "forward solution with MEG (head=forward)."
        )
    family, vertices = _read(path)
    rows, start = [], 0
    for own, known in zip(template.space.vertices, vertices, strict=True):
        found = np.searchsorted(known, own).clip(max=len(known) - 1)
        if not np.array_equal(known[found], own):
            raise ValueError(
                f"load_magnetic: the head {template.name!r} has sources that the packaged magnetic "
                "fields of fsaverage do not have. Use fsaverage-ico3 or fsaverage-ico4."
            )
        rows.append(start + found)
        start += len(known)
    modes = family.source_modes.reshape(start, 3, -1)[np.concatenate(rows)]
    return family.with_sources(modes.reshape(3 * len(modes), -1))


def magnetic_file(name: str) -> str:
    """Name of the built file of magnetic fields of a head, for any orientation."""
    return name.removesuffix(FREE) + ENDING


def _path(template: "Template") -> Path | None:
    """The file of a head: built, or packaged for all spacings of fsaverage."""
    paths = [cache_folder() / magnetic_file(template.name)]
    if template.name.startswith("fsaverage-ico"):
        paths.insert(0, DATA / f"fsaverage-ico4{ENDING}")
    return next((path for path in paths if path.is_file()), None)


def _command(template: "Template") -> str:
    """The command that builds the magnetic fields of a head, in words; empty: there is none."""
    options = build_options(template.name.removesuffix(FREE))
    return f"build its own with 'deepesi head build --magnetic {options}', " if options else ""
