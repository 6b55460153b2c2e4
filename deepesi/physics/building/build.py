"""Building of heads: a boundary element solution at every node of the tissue grid, compressed.

Offline and reproducible: ``deepesi head build``. Every solved node is stored in a folder next to
the output file, so that an interrupted build can be resumed.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.building.anatomy import Anatomy, Surface
from deepesi.physics.building.bem import BoundaryElements, right_hand_sides
from deepesi.physics.building.compression import compress
from deepesi.physics.building.warps import read_member
from deepesi.physics.family import TissueGrid, Tissues
from deepesi.physics.head_names import head_name
from deepesi.physics.scalp_potential import ScalpPotentialFamily
from deepesi.physics.template import Template, save_template
from deepesi.utils.cache import cache_folder
from deepesi.utils.files import atomic
from deepesi.utils.optional import require

Array = NDArray[np.float64]

LOWEST_ELECTRODE = -0.06  # height of the lowest electrodes, m, head frame


def electrode_region(scalp: Surface) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part of the scalp where electrodes can be: vertex indices, and faces between them."""
    vertices, faces = scalp
    kept_faces = faces[(vertices[faces][..., 2] > LOWEST_ELECTRODE).all(axis=1)]
    kept, renumbered = np.unique(kept_faces, return_inverse=True)
    return kept, renumbered.reshape(-1, 3)


def geometry_digest(anatomy: Anatomy, grid: TissueGrid) -> "hashlib._Hash":
    """SHA-256 of grid, surfaces, skull and eyes, on which nodes depend; not of the sources."""
    digest = hashlib.sha256(repr(grid).encode())
    skull = vars(anatomy.skull).values()
    for part in (*anatomy.scalp, *anatomy.inner_skull, *skull, anatomy.eyes):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest


@dataclass(frozen=True)
class NodeFiles(Sequence[Array]):
    """Solved nodes of one geometry on disk.

    The name of the folder has a hash of geometry and grid, so that no other nodes are read.

    Attributes:
        folder: Folder of the files.
        nodes: Tissues of every node.

    """

    folder: Path
    nodes: list[Tissues]

    @classmethod
    def beside(cls, path: Path, anatomy: Anatomy, grid: TissueGrid) -> "NodeFiles":
        """Nodes of a geometry, in a folder next to the output file."""
        folder = path.parent / f".nodes-{geometry_digest(anatomy, grid).hexdigest()[:16]}"
        return cls(folder, grid.nodes)

    def path(self, number: int, kind: str) -> Path:
        """File of a node; `kind` is ``"brain"`` or ``"eyes"``."""
        return self.folder / f"{kind}-{number:03d}.npy"

    def solve(self, anatomy: Anatomy) -> Iterator[str]:
        """Solve the missing nodes; yield a text after each node."""
        vertices, _ = electrode_region(anatomy.scalp)
        elements, thickness = None, None
        for number, node in enumerate(self.nodes):
            if not (self.path(number, "brain").is_file() and self.path(number, "eyes").is_file()):
                if elements is None or thickness != node.skull_thickness:
                    elements = BoundaryElements.assemble(anatomy, node.skull_thickness)
                    thickness = node.skull_thickness
                brain, eyes = elements.adjoint(
                    node.skull_conductivity, node.scalp_conductivity, vertices
                )
                for kind, values in (("brain", brain), ("eyes", eyes)):
                    with atomic(self.path(number, kind)) as partial:
                        np.save(partial, values.astype(np.float32), allow_pickle=False)
            yield f"BEM {number + 1}/{len(self.nodes)}"

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, number: int) -> Array:  # type: ignore[override] # no slices
        """Adjoint matrix of a node, for `compress`."""
        if number >= len(self.nodes):
            raise IndexError(number)
        return np.asarray(np.load(self.path(number, "brain"), allow_pickle=False))

    def eyes(self) -> list[Array]:
        """Potentials of the eye dipoles at every node."""
        return [
            np.load(self.path(i, "eyes"), allow_pickle=False).astype(np.float64)
            for i in range(len(self.nodes))
        ]


