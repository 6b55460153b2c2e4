"""Builds the template heads: surfaces, three-layer BEM (MNE + OpenMEEG), lead-field family.

Offline and reproducible: ``deepesi head build`` or ``python -m deepesi.physics.bem``. Sources of
the anatomy: fsaverage5 cortex as nilearn ships it; scalp, inner skull, fiducials and transform of
fsaverage as MNE-Python ships them. Neither ships an outer skull, so one is put between the inner
skull and the scalp.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, cKDTree

from deepesi.physics.family import LeadFieldFamily, chebyshev_nodes, compress
from deepesi.physics.graph import adjacency, face_normals, is_inside, vertex_normals
from deepesi.physics.head import SourceSpace
from deepesi.physics.montage import electrode_info, project_to_mesh
from deepesi.physics.optional import require
from deepesi.physics.template import DisplayMesh, Template, save_template

Array = NDArray[np.float64]
Faces = NDArray[np.int64]

log = logging.getLogger(__name__)

#: Vertices per hemisphere of the nested icosahedral subdivisions of fsaverage5.
ICO_VERTICES = {"ico1": 42, "ico2": 162, "ico3": 642, "ico4": 2562}
CONDUCTIVITY_RANGE = (0.002, 0.03)
SCALP_CONDUCTIVITY, BRAIN_CONDUCTIVITY = 0.33, 0.33
SOURCE_DEPTH = 0.002  # least distance of a source from the inner skull, m
SKULL_THICKNESS = (0.0035, 0.008)  # bounds of the skull made here, m
LOWEST_ELECTRODE = -0.06  # electrodes lie above this height in the head frame, m
MRI_FRAME = 5  # FIFFV_COORD_MRI, the FIFF constant of the MRI (surface RAS) frame


@dataclass(frozen=True)
class Anatomy:
    """Surfaces in the MNE head frame, m: ``(vertices, faces)`` pairs, and the cortex."""

    scalp: tuple[Array, Faces]
    outer_skull: tuple[Array, Faces]
    inner_skull: tuple[Array, Faces]
    space: SourceSpace
    source_pos: Array
    source_normals: Array
    source_mni: Array
    display: DisplayMesh
    n_moved: int


def ico_faces(sphere: Array, n_vertices: int) -> Faces:
    """Triangles among the first vertices of a nested icosahedral sphere, counter-clockwise."""
    points = np.asarray(sphere[:n_vertices], dtype=np.float64)
    faces = np.asarray(ConvexHull(points).simplices, dtype=np.int64)
    inward = (face_normals(points, faces) * points[faces].mean(axis=1)).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return np.asarray(faces[np.lexsort(faces.T)])


def outer_skull(inner: tuple[Array, Faces], scalp: Array) -> Array:
    """Vertices of an outer skull: half-way to the scalp, 3.5-8 mm thick, smooth.

    Thickness of adult skulls: 5.97 ± 1.19 mm (Antonakakis et al. 2020,
    doi:10.1016/j.neuroimage.2020.117353). Ours follows the space between the two surfaces.
    """
    vertices, faces = inner
    gap, _ = cKDTree(scalp).query(vertices)
    links = adjacency(faces, len(vertices))
    mean = 1 / np.asarray(links.sum(axis=1)).ravel()
    thickness, normals = np.clip(0.5 * gap, *SKULL_THICKNESS), vertex_normals(vertices, faces)
    for _ in range(3):
        thickness = 0.5 * thickness + 0.5 * mean * (links @ thickness)
        normals = normals + mean[:, None] * (links @ normals)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.asarray(vertices + thickness[:, None] * normals)


def move_inside(points: Array, vertices: Array, faces: Faces) -> tuple[Array, int]:
    """Points brought to at least 2 mm inside a closed surface, and how many had to move."""
    points, moved = points.copy(), np.zeros(len(points), dtype=bool)
    inward = -vertex_normals(vertices, faces)
    for _ in range(50):
        feet = project_to_mesh(points, vertices, faces)
        near = (feet.distances < SOURCE_DEPTH) | ~is_inside(points, vertices, faces)
        if not near.any():
            return points, int(moved.sum())
        moved |= near
        direction = np.einsum("pk,pki->pi", feet.weights, inward[feet.vertices])
        points[near] = feet.positions[near] + 1.05 * SOURCE_DEPTH * direction[near]
    raise RuntimeError(f"move_inside: {int(near.sum())} sources could not be moved inside.")


def read_anatomy(spacing: str, skull_spacing: str) -> Anatomy:
    """The fsaverage anatomy at a source spacing, with skull surfaces of another."""
    mne = require("mne", "head", "read the fsaverage surfaces")
    require("nilearn", "head", "read the fsaverage5 cortex")
    from mne.transforms import apply_trans, invert_transform
    from nilearn.datasets import load_fsaverage

    folder = Path(str(mne.__file__)).parent / "data" / "fsaverage"
    mri_head = invert_transform(mne.read_trans(folder / "fsaverage-trans.fif"))
    scalp = mne.read_bem_surfaces(folder / "fsaverage-head.fif", verbose="error")[0]
    inner = mne.read_bem_surfaces(folder / "fsaverage-inner_skull-bem.fif", verbose="error")[0]
    fsaverage = load_fsaverage("fsaverage5")
    hemispheres = ("left", "right")
    mesh = {
        kind: [np.asarray(fsaverage[kind].parts[h].coordinates, np.float64) for h in hemispheres]
        for kind in ("white_matter", "inflated", "sphere")
    }
    sphere = mesh["sphere"][0]
    full_faces = ico_faces(sphere, len(sphere))

    n_skull = ICO_VERTICES[skull_spacing]
    inner_pos = apply_trans(mri_head, inner["rr"][:n_skull])
    skull_faces = ico_faces(sphere, n_skull)
    scalp_pos = apply_trans(mri_head, scalp["rr"])

    n = ICO_VERTICES[spacing]
    faces = ico_faces(sphere, n)
    # Normals come from the full-resolution white surface, as in MNE without cps.
    normals = np.concatenate([vertex_normals(w, full_faces)[:n] for w in mesh["white_matter"]])
    white = np.concatenate([w[:n] for w in mesh["white_matter"]]) / 1e3
    source_pos, n_moved = move_inside(apply_trans(mri_head, white), inner_pos, skull_faces)
    foot = project_to_mesh(sphere / 100, sphere[:n] / 100, faces)
    numbers = np.arange(n)
    return Anatomy(
        scalp=(scalp_pos, np.asarray(scalp["tris"], np.int64)),
        outer_skull=(outer_skull((inner_pos, skull_faces), scalp_pos), skull_faces),
        inner_skull=(inner_pos, skull_faces),
        space=SourceSpace(
            f"fsaverage-{spacing}", (numbers, numbers), np.concatenate([faces, faces + n])
        ),
        source_pos=source_pos,
        source_normals=apply_trans(mri_head, normals, move=False),
        source_mni=white * 1e3,
        display=DisplayMesh(
            positions=np.stack([m - m.mean(axis=0) for m in mesh["inflated"]]) / 1e3,
            faces=full_faces,
            sulci=np.stack(
                [np.asarray(d) > 0 for d in _sulcal_depth(hemispheres)],
            ),
            source_index=foot.vertices,
            source_weight=foot.weights,
        ),
        n_moved=n_moved,
    )


def _sulcal_depth(hemispheres: tuple[str, str]) -> list[Array]:
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_data

    paths = fetch_surf_fsaverage("fsaverage5")
    return [np.asarray(load_surf_data(paths[f"sulc_{h}"]), np.float64) for h in hemispheres]


def solve(anatomy: Anatomy, conductivity: float, electrodes: Array) -> Array:
    """Fresh OpenMEEG solution: fixed-orientation lead field ``(C, S)``, V/(A m), any reference.

    Args:
        anatomy: Surfaces and sources.
        conductivity: Skull conductivity, S/m.
        electrodes: On the scalp ``(C, 3)``, m, head frame.

    """
    mne = require("mne", "head", "solve the BEM")
    require("openmeeg", "head", "solve the BEM")
    from mne.surface import complete_surface_info

    layers = [
        (anatomy.scalp, 4, SCALP_CONDUCTIVITY),
        (anatomy.outer_skull, 3, conductivity),
        (anatomy.inner_skull, 1, BRAIN_CONDUCTIVITY),
    ]
    # Surfaces are given in the head frame; MNE wants them labelled MRI, so that frame and the
    # head frame coincide here and the transform between them is the identity.
    surfaces: list[Any] = [
        complete_surface_info(
            {"rr": rr, "tris": tris, "np": len(rr), "ntri": len(tris), "id": number,
             "sigma": sigma, "coord_frame": np.array(MRI_FRAME)},
            copy=False, verbose="error",
        )
        for (rr, tris), number, sigma in layers
    ]  # fmt: skip
    bem = mne.make_bem_solution(surfaces, solver="openmeeg", verbose="error")
    names = [f"E{i}" for i in range(len(electrodes))]
    info = electrode_info(names, electrodes)
    src = mne.setup_volume_source_space(
        pos={"rr": anatomy.source_pos, "nn": anatomy.source_normals}, verbose="error"
    )
    forward = mne.make_forward_solution(
        info, mne.Transform("head", "mri"), src, bem, meg=False, mindist=0, verbose="error"
    )
    if forward["nsource"] != len(anatomy.source_pos):
        raise RuntimeError(
            f"solve: MNE kept {forward['nsource']} of {len(anatomy.source_pos)} sources; the "
            "others lie outside the inner skull."
        )
    gain = forward["sol"]["data"].reshape(len(names), -1, 3)
    return np.asarray(np.einsum("csi,si->cs", gain, anatomy.source_normals))


def electrode_region(scalp: tuple[Array, Faces]) -> tuple[Array, Faces]:
    """The part of the scalp where electrodes can lie: vertices and faces."""
    vertices, faces = scalp
    kept_faces = faces[(vertices[faces][..., 2] > LOWEST_ELECTRODE).all(axis=1)]
    kept, renumbered = np.unique(kept_faces, return_inverse=True)
    return vertices[kept], renumbered.reshape(-1, 3)


def build_steps(
    spacing: str, skull_spacing: str, n_nodes: int, rank: int
) -> Iterator[str | Template]:
    """Build a template, yielding a line before each slow step and the template at the end."""
    yield "reading the fsaverage surfaces"
    anatomy = read_anatomy(spacing, skull_spacing)
    scalp_pos, scalp_faces = electrode_region(anatomy.scalp)
    nodes = chebyshev_nodes(*CONDUCTIVITY_RANGE, n_nodes)
    potentials = []
    for number, node in enumerate(nodes, start=1):
        yield f"BEM {number} of {n_nodes}: skull conductivity {1e3 * node:.2f} mS/m"
        potentials.append(solve(anatomy, float(node), scalp_pos))
    yield "compressing the lead fields"
    scalp_modes, source_modes = compress(np.stack(potentials), rank)
    yield Template(
        family=LeadFieldFamily(
            scalp_pos, scalp_faces, nodes, CONDUCTIVITY_RANGE, scalp_modes, source_modes
        ),
        space=anatomy.space,
        source_pos=anatomy.source_pos,
        source_normals=anatomy.source_normals,
        source_mni=anatomy.source_mni,
        display=anatomy.display,
        n_moved=anatomy.n_moved,
        fingerprint="",
    )


def build_template(
    path: Path,
    spacing: str = "ico3",
    skull_spacing: str = "ico3",
    n_nodes: int = 5,
    rank: int = 300,
) -> str:
    """Build a template head, write it to ``path`` (.npz) and return its fingerprint.

    Args:
        path: Where to write; nothing is written unless the whole build succeeds.
        spacing: Source spacing, a key of `ICO_VERTICES`.
        skull_spacing: Resolution of the skull surfaces, a key of `ICO_VERTICES`.
        n_nodes: Chebyshev nodes in log skull conductivity.
        rank: Modes shared by all nodes, at most the number of sources.

    Raises:
        ValueError: An unknown spacing.

    """
    for name in (spacing, skull_spacing):
        if name not in ICO_VERTICES:
            raise ValueError(f"build_template: unknown spacing {name!r}, one of {[*ICO_VERTICES]}.")
    progress = require("rich.progress", "head", "show progress")
    with progress.Progress(
        *progress.Progress.get_default_columns(), progress.TimeElapsedColumn()
    ) as bar:
        task = bar.add_task("building", total=n_nodes + 2)
        for step in build_steps(spacing, skull_spacing, n_nodes, rank):
            if isinstance(step, Template):
                return save_template(path, step)
            bar.update(task, description=step, advance=1)
    raise RuntimeError("build_template: the build ended without a template.")


if __name__ == "__main__":
    target = Path("fsaverage-ico3.npz")
    print(f"{target}: fingerprint {build_template(target)}")
