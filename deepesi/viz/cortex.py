"""Maps of sources on the inflated cortex or in projections, drawn with matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from deepesi.physics.graph import face_normals, vertex_normals
from deepesi.physics.source_mesh import CortexMesh

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Array = NDArray[np.float64]

#: Hemisphere, direction to the viewer and upward direction (head frame) of every view.
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
#: Horizontal and vertical axis (head frame) of every projection.
PLANES = {"from above": (0, 1), "from the right": (1, 2), "from behind": (0, 2)}
AXES = ("x, right", "y, front", "z, up")
GYRUS, SULCUS = 0.82, 0.66
#: Values below this share of the maximum are not drawn.
THRESHOLD = 0.25
#: Smallest cosine between cortex normal and viewer at which a source counts as visible.
VISIBLE = 0.25
RING = "#00e5ff"
#: Colours of the parts of a set, distinct for colour-blind readers; the last one of all others.
PARTS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#5c4a00")
#: Their letters.
PART_LETTERS = "ABCD"
#: A label beside a source.
LABEL: dict[str, Any] = {
    "textcoords": "offset points",
    "fontsize": 9,
    "zorder": 4,
    "bbox": {"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.8, "lw": 0},
}
#: Colours of dots.
DOTS = "viridis"


def draw_cortex(
    ax: "Axes",
    values: Array,
    mesh: CortexMesh,
    view: str,
    maximum: float,
    marks: NDArray[np.int64] | None = None,
    numbered: bool = False,
) -> None:
    """Draw magnitudes on one hemisphere.

    Args:
        ax: Axes to draw in; ticks are switched off.
        values: Magnitudes at the sources ``(S,)``, not negative.
        mesh: Cortex mesh.
        view: Key of `VIEWS`.
        maximum: Value with the strongest colour.
        marks: Indices of sources to mark with a ring, if visible in this view.
        numbered: Whether rings are numbered from 1 in the order of `marks`.

    """
    side = side_of(mesh, view)
    _draw_faces(ax, side, magnitude_colours(values, mesh, side, maximum))
    if marks is not None and len(marks):
        visible = np.flatnonzero(_facing(marks, mesh, view) > VISIBLE)
        _draw_rings(ax, side.points(marks[visible], mesh), visible if numbered else None)


def draw_parts(
    ax: "Axes",
    parts: Sequence[NDArray[np.int64]],
    mesh: CortexMesh,
    view: str,
    marks: NDArray[np.int64],
) -> None:
    """Draw sets of sources on one hemisphere, each in a colour and with a letter.

    Args:
        ax: Axes to draw in; ticks are switched off.
        parts: Sources of every set; those after the first of `PARTS` have the last colour and no
            letter.
        mesh: Cortex mesh.
        view: Key of `VIEWS`.
        marks: Indices of sources to mark with a numbered ring, if visible in this view.

    """
    side = side_of(mesh, view)
    colours = np.broadcast_to(side.grey, (len(side.faces), 3))
    for number, part in enumerate(parts):
        inside = np.zeros(mesh.n_sources)
        inside[part] = 1
        level = mesh.interpolate(inside)[side.hemisphere][side.faces].mean(axis=1)
        opacity = np.clip((level - 0.3) / 0.2, 0, 1)[:, None]
        rgb = np.array(to_rgb(PARTS[min(number, len(PARTS) - 1)]))
        colours = opacity * rgb + (1 - opacity) * colours
    _draw_faces(ax, side, colours)
    visible = np.flatnonzero(_facing(marks, mesh, view) > VISIBLE)
    _draw_rings(ax, side.points(marks[visible], mesh), visible)
    for letter, colour, part in zip(PART_LETTERS, PARTS, parts, strict=False):
        facing = _facing(part, mesh, view)
        if facing.max() > VISIBLE:
            points = side.points(part[facing > VISIBLE], mesh)
            nearest = np.linalg.norm(points - points.mean(axis=0), axis=1).argmin()
            line = {"arrowstyle": "-", "color": colour}  # the label stands beside a small part
            ax.annotate(letter, points[nearest], (-20, -20), color=colour, arrowprops=line, **LABEL)


def magnitude_colours(values: Array, mesh: CortexMesh, side: "Side", maximum: float) -> Array:
    """Colours ``(F, 3)`` of the faces of a view by magnitudes at the sources ``(S,)``, unlit."""
    level = mesh.interpolate(values)[side.hemisphere][side.faces].mean(axis=1)
    return level_colours(level / maximum if maximum > 0 else 0 * level, side.grey)


def level_colours(level: Array, grey: Array | float) -> Array:
    """Colours ``(F, 3)`` of shares of the maximum ``(F,)``, over a grey ground."""
    level = np.clip(level, 0, 1)
    # The colour fades in above the threshold, so that it adds no edges to the map.
    opacity = np.clip((level - THRESHOLD) / 0.15, 0, 1)[:, None]
    return np.asarray(
        opacity * colormaps["inferno"](0.25 + 0.7 * level)[:, :3] + (1 - opacity) * grey
    )


def draw_dots(
    ax: "Axes",
    sources: NDArray[np.int64],
    values: Array,
    mesh: CortexMesh,
    view: str,
    maximum: float,
) -> None:
    """Draw values at some sources of one hemisphere as coloured dots.

    Args:
        ax: Axes to draw in; ticks are switched off.
        sources: Indices of the sources ``(N,)``.
        values: Values at these sources ``(N,)``; the largest are drawn on top.
        mesh: Cortex mesh.
        view: Key of `VIEWS`.
        maximum: Value with the last colour of `DOTS`; 0 has the first.

    """
    side = side_of(mesh, view)
    _draw_faces(ax, side, side.grey)
    visible = np.flatnonzero(_facing(sources, mesh, view) > VISIBLE)
    visible = visible[np.argsort(values[visible], kind="stable")]
    points = side.points(sources[visible], mesh)
    ax.scatter(
        points[:, 0],
        points[:, 1],
        c=values[visible],
        s=16,
        cmap=DOTS,
        vmin=0,
        vmax=maximum,
        edgecolors="0.25",
        linewidths=0.3,
        zorder=3,
    )


class Side(NamedTuple):
    """Visible faces of one hemisphere in a view, sorted from back to front."""

    hemisphere: int
    faces: NDArray[np.int64]
    flat: Array  # vertices in the plane of the figure (N, 2)
    light: Array  # brightness of every face, up to 1
    grey: Array  # colour of every face without activity (F, 3)

    def points(self, sources: NDArray[np.int64], mesh: CortexMesh) -> Array:
        """Places of sources of this hemisphere in the plane of the figure ``(N, 2)``."""
        return self.flat[mesh.places(sources)[1]]


def side_of(mesh: CortexMesh, view: str) -> Side:
    """Visible faces of a view of `VIEWS`."""
    hemisphere, to_eye, upward = VIEWS[view]
    eye, up = np.array(to_eye), np.array(upward)
    positions, all_faces, sulci = mesh.surface(hemisphere)
    normals = face_normals(positions, all_faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    towards = normals @ eye
    front = towards > 0
    faces = all_faces[front]
    order = np.argsort((positions[faces] @ eye).mean(axis=1))
    faces, light = faces[order], (0.6 + 0.4 * towards[front])[order]
    grey = np.where(sulci, SULCUS, GYRUS)[faces].mean(axis=1)
    flat = np.stack([positions @ np.cross(up, eye), positions @ up], axis=1)
    return Side(hemisphere, faces, flat, light, np.repeat(grey[:, None], 3, axis=1))


def _draw_faces(ax: "Axes", side: Side, colour: Array) -> None:
    corners = side.flat[side.faces]
    ax.add_collection(
        PolyCollection(
            corners,  # type: ignore[arg-type] # stub: a sequence; an array is faster
            facecolors=colour * side.light[:, None],
            edgecolors="face",
            linewidths=0.2,
            rasterized=True,
        ),
        autolim=False,  # slow: it loops over all faces
    )
    ax.update_datalim(corners.reshape(-1, 2))
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.axis("off")


def normals_at(mesh: CortexMesh, hemisphere: int) -> Array:
    """Unit vertex normals ``(N, 3)`` of one hemisphere. Its first vertices are the sources."""
    positions, faces, _ = mesh.surface(hemisphere)
    return vertex_normals(positions, faces)


def _facing(sources: NDArray[np.int64], mesh: CortexMesh, view: str) -> Array:
    """Cosine between the cortex normal and the viewer; -1 for the other hemisphere."""
    hemisphere, eye, _ = VIEWS[view]
    own, vertex = mesh.places(sources)
    cosine = np.full(len(sources), -1.0)
    here = own == hemisphere
    cosine[here] = normals_at(mesh, hemisphere)[vertex[here]] @ np.array(eye)
    return cosine


def _draw_rings(ax: "Axes", points: Array, numbers: NDArray[np.int64] | None) -> None:
    x, y = points.T
    ax.scatter(x, y, s=70, facecolors="none", edgecolors=RING, linewidths=1.6, zorder=3)
    for point, number in zip(points, () if numbers is None else numbers, strict=False):
        ax.annotate(str(number + 1), point, (5, 5), **LABEL)


def best_views(peak: int, mesh: CortexMesh, n_views: int = 2) -> list[str]:
    """Views in which a source is most visible, best first."""
    facing = {v: _facing(np.array([peak]), mesh, v)[0] for v in VIEWS}
    return sorted(VIEWS, key=lambda view: -facing[view])[:n_views]


def paired_views(peak: int, mesh: CortexMesh) -> list[str]:
    """The two views in which a source is most visible, then the same of the other hemisphere."""
    first = best_views(peak, mesh)
    other = {"left": "right", "right": "left"}
    return [*first, *(f"{other[v.split()[0]]} {v.split()[1]}" for v in first)]


def covering_views(sources: NDArray[np.int64], mesh: CortexMesh, n_views: int = 4) -> list[str]:
    """Views that together show all sources best, chosen one after the other."""
    facing = {view: _facing(sources, mesh, view) for view in VIEWS}
    best, chosen = np.zeros(len(sources)), list[str]()
    while len(chosen) < n_views:
        others = [view for view in VIEWS if view not in chosen]
        chosen.append(max(others, key=lambda view: np.maximum(best, facing[view]).sum()))
        best = np.maximum(best, facing[chosen[-1]])
    return chosen


def draw_projections(
    figure: "SubFigure",
    values: Array,
    positions: Array,
    marks: NDArray[np.int64],
    label: str = "|moment| (nAm)",
) -> None:
    """Draw magnitudes in three orthogonal projections, for sources without a display mesh.

    Args:
        figure: Figure to draw in.
        values: Magnitudes at the sources ``(S,)``, A m.
        positions: Source positions ``(S, 3)``, m, head frame.
        marks: Indices of sources to mark with a numbered ring.
        label: Label of the colours, in units of 1e-9.

    """
    strongest = 1e9 * max(float(values.max()), 1e-30)
    order = np.argsort(values)  # the strongest on top
    active = order[1e9 * values[order] > THRESHOLD * strongest]
    axes = figure.subplots(2, 2).ravel()
    for ax, (title, plane) in zip(axes, PLANES.items(), strict=False):
        points = 1e3 * positions[:, plane]
        ax.scatter(*points.T, color=str(GYRUS), s=3, linewidths=0, rasterized=True)
        dots = ax.scatter(
            *points[active].T,
            c=1e9 * values[active],
            s=16,
            cmap="inferno",
            vmin=0,
            vmax=1.1 * strongest,
            linewidths=0,
        )
        _draw_rings(ax, points[marks], np.arange(len(marks)))
        ax.set(xlabel=f"{AXES[plane[0]]} (mm)", ylabel=f"{AXES[plane[1]]} (mm)", aspect="equal")
        ax.set_title(title, fontsize=9)
    axes[3].axis("off")
    figure.colorbar(dots, ax=axes[3], location="left", label=label)
