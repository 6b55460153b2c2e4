"""Maps on the inflated cortex, drawn with matplotlib alone."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from deepesi.physics.graph import face_normals, vertex_normals
from deepesi.physics.template import DisplayMesh

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

#: View name to the direction towards the eye and the direction up, head frame.
VIEWS = {
    "left lateral": (0, (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "right lateral": (1, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "left medial": (0, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "right medial": (1, (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "left posterior": (0, (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
    "right posterior": (1, (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
}
GYRUS, SULCUS = 0.82, 0.66
#: Values below this share of the maximum leave the cortex bare.
THRESHOLD = 0.25


def draw_cortex(
    ax: "Axes",
    values: Array,
    mesh: DisplayMesh,
    view: str,
    maximum: float,
    marks: NDArray[np.int64] | None = None,
) -> None:
    """Draw magnitudes on one hemisphere.

    Args:
        ax: Where to draw; its axes are switched off.
        values: Magnitudes at the sources ``(S,)``, not negative.
        mesh: The cortex.
        view: A key of `VIEWS`.
        maximum: Value that gets the strongest colour.
        marks: Numbers of sources to mark with a ring (true peaks), if in this view's hemisphere.

    """
    hemisphere, eye, up = VIEWS[view]
    eye, up = np.array(eye), np.array(up)
    right = np.cross(up, eye)
    positions = mesh.positions[hemisphere]
    normals = face_normals(positions, mesh.faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    towards = normals @ eye
    front = towards > 0
    faces = mesh.faces[front]
    order = np.argsort((positions[faces] @ eye).mean(axis=1))
    faces, light = faces[order], (0.6 + 0.4 * towards[front])[order]

    level = (
        mesh.interpolate(values)[hemisphere] / maximum if maximum > 0 else np.zeros(len(positions))
    )
    level = np.clip(level[faces].mean(axis=1), 0, 1)
    grey = np.where(mesh.sulci[hemisphere], SULCUS, GYRUS)[faces].mean(axis=1)
    colour = np.repeat(grey[:, None], 3, axis=1)
    # The colour fades in above the threshold, so that no edge is drawn where there is none.
    opacity = np.clip((level - THRESHOLD) / 0.15, 0, 1)[:, None]
    colour = opacity * colormaps["inferno"](0.25 + 0.7 * level)[:, :3] + (1 - opacity) * colour
    flat = np.stack([positions @ right, positions @ up], axis=1)
    ax.add_collection(
        PolyCollection(
            list(flat[faces]),
            facecolors=colour * light[:, None],
            edgecolors="face",
            linewidths=0.2,
            rasterized=True,
        )
    )
    if marks is not None and len(marks):
        n_sources = len(values) // 2
        own = marks[(marks // n_sources) == hemisphere] - hemisphere * n_sources
        visible = own[normals_at(mesh, hemisphere)[own] @ eye > 0.25]
        ax.scatter(
            *flat[visible].T,
            s=70,
            facecolors="none",
            edgecolors="#00e5ff",
            linewidths=1.6,
            zorder=3,
        )
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.axis("off")


def normals_at(mesh: DisplayMesh, hemisphere: int) -> Array:
    """Unit vertex normals ``(N, 3)`` of one hemisphere; sources are its first vertices."""
    return vertex_normals(mesh.positions[hemisphere], mesh.faces)


def best_views(peak: int, n_sources: int, mesh: DisplayMesh, n_views: int = 2) -> list[str]:
    """The views of the hemisphere of a source that show it most directly."""
    hemisphere = peak // (n_sources // 2)
    normal = normals_at(mesh, hemisphere)[peak - hemisphere * (n_sources // 2)]
    own = [v for v, (h, _, _) in VIEWS.items() if h == hemisphere]
    return sorted(own, key=lambda v: -float(normal @ np.array(VIEWS[v][1])))[:n_views]
