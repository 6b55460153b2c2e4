"""Interactive page of an estimate: the cortex in WebGL, in one file that loads nothing.

Its code is ``web/viewer.min.js``; ``npm ci && npm run build`` in ``web`` makes it from the sources
there. The package itself needs no node.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
#: Pixels along the side of the scalp map before it is smoothed: most and fewest, and the number of
#: electrodes up to which it has the most; their product with the electrodes is bounded.
SCALP_SIZES, FEW_SENSORS = (32, 12), 64
#: Name of the map of standard deviations of another map, after the name of that map.
STD_NAME = "standard deviation"
#: Stands for an unknown coordinate.
UNKNOWN = -32768
#: Unit of vertex positions, m.
POSITION_UNIT = 1e-5


@dataclass(frozen=True)
class View:
    """What the page shows.

    Attributes:
        times: Sample times ``(T,)``, s.
        maps: Values at the sources ``(S, T)``, not negative, by name; the first one is shown first.
        mesh: Cortex mesh.
        data: Referenced data ``(C, T)``, SI units.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        peak_sample: Sample that is shown first.
        stds: Standard deviations of maps ``(S, T)``, by the name of the map, where it has some.
        unit: Unit of the maps.
        outlines: Whether a source is inside a line ``(S, T)``, by the name of the line.
        parcels: Name of the parcel of every source, empty where there is none; or no names.
        mni: MNI positions of the sources ``(S, 3)``, mm; NaN where unknown.

    """

    times: Array
    maps: Mapping[str, Array]
    mesh: DisplayMesh
    data: Array
    sensor_pos: Array
    peak_sample: int
    stds: Mapping[str, Array] = field(default_factory=dict)
    unit: str = "nA m"
    outlines: Mapping[str, NDArray[np.bool_]] | None = None
    parcels: Sequence[str] = ()
    mni: Array | None = None

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
            stds={name: values[:, kept] for name, values in self.stds.items()},
            outlines={name: inside[:, kept] for name, inside in (self.outlines or {}).items()},
        )

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of the page for each sample."""
        n_sources, _ = self.shape
        maps = n_sources * (len(self.maps) + len(self.stds))
        lines = -(-n_sources // 8) * len(self.outlines or {})
        return round(TEXT * (maps + lines + 2 * len(self.data)) + 10)


def percent(values: Array, of: Array | None = None) -> Array:
    """Values in % of the largest, or of the largest of others."""
    largest = (values if of is None else of).max()
    return np.asarray(100 * values / max(float(largest), 1e-30))


def fitting(
    views: Mapping[str, View], below: Mapping[str, str] | None = None
) -> tuple[dict[str, View], int]:
    """Views with as many samples as a page of 3 MB can hold, and the step between them.

    Args:
        views: What to show, by heading.
        below: As in `write_viewer`.

    """
    needed = sum(len(view.times) * view.bytes_per_sample for view in views.values())
    step = max(1, -(-needed // max(room_for_samples(views, below), 1)))
    return {name: view.every(step) for name, view in views.items()}, step


def room_for_samples(views: Mapping[str, View], below: Mapping[str, str] | None = None) -> int:
    """Bytes that a page of 3 MB has left with two samples per view; below 0: it is too large.

    Arguments as of `fitting`.
    """
    few = {name: view.every(max(1, len(view.times) // 2)) for name, view in views.items()}
    return LARGEST - FRAME - sum(map(len, _sections(few, below).values()))


def write_viewer(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    views: Mapping[str, View],
    below: Mapping[str, str] | None = None,
) -> None:
    """Write a page that shows estimates; its code and numbers are in the file.

    Args:
        path: ``.html`` file.
        title: Heading.
        facts: Table at the top, texts by name.
        notes: Highlighted sentences below the table.
        views: What to show, by heading.
        below: HTML below some of the views, by the same headings.

    Raises:
        ValueError: A page above 3 MB.

    """
    write_page(path, title, facts, notes, viewer_sections(views, below))


def viewer_sections(
    views: Mapping[str, View], below: Mapping[str, str] | None = None
) -> dict[str, str]:
    """HTML of a page by heading; the first section has the style, the last one the code.

    Raises:
        ValueError: As in `write_viewer`.

    """
    sections = _sections(views, below)
    size = sum(map(len, sections.values()))
    if size > LARGEST - FRAME:
        samples = sum(len(view.times) for view in views.values())
        theirs = sum(len(view.times) * view.bytes_per_sample for view in views.values())
        raise ValueError(
            f"viewer: a page of {size / 1e6:.1f} MB, expected at most {LARGEST / 1e6:g} MB: "
            f"{samples} samples of {next(iter(views.values())).shape[0]} sources are "
            f"{theirs / 1e6:.1f} MB of it. Thin out: fewer samples (View.every, a shorter window), "
            "fewer maps, no standard deviations, or a head with fewer sources."
        )
    return sections


def _sections(views: Mapping[str, View], below: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those of `viewer_sections`, of any size."""
    meshes = list({id(view.mesh): view.mesh for view in views.values()}.values())
    under = below or {}
    sections = {
        name: _markup(view, next(k for k, mesh in enumerate(meshes) if mesh is view.mesh))
        + under.get(name, "")
        for name, view in views.items()
    }
    cortices = "".join(_script(_mesh_numbers(mesh), "mesh") for mesh in meshes)
    first, *_, last = [*sections, *sections]
    sections[first] = f"<style>{_web('viewer.css')}</style>{cortices}{sections[first]}"
    sections[last] += f"<script>{_web('viewer.min.js')}</script>"
    return sections


def _script(numbers: Mapping[str, Any], kind: str) -> str:
    """Numbers in a page, which cannot end the element that holds them."""
    text = json.dumps(numbers, separators=(",", ":")).replace("<", "\\u003c")
    return f"<script type='application/json' data-numbers='{kind}'>{text}</script>"


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


def _std_name(name: str) -> str:
    return f"{name}: {STD_NAME}"


def _shown(view: View) -> dict[str, Array]:
    """The maps, and after them their standard deviations, by the names on the page."""
    return {**view.maps, **{_std_name(name): values for name, values in view.stds.items()}}


def _colours(name: str) -> str:
    return _base64((255 * colormaps[name](np.linspace(0, 1, 256))[:, :3]).round(), "u1")


def _numbers(view: View, mesh: int) -> dict[str, Any]:
    mni = None if view.mni is None else np.nan_to_num(view.mni, nan=UNKNOWN).round()
    shown = _shown(view)
    std_of = [list(shown).index(_std_name(n)) if n in view.stds else -1 for n in view.maps]
    n_sources, _ = view.shape
    highest = max(float(np.abs(view.data).max()), 1e-30)
    names = list(dict.fromkeys(name for name in view.parcels if name))
    parcel_of = [names.index(name) if name else -1 for name in view.parcels]
    outlines = {} if view.outlines is None else view.outlines
    return {
        "n_sources": n_sources,
        "mesh": mesh,
        "times": (1e3 * view.times).round(2).tolist(),
        "start": view.peak_sample,
        "maps": [_map(name, values) for name, values in shown.items()],
        "std_of": std_of,
        "unit": view.unit,
        "outlines": [
            {"name": name, "sources": _base64(np.packbits(inside.T, axis=1), "u1")}
            for name, inside in outlines.items()
        ],
        "parcels": names,
        "parcel_of": _base64(np.array(parcel_of or [-1] * n_sources), "<i2"),
        "mni": None if mni is None else _base64(mni, "<i2"),
        "potentials": _base64((32767 * view.data.T / highest).round(), "<i2"),
        "potential_maximum": 1e6 * highest,
        "colours": _colours("inferno"),
        "diverging": _colours("RdBu_r"),
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
    most, fewest = SCALP_SIZES
    size = int(np.clip(most * np.sqrt(FEW_SENSORS / len(points)), fewest, most))
    reach = 1 + 2 / size
    axis = reach * (np.arange(size) + 0.5 - size / 2) / (size / 2)
    u, v = np.meshgrid(axis, -axis)  # rows of an image go down
    pixels = np.flatnonzero(np.hypot(u, v) < 1 + 3 / size)
    grid = np.stack([u.ravel(), v.ravel()], axis=1)[pixels]
    matrix = RBFInterpolator(points, np.eye(len(points)), smoothing=1e-9)(grid)
    scale = np.abs(matrix).max() / 32767
    return {
        "electrodes": points.round(3).tolist(),
        "scalp": _base64((matrix / scale).round(), "<i2"),
        "scalp_scale": float(scale),
        "scalp_pixels": _base64(pixels, "<u2"),
        "scalp_size": size,
        "scalp_reach": reach,
    }


def _options(names: Mapping[str, str]) -> str:
    """Options of a list, by their values."""
    return "".join(
        f"<option value='{value}'>{html.escape(name)}</option>" for value, name in names.items()
    )


def _markup(view: View, mesh: int) -> str:
    """One viewer, from ``web/viewer.html``, with the number of its mesh on the page."""
    maps = {str(number): name for number, name in enumerate(_shown(view))}
    lines = {str(number): name for number, name in enumerate(view.outlines or {})} | {"-1": "none"}
    return Template(_web("viewer.html")).substitute(
        kind="sample" if len(view.times) == 1 else "time course",
        last=len(view.times) - 1,
        unit=html.escape(view.unit),
        maps=_options(maps),
        lines=_options(lines),
        numbers=_script(_numbers(view, mesh), "view"),
    )


def _web(name: str) -> str:
    return (resources.files("deepesi.viz") / "web" / name).read_text(encoding="utf-8")