def build_steps(
    nodes: NodeFiles,
    name: str,
    anatomy: Anatomy,
    grid: TissueGrid,
    n_patterns: int,
    rank: int,
    warp_seed: int | None = None,
) -> Iterator[str | Template]:
    """Build a head; yield a text after each slow step and the head at the end."""
    yield from nodes.solve(anatomy)
    vertices, faces = electrode_region(anatomy.scalp)
    sources = right_hand_sides(anatomy)
    n_patterns, rank = min(n_patterns, len(vertices)), min(rank, *sources.shape)
    reduced = compress(nodes, sources, nodes.eyes(), grid, n_patterns, rank)
    scalp_pos = anatomy.scalp[0][vertices]
    yield Template(
        name=name,
        family=ScalpPotentialFamily(scalp_pos, faces, grid.bounds, **reduced._asdict()),
        space=anatomy.space,
        source_pos=anatomy.source_pos,
        source_normals=anatomy.source_normals,
        source_mni=anatomy.source_mni,
        is_cortex=anatomy.is_cortex,
        display=anatomy.display,
        n_moved=anatomy.n_moved,
        warp_seed=warp_seed,
        mri_head=anatomy.mri_head,
    )


def _check_room(nodes: NodeFiles, anatomy: Anatomy) -> None:
    """Refuse a disk without enough free space before the long computation."""
    nodes.folder.mkdir(parents=True, exist_ok=True)
    inner, faces = (len(part) for part in anatomy.inner_skull)
    each = 4 * len(electrode_region(anatomy.scalp)[0]) * (inner + faces)
    missing = sum(not nodes.path(i, "brain").is_file() for i in range(len(nodes)))
    needed, free = each * missing, shutil.disk_usage(nodes.folder).free
    if needed > free:
        raise OSError(
            f"head build: {nodes.folder} has {free / 1e6:.0f} MB free, the build needs "
            f"{needed / 1e6:.0f} MB. Free some space or build elsewhere (--out)."
        )


def build_head(
    path: Path,
    name: str,
    anatomy: Anatomy,
    grid: TissueGrid | None = None,
    n_patterns: int = 300,
    rank: int = 300,
    warp_seed: int | None = None,
    keep_nodes: bool = False,
) -> str:
    """Build a head with a progress bar, write it to ``path`` (.npz) and return the fingerprint.

    Args:
        path: Output file, written only if the whole build succeeds.
        name: Name of the head.
        anatomy: Surfaces, eyes and sources.
        grid: Grid of tissues to cover. Default: that of the packaged heads.
        n_patterns: Number of scalp patterns to keep.
        rank: Number of source modes to keep.
        warp_seed: Seed of a warped head.
        keep_nodes: Whether to keep the solved nodes on disk, for another source space.

    Raises:
        OSError: The disk is full. Solved nodes are kept; run the same command again to resume.

    """
    grid = grid or TissueGrid()
    nodes = NodeFiles.beside(path, anatomy, grid)
    _check_room(nodes, anatomy)
    progress = require("rich.progress", "head", "show progress")
    columns = (*progress.Progress.get_default_columns(), progress.TimeElapsedColumn())
    fingerprint = ""
    with progress.Progress(*columns) as bar:
        task = bar.add_task(f"{name}: assembling", total=int(np.prod(grid.n_nodes)) + 1)
        try:
            for step in build_steps(nodes, name, anatomy, grid, n_patterns, rank, warp_seed):
                if isinstance(step, Template):
                    fingerprint, step = save_template(path, step), "done"
                bar.update(task, description=f"{name}: {step}", advance=1)
        except OSError as error:
            raise OSError(
                f"head build: {path.parent} could not be written ({error}). Free some space there. "
                "Solved nodes are kept: run the same command again to resume."
            ) from error
    if not keep_nodes:
        shutil.rmtree(nodes.folder)
    return fingerprint


def build_members(
    warp_seed: int | None,
    spacings: Sequence[str],
    free_orientation: bool = False,
    folder: Path | None = None,
) -> list[tuple[Path, str]]:
    """Build the template head or a warped head with some source spacings from one BEM solution.

    Args:
        warp_seed: Seed of the warp. None: template head.
        spacings: Keys of `ICO_VERTICES` or `GRIDS`.
        free_orientation: Three components per source of a surface. Volumes always have three.
        folder: Output folder. Default: the cache of `load_template`.

    Returns:
        Path and fingerprint of every head.

    """
    written = []
    for number, spacing in enumerate(spacings, start=1):
        anatomy = read_member(warp_seed, spacing)
        if free_orientation:
            anatomy = replace(anatomy, space=replace(anatomy.space, n_orient=3))
        name = head_name(warp_seed, spacing, anatomy.space.n_orient)
        path = (folder or cache_folder()) / f"{name}.npz"
        more = number < len(spacings)
        fingerprint = build_head(path, name, anatomy, warp_seed=warp_seed, keep_nodes=more)
        written.append((path, fingerprint))
    return written
