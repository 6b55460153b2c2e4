"""Maps of sources, on the inflated cortex or projected, drawn with matplotlib alone."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from deepesi.physics.graph import face_normals, vertex_normals
from deepesi.physics.template import DisplayMesh

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Array = NDArray[np.float64]

#: View name to the direction towards the eye and the direction up, head frame.
VIEWS = {
    "left lateral": (0, (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "right lateral": (1, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "left medial": (0, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "right medial": (1, (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "left posterior": (0, (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
    "right posterior": (1, (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
    "left inferior": (0, (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "right inferior": (1, (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
}
#: Plane name to the axes of the head frame that span it, to the right and up.
PLANES = {"from above": (0, 1), "from the right": (1, 2), "from behind": (0, 2)}
AXES = ("x, right", "y, front", "z, up")
GYRUS, SULCUS = 0.82, 0.66
#: Values below this share of the maximum leave the cortex bare.
THRESHOLD = 0.25
#: Least cosine between the cortex and the eye at which a place counts as seen.
VISIBLE = 0.25
RING = "#00e5ff"
#: Colours of dots.
DOTS = "viridis"


def draw_cortex(
    ax: "Axes",
    values: Array,
    mesh: DisplayMesh,
    view: str,
    maximum: float,
    marks: NDArray[np.int64] | None = None,
    numbered: bool = False,
) -> None:
    """Draw magnitudes on one hemisphere.

    Args:
        ax: Where to draw; its axes are switched off.
        values: Magnitudes at the sources ``(S,)``, not negative.
        mesh: The cortex.
        view: A key of `VIEWS`.
        maximum: Value that gets the strongest colour.
        marks: Numbers of sources to mark with a ring (true peaks), if in this view's hemisphere.
        numbered: Whether the rings are numbered from 1 in the order of `marks`.

    """
    seen, level = _seen(mesh, view), np.zeros((2, len(mesh.positions[0])))
    if maximum > 0:
        level = mesh.interpolate(values) / maximum
    level = np.clip(level[seen.hemisphere][seen.faces].mean(axis=1), 0, 1)
    # The colour fades in above the threshold, so that no edge is drawn where there is none.
    opacity = np.clip((level - THRESHOLD) / 0.15, 0, 1)[:, None]
    colour = opacity * colormaps["inferno"](0.25 + 0.7 * level)[:, :3] + (1 - opacity) * seen.grey
    _draw_faces(ax, seen, colour)
    if marks is not None and len(marks):
        visible = np.flatnonzero(_facing(marks, len(values), mesh, view) > VISIBLE)
        rings = seen.flat[marks[visible] % (len(values) // 2)]
        _draw_rings(ax, rings, visible if numbered else None)


def draw_dots(
    ax: "Axes",
    sources: NDArray[np.int64],
    values: Array,
    n_sources: int,
    mesh: DisplayMesh,
    view: str,
    maximum: float,
) -> None:
    """Draw a number at each of some sources of one hemisphere as a dot of its colour.

    Args:
        ax: Where to draw; its axes are switched off.
        sources: Their numbers ``(N,)``.
        values: The numbers ``(N,)``; the largest on top.
        n_sources: Sources of the whole space.
        mesh: The cortex.
        view: A key of `VIEWS`.
        maximum: Value that gets the last colour of `DOTS`; 0 gets the first.

    """
    seen = _seen(mesh, view)
    _draw_faces(ax, seen, seen.grey)
    visible = np.flatnonzero(_facing(sources, n_sources, mesh, view) > VISIBLE)
    visible = visible[np.argsort(values[visible], kind="stable")]
    places = seen.flat[sources[visible] % (n_sources // 2)]
    ax.scatter(
        *places.T,
        c=values[visible],
        s=16,
        cmap=DOTS,
        vmin=0,
        vmax=maximum,
        edgecolors="0.25",
        linewidths=0.3,
        zorder=3,
    )


class _Seen(NamedTuple):
    """The cortex from one side, its faces from the back to the front."""

    hemisphere: int
    faces: NDArray[np.int64]
    flat: Array  # vertices in the plane of the picture (N, 2)
    light: Array  # of every face, up to 1
    grey: Array  # colour of every face without activity (F, 3)


def _seen(mesh: DisplayMesh, view: str) -> _Seen:
    hemisphere, to_eye, upward = VIEWS[view]
    eye, up = np.array(to_eye), np.array(upward)
    positions = mesh.positions[hemisphere]
    normals = face_normals(positions, mesh.faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    towards = normals @ eye
    front = towards > 0
    faces = mesh.faces[front]
    order = np.argsort((positions[faces] @ eye).mean(axis=1))
    faces, light = faces[order], (0.6 + 0.4 * towards[front])[order]
    grey = np.where(mesh.sulci[hemisphere], SULCUS, GYRUS)[faces].mean(axis=1)
    flat = np.stack([positions @ np.cross(up, eye), positions @ up], axis=1)
    return _Seen(hemisphere, faces, flat, light, np.repeat(grey[:, None], 3, axis=1))


def _draw_faces(ax: "Axes", seen: _Seen, colour: Array) -> None:
    corners = seen.flat[seen.faces]  # of an array all paths are made at once
    ax.add_collection(
        PolyCollection(
            corners,
            facecolors=colour * seen.light[:, None],
            edgecolors="face",
            linewidths=0.2,
            rasterized=True,
        ),
        autolim=False,  # would look at every path
    )
    ax.update_datalim(corners.reshape(-1, 2))
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.axis("off")


def normals_at(mesh: DisplayMesh, hemisphere: int) -> Array:
    """Unit vertex normals ``(N, 3)`` of one hemisphere; sources are its first vertices."""
    return vertex_normals(mesh.positions[hemisphere], mesh.faces)


def _facing(sources: NDArray[np.int64], n_sources: int, mesh: DisplayMesh, view: str) -> Array:
    """Cosine between the cortex at sources and the eye; -1 in the other hemisphere."""
    hemisphere, eye, _ = VIEWS[view]
    own, vertex = np.divmod(sources, n_sources // 2)
    cosine = normals_at(mesh, hemisphere)[vertex] @ np.array(eye)
    return np.where(own == hemisphere, cosine, -1.0)


def _draw_rings(ax: "Axes", places: Array, numbers: NDArray[np.int64] | None) -> None:
    ax.scatter(*places.T, s=70, facecolors="none", edgecolors=RING, linewidths=1.6, zorder=3)
    for place, number in zip(places, () if numbers is None else numbers, strict=False):
        ax.annotate(
            str(number + 1),
            place,
            (5, 5),
            textcoords="offset points",
            fontsize=9,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.8, "lw": 0},
        )


def best_views(peak: int, n_sources: int, mesh: DisplayMesh, n_views: int = 2) -> list[str]:
    """The views of the hemisphere of a source that show it most directly."""
    facing = {v: _facing(np.array([peak]), n_sources, mesh, v)[0] for v in VIEWS}
    return sorted(VIEWS, key=lambda view: -facing[view])[:n_views]


def covering_views(
    sources: NDArray[np.int64], n_sources: int, mesh: DisplayMesh, n_views: int = 4
) -> list[str]:
    """The views that between them show sources most directly, taken one after the other."""
    facing = {view: _facing(sources, n_sources, mesh, view) for view in VIEWS}
    seen, chosen = np.zeros(len(sources)), list[str]()
    while len(chosen) < n_views:
        left = [view for view in VIEWS if view not in chosen]
        chosen.append(max(left, key=lambda view: np.maximum(seen, facing[view]).sum()))
        seen = np.maximum(seen, facing[chosen[-1]])
    return chosen


def draw_projections(
    figure: "SubFigure", values: Array, positions: Array, marks: NDArray[np.int64]
) -> None:
    """Draw magnitudes in three orthogonal projections, for sources that are on no mesh.

    Args:
        figure: Where to draw.
        values: Magnitudes at the sources ``(S,)``, A m.
        positions: Sources ``(S, 3)``, m, head frame.
        marks: Numbers of sources to mark with a numbered ring.

    """
    strongest = 1e9 * max(float(values.max()), 1e-30)
    order = np.argsort(values)  # the strongest on top
    active = order[1e9 * values[order] > THRESHOLD * strongest]
    axes = figure.subplots(2, 2).ravel()
    for ax, (title, plane) in zip(axes, PLANES.items(), strict=False):
        places = 1e3 * positions[:, plane]
        ax.scatter(*places.T, color=str(GYRUS), s=3, linewidths=0, rasterized=True)
        dots = ax.scatter(
            *places[active].T,
            c=1e9 * values[active],
            s=16,
            cmap="inferno",
            vmin=0,
            vmax=1.1 * strongest,
            linewidths=0,
        )
        _draw_rings(ax, places[marks], np.arange(len(marks)))
        ax.set(xlabel=f"{AXES[plane[0]]} (mm)", ylabel=f"{AXES[plane[1]]} (mm)", aspect="equal")
        ax.set_title(title, fontsize=9)
    axes[3].axis("off")
    figure.colorbar(dots, ax=axes[3], location="left", label="|moment| (nAm)")
