"""Anatomy of a head: scalp, outer skull of variable thickness, inner skull, eyes and sources.

The template head is fsaverage: cortex from nilearn; scalp, inner skull, fiducials and transform
from MNE-Python. Neither has an outer skull, so one is computed between inner skull and scalp.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from deepesi.physics.graph import (
    adjacency,
    face_normals,
    is_inside,
    mesh_edges,
    vertex_normals,
)
from deepesi.physics.head import SourceSpace
from deepesi.physics.scalp import project_to_mesh
from deepesi.physics.template import DisplayMesh
from deepesi.utils.optional import require

Array = NDArray[np.float64]
Faces = NDArray[np.int64]
Surface = tuple[Array, Faces]

#: Vertices per hemisphere of the nested icosahedral subdivisions of fsaverage5.
ICO_VERTICES = {"ico1": 42, "ico2": 162, "ico3": 642, "ico4": 2562}
#: Edge of the volume grids, m.
GRIDS = {"vol7": 0.007, "vol14": 0.014}
SOURCE_DEPTH = 0.002  # smallest distance of a source from the inner skull, m
MIN_SCALP_THICKNESS = 0.0015  # smallest thickness of the scalp, m
MEDIAL_WALL = 1.0  # smallest thickness of the average cortex, mm
CALVARIA = -0.02  # mean skull thickness is computed above this height, m, head frame
#: Centres of the eyeballs in the MNE head frame of fsaverage, m.
EYES = np.array([[-0.032, 0.085, -0.008], [0.032, 0.085, -0.008]])


@dataclass(frozen=True)
class Skull:
    """Outer skull over an inner skull, for any mean thickness.

    Attributes:
        inner: Points of the inner skull ``(M, 3)``, m, head frame.
        directions: Outward unit vectors ``(M, 3)``.
        relative: Local thickness divided by the mean thickness ``(M,)``.
        max_thickness: Largest local thickness below the scalp ``(M,)``, m.
        faces: Triangles ``(F, 3)``.

    """

    inner: Array
    directions: Array
    relative: Array
    max_thickness: Array
    faces: Faces

    def surface(self, thickness: float) -> Surface:
        """Outer skull with a mean thickness, m; a smooth limit keeps it below the scalp."""
        wanted = thickness * self.relative
        local = wanted / (1 + (wanted / self.max_thickness) ** 6) ** (1 / 6)
        return self.inner + local[:, None] * self.directions, self.faces


@dataclass(frozen=True)
class Anatomy:
    """Surfaces and sources of a head; positions in m, MNE head frame.

    Attributes:
        scalp: Vertices and faces of the scalp.
        skull: Outer skull of variable thickness.
        inner_skull: Vertices and faces of the inner skull.
        eyes: Centres of the eyeballs ``(2, 3)``, or ``(0, 3)`` if unknown.
        space: Source space.
        source_pos: Source positions ``(S, 3)``.
        source_normals: Unit normals ``(S, 3)``; zero for a source that is not on a surface.
        source_mni: Source positions ``(S, 3)``, MNI305 mm; NaN if unknown.
        is_cortex: Whether a source can be active ``(S,)``; False on the medial wall.
        display: Mesh to draw on, if there is one.
        n_moved: Number of sources that were moved to 2 mm inside the inner skull.
        mri_head: Transform from MRI (surface RAS) to head frame, as in `Template`.

    """

    scalp: Surface
    skull: Skull
    inner_skull: Surface
    eyes: Array
    space: SourceSpace
    source_pos: Array
    source_normals: Array
    source_mni: Array
    is_cortex: NDArray[np.bool_]
    display: DisplayMesh | None
    n_moved: int
    mri_head: Array | None = None


def ico_faces(sphere: Array, n_vertices: int) -> Faces:
    """Triangles of the first vertices of a nested icosahedral sphere, counter-clockwise."""
    points = np.asarray(sphere[:n_vertices], dtype=np.float64)
    faces = np.asarray(ConvexHull(points).simplices, dtype=np.int64)
    inward = (face_normals(points, faces) * points[faces].mean(axis=1)).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return np.asarray(faces[np.lexsort(faces.T)])


def medial_wall(thickness: Array, faces: Faces) -> NDArray[np.bool_]:
    """Whether a vertex of a hemisphere is on the medial wall ``(N,)``.

    The medial wall is where the average cortex is thinner than 1 mm. Smoothing has made the border
    thicker, so two rings of neighbours are added. The result is 8 % of fsaverage, as in the label
    of FreeSurfer.
    """
    links = adjacency(mesh_edges(faces), len(thickness))
    wall = thickness < MEDIAL_WALL
    for _ in range(2):
        wall |= links @ wall.astype(float) > 0
    return np.asarray(wall)


def skull_between(inner: Surface, scalp: Surface) -> Skull:
    """Smooth outer skull half-way between inner skull and scalp.

    The thickness is limited to 3.5-8 mm before smoothing, because the scalp surface is far away at
    the face. It is then 0.5 to 1.2 times the mean thickness.
    """
    vertices, faces = inner
    gap = project_to_mesh(vertices, *scalp).distances
    links = adjacency(mesh_edges(faces), len(vertices))
    mean = 1 / np.asarray(links.sum(axis=1)).ravel()
    thickness, normals = np.clip(0.5 * gap, 0.0035, 0.008), vertex_normals(vertices, faces)
    for _ in range(3):
        thickness = 0.5 * thickness + 0.5 * mean * (links @ thickness)
        normals = normals + mean[:, None] * (links @ normals)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    relative = thickness / thickness[vertices[:, 2] > CALVARIA].mean()
    return Skull(vertices, normals, relative, gap - MIN_SCALP_THICKNESS, faces)


def move_inside(points: Array, vertices: Array, faces: Faces) -> tuple[Array, int]:
    """Move points to at least 2 mm inside a closed surface; also return how many were moved.

    Points outside or too near move towards the centre of the surface in steps of 0.5 mm.
    """
    points, moved = points.copy(), np.zeros(len(points), dtype=bool)
    middle = vertices.mean(axis=0)
    near = np.arange(len(points))
    for _ in range(200):
        distance = project_to_mesh(points[near], vertices, faces).distances
        near = near[(distance < SOURCE_DEPTH) | ~is_inside(points[near], vertices, faces)]
        if not len(near):
            return points, int(moved.sum())
        moved[near] = True
        inward = middle - points[near]
        points[near] += 0.0005 * inward / np.linalg.norm(inward, axis=1, keepdims=True)
    raise RuntimeError(f"move_inside: {len(near)} sources are 10 cm or more outside.")


def volume_grid(inner_skull: Surface, edge: float, depth: float = 0.005) -> tuple[Array, Faces]:
    """Points of a cubic grid inside a surface, and pairs ``(E, 2)`` of grid neighbours.

    Args:
        inner_skull: Closed surface.
        edge: Distance of neighbouring points, m.
        depth: Smallest distance from the surface, m, as in `mne.setup_volume_source_space`.

    """
    vertices, faces = inner_skull
    low, high = (np.round(f(vertices, axis=0) / edge).astype(int) for f in (np.min, np.max))
    axes = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = cells[is_inside(edge * cells, vertices, faces)]
    cells = cells[project_to_mesh(edge * cells, vertices, faces).distances > depth]
    number = {tuple(cell): i for i, cell in enumerate(cells.tolist())}
    pairs = [
        (i, number[neighbour])
        for (x, y, z), i in number.items()
        for neighbour in ((x + 1, y, z), (x, y + 1, z), (x, y, z + 1))
        if neighbour in number
    ]
    return edge * cells, np.array(pairs, dtype=np.int64)


#: Function from points (N, 3) in the head frame of fsaverage to points of another head.
PointMap = Callable[[Array], Array]


def _same(points: Array) -> Array:
    return points


def read_anatomy(
    spacing: str,
    skull_spacing: str = "ico3",
    warp: PointMap = _same,
    cortex: PointMap = _same,
    relative_thickness: Callable[[Array], Array] = lambda points: np.ones(len(points)),
) -> Anatomy:
    """Read the fsaverage anatomy, or a warped one, with a source spacing.

    Args:
        spacing: Key of `ICO_VERTICES` (cortex) or `GRIDS` (volume).
        skull_spacing: Resolution of the skull surfaces, a key of `ICO_VERTICES`.
        warp: Function applied to all surfaces and to the fiducials, which define the head frame.
        cortex: Function applied to the cortex before `warp`, to move it within the skull.
        relative_thickness: Function from points ``(N, 3)`` to a factor on the local skull
            thickness ``(N,)``.

    Raises:
        ValueError: The spacing is unknown.

    """
    for given, known in ((spacing, [*ICO_VERTICES, *GRIDS]), (skull_spacing, [*ICO_VERTICES])):
        if given not in known:
            raise ValueError(f"read_anatomy: unknown spacing {given!r}, expected one of {known}.")
    mne = require("mne", "head", "read the fsaverage surfaces")
    from mne.transforms import apply_trans, get_ras_to_neuromag_trans, invert_transform

    folder = Path(str(mne.__file__)).parent / "data" / "fsaverage"
    mri_head = invert_transform(mne.read_trans(folder / "fsaverage-trans.fif"))
    fiducials = mne.io.read_fiducials(folder / "fsaverage-fiducials.fif", verbose="error")[0]
    order = [next(f["r"] for f in fiducials if f["ident"] == i) for i in (2, 1, 3)]  # nasion first
    frame = get_ras_to_neuromag_trans(*warp(apply_trans(mri_head, np.array(order, float))))

    def to_head(mri: Array) -> Array:
        return np.asarray(apply_trans(frame, warp(apply_trans(mri_head, mri))))

    mesh = _fsaverage5()
    sphere = mesh["sphere"][0]
    full_faces = ico_faces(sphere, len(sphere))
    scalp = mne.read_bem_surfaces(folder / "fsaverage-head.fif", verbose="error")[0]
    inner = mne.read_bem_surfaces(folder / "fsaverage-inner_skull-bem.fif", verbose="error")[0]
    n_skull = ICO_VERTICES[skull_spacing]
    inner_skull = to_head(inner["rr"][:n_skull]), ico_faces(sphere, n_skull)
    scalp_surface = to_head(scalp["rr"]), np.asarray(scalp["tris"], np.int64)
    skull = skull_between(inner_skull, scalp_surface)
    relative = skull.relative * relative_thickness(skull.inner)
    relative = relative / relative[skull.inner[:, 2] > CALVARIA].mean()
    skull = Skull(skull.inner, skull.directions, relative, skull.max_thickness, skull.faces)
    eyes = np.asarray(apply_trans(frame, warp(EYES)))
    if spacing in GRIDS:
        # The warped grid of the template head, so that sources correspond between heads.
        template_skull = np.asarray(apply_trans(mri_head, inner["rr"][:n_skull]))
        grid, edges = volume_grid((template_skull, inner_skull[1]), GRIDS[spacing])
        pos = np.asarray(apply_trans(frame, warp(grid)))
        return Anatomy(
            scalp_surface,
            skull,
            inner_skull,
            eyes,
            space=SourceSpace(f"fsaverage-{spacing}", (np.arange(len(pos)),), edges, n_orient=3),
            source_pos=pos,
            source_normals=np.zeros_like(pos),
            source_mni=1e3 * apply_trans(invert_transform(mri_head), grid),
            is_cortex=np.ones(len(pos), dtype=bool),
            display=None,
            n_moved=0,
        )

    n = ICO_VERTICES[spacing]
    faces = ico_faces(sphere, n)
    head_white = [
        np.asarray(apply_trans(frame, warp(cortex(apply_trans(mri_head, w / 1e3)))))
        for w in mesh["white_matter"]
    ]
    # Normals of the full-resolution white surface, as in MNE without patch statistics.
    normals = np.concatenate([vertex_normals(w, full_faces)[:n] for w in head_white])
    white = np.concatenate([w[:n] for w in head_white])
    source_pos, n_moved = move_inside(white, *inner_skull)
    foot = project_to_mesh(sphere / 100, sphere[:n] / 100, faces)
    numbers = np.arange(n)
    return Anatomy(
        scalp_surface,
        skull,
        inner_skull,
        eyes,
        space=SourceSpace(
            f"fsaverage-{spacing}",
            (numbers, numbers),
            mesh_edges(np.concatenate([faces, faces + n])),
        ),
        source_pos=source_pos,
        source_normals=normals,
        source_mni=np.concatenate([w[:n] for w in mesh["white_matter"]]),
        is_cortex=np.concatenate([~medial_wall(t, full_faces)[:n] for t in mesh["thick"]]),
        display=DisplayMesh(
            positions=np.stack([m - m.mean(axis=0) for m in mesh["inflated"]]) / 1e3,
            faces=full_faces,
            sulci=np.stack([depth > 0 for depth in mesh["sulc"]]),
            source_index=foot.vertices,
            source_weight=foot.weights,
        ),
        n_moved=n_moved,
    )


def _fsaverage5() -> dict[str, list[Array]]:
    """White, inflated and spherical surface (mm), sulcal depth and thickness; left, right."""
    require("nilearn", "head", "read the fsaverage5 cortex")
    from nilearn.datasets import fetch_surf_fsaverage, load_fsaverage
    from nilearn.surface import load_surf_data

    fsaverage, paths = load_fsaverage("fsaverage5"), fetch_surf_fsaverage("fsaverage5")
    sides = ("left", "right")
    surfaces = {
        kind: [np.asarray(fsaverage[kind].parts[h].coordinates, np.float64) for h in sides]
        for kind in ("white_matter", "inflated", "sphere")
    }
    return surfaces | {
        kind: [np.asarray(load_surf_data(paths[f"{kind}_{h}"]), np.float64) for h in sides]
        for kind in ("sulc", "thick")
    }
