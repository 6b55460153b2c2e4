"""Interactive page of an estimate: the cortex in WebGL, in one file that loads nothing.

Its code is ``web/viewer.min.js``; ``npm ci && npm run build`` in ``web`` makes it from the sources
there. The package itself needs no node.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from deepesi.physics.template import DisplayMesh
from deepesi.viz.page import write_page
from deepesi.viz.scalp_movie import flat_positions

Array = NDArray[np.float64]

#: Largest page, and what of it is kept for the text around the viewer, bytes.
LARGEST, FRAME = 3_000_000, 50_000
#: Bytes of text that hold a byte of numbers (base64).
TEXT = 4 / 3
#: Pixels along the side of the scalp map before it is smoothed.
SCALP_SIZE = 32
#: Name of the map of standard deviations.
DEVIATION = "standard deviation"
#: Unit of vertex positions, m.
POSITION_UNIT = 1e-5


@dataclass(frozen=True)
class View:
    """What the page shows.

    Attributes:
        times: Sample times ``(T,)``, s, two or more.
        maps: Values at the sources ``(S, T)``, not negative, by name; the first one is shown first.
        mesh: Cortex mesh.
        data: Referenced data ``(C, T)``, V.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        peak_sample: Sample that is shown first.
        std: Standard deviations of the first map ``(S, T)``.
        unit: Unit of the maps.
        outlines: Whether a source is inside a line ``(S, T)``, by the name of the line.
        parcels: Name of the parcel of every source, empty where there is none; or no names.
        mni: MNI positions of the sources ``(S, 3)``, mm; NaN where unknown.
        labels: Names of the samples, if they are separate recordings and not a time course.

    """

    times: Array
    maps: Mapping[str, Array]
    mesh: DisplayMesh
    data: Array
    sensor_pos: Array
    peak_sample: int
    std: Array | None = None
    unit: str = "nA m"
    outlines: Mapping[str, NDArray[np.bool_]] | None = None
    parcels: Sequence[str] = ()
    mni: Array | None = None
    labels: Sequence[str] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of sources and of samples."""
        n_sources, n_times = next(iter(self.maps.values())).shape
        return n_sources, n_times

    def every(self, step: int) -> "View":
        """The same with every `step`-th sample, so chosen that the peak is one of them."""
        kept = slice(self.peak_sample % step, None, step)
        return replace(
            self,
            times=self.times[kept],
            maps={name: values[:, kept] for name, values in self.maps.items()},
            data=self.data[:, kept],
            peak_sample=self.peak_sample // step,
            std=None if self.std is None else self.std[:, kept],
            outlines={name: inside[:, kept] for name, inside in (self.outlines or {}).items()},
            labels=self.labels[kept],
        )

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of the page for each sample."""
        n_sources, _ = self.shape
        maps = n_sources * (len(self.maps) + (self.std is not None))
        lines = -(-n_sources // 8) * len(self.outlines or {})
        return round(TEXT * (maps + lines + 2 * len(self.data)) + 10)


def fitting(view: View) -> tuple[View, int]:
    """A view with as many samples as a page of 3 MB can hold, and the step between them."""
    room = LARGEST - FRAME - len(viewer_html(view.every(max(1, (len(view.times) - 1) // 2))))
    step = max(1, -(-len(view.times) * view.bytes_per_sample // max(room, 1)))
    return view.every(step), step


def write_viewer(
    path: Path, title: str, facts: Mapping[str, str], notes: Sequence[str], view: View
) -> None:
    """Write a page that shows an estimate; its code and numbers are in the file.

    Args:
        path: ``.html`` file.
        title: Heading.
        facts: Table at the top, texts by name.
        notes: Highlighted sentences below the table.
        view: What to show.

    Raises:
        ValueError: One sample, a head without two hemispheres, or a page above 3 MB.

    """
    write_page(path, title, facts, notes, {"Estimate": viewer_html(view)})


def viewer_html(view: View) -> str:
    """HTML of the viewer with its code, style and numbers.

    Raises:
        ValueError: As in `write_viewer`.

    """
    n_sources, n_times = view.shape
    if n_times < 2:
        raise ValueError(f"viewer: {n_times} sample is a picture; expected two or more samples.")
    numbers = json.dumps(_numbers(view), separators=(",", ":")).replace("<", "\\u003c")
    page = (
        f"<style>{_web('viewer.css')}</style>{_markup(view, numbers)}"
        f"<script>{_web('viewer.min.js')}</script>"
    )
    if len(page) > LARGEST - FRAME:
        per_sample = view.bytes_per_sample
        raise ValueError(
            f"viewer: a page of {len(page) / 1e6:.1f} MB, expected at most {LARGEST / 1e6:g} MB: "
            f"{n_times} samples of {n_sources} sources are {n_times * per_sample / 1e6:.1f} MB of "
            "it. Thin out: fewer samples (View.every, a shorter window), fewer maps, no standard "
            "deviations, or a head with fewer sources."
        )
    return page


def _base64(values: NDArray[Any], kind: str) -> str:
    """Numbers as text, in the order of the array."""
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def _map(name: str, values: Array) -> dict[str, Any]:
    """Values ``(S, T)`` as bytes, sample after sample; 255 stands for the largest.

    Square roots, so that samples much weaker than the strongest keep their detail.
    """
    largest = max(float(values.max()), 1e-30)
    shares = _base64((255 * np.sqrt(values.T / largest)).round(), "u1")
    return {"name": name, "maximum": largest, "values": shares}


def _colours(name: str) -> str:
    return _base64((255 * colormaps[name](np.linspace(0, 1, 256))[:, :3]).round(), "u1")


def _numbers(view: View) -> dict[str, Any]:
    maps = [_map(name, values) for name, values in view.maps.items()]
    if view.std is not None:
        maps.append(_map(DEVIATION, view.std))
    n_sources, _ = view.shape
    highest = max(float(np.abs(view.data).max()), 1e-30)
    names = list(dict.fromkeys(name for name in view.parcels if name))
    parcel_of = [names.index(name) if name else -1 for name in view.parcels]
    outlines = {} if view.outlines is None else view.outlines
    return {
        "n_sources": n_sources,
        "times": (1e3 * view.times).round(2).tolist(),
        "start": view.peak_sample,
        "labels": list(view.labels),
        "maps": maps,
        "deviation": len(maps) - 1 if view.std is not None else -1,
        "unit": view.unit,
        "outlines": [
            {"name": name, "sources": _base64(np.packbits(inside.T, axis=1), "u1")}
            for name, inside in outlines.items()
        ],
        "parcels": names,
        "parcel_of": _base64(np.array(parcel_of or [-1] * n_sources), "<i2"),
        "mni": None if view.mni is None else _base64(np.nan_to_num(view.mni).round(), "<i2"),
        "potentials": _base64((32767 * view.data.T / highest).round(), "<i2"),
        "potential_maximum": 1e6 * highest,
        "colours": _colours("inferno"),
        "diverging": _colours("RdBu_r"),
        **_mesh_numbers(view.mesh),
        **_scalp_numbers(view.sensor_pos),
    }


def _mesh_numbers(mesh: DisplayMesh) -> dict[str, str]:
    return {
        "positions": _base64((mesh.positions / POSITION_UNIT).round(), "<i2"),
        "faces": _base64(mesh.faces, "<u2"),
        "sulci": _base64(mesh.sulci, "u1"),
        "index": _base64(mesh.source_index, "<u2"),
        "weight": _base64((255 * mesh.source_weight).round(), "u1"),
    }


def _scalp_numbers(sensor_pos: Array) -> dict[str, Any]:
    """Electrodes on a flat head, and the matrix that interpolates between them.

    Source: thin-plate splines, which are linear in the potentials, by SciPy. Difference to
    MNE-Python's maps: those are piecewise cubic.
    """
    from scipy.interpolate import RBFInterpolator

    points = flat_positions(sensor_pos)
    reach = 1 + 2 / SCALP_SIZE
    axis = reach * (np.arange(SCALP_SIZE) + 0.5 - SCALP_SIZE / 2) / (SCALP_SIZE / 2)
    u, v = np.meshgrid(axis, -axis)  # rows of an image go down
    pixels = np.flatnonzero(np.hypot(u, v) < 1 + 3 / SCALP_SIZE)
    grid = np.stack([u.ravel(), v.ravel()], axis=1)[pixels]
    matrix = RBFInterpolator(points, np.eye(len(points)), smoothing=1e-9)(grid)
    scale = np.abs(matrix).max() / 32767
    return {
        "electrodes": points.round(3).tolist(),
        "scalp": _base64((matrix / scale).round(), "<i2"),
        "scalp_scale": float(scale),
        "scalp_pixels": _base64(pixels, "<u2"),
        "scalp_size": SCALP_SIZE,
        "scalp_reach": reach,
    }


def _options(names: Mapping[str, str]) -> str:
    """Options of a list, by their values."""
    return "".join(
        f"<option value='{value}'>{html.escape(name)}</option>" for value, name in names.items()
    )


def _markup(view: View, numbers: str) -> str:
    """What is on the page, from ``web/viewer.html``."""
    names = [*view.maps, *([] if view.std is None else [DEVIATION])]
    maps = {str(number): name for number, name in enumerate(names)}
    lines = {str(number): name for number, name in enumerate(view.outlines or {})} | {"-1": "none"}
    return Template(_web("viewer.html")).substitute(
        kind="of separate recordings" if view.labels else "of a time course",
        last=len(view.times) - 1,
        step="recording" if view.labels else "time",
        unit=html.escape(view.unit),
        maps=_options(maps),
        lines=_options(lines),
        numbers=numbers,
    )


def _web(name: str) -> str:
    return (resources.files("deepesi.viz") / "web" / name).read_text(encoding="utf-8")
