"""Three-layer boundary element method with many conductivities per geometry.

In the symmetric BEM (Kybic et al. 2005, doi:10.1109/TMI.2004.837363) every block of the matrix is
a function of geometry times a known factor of the conductivities. OpenMEEG assembles the matrix
once per geometry, with unit conductivities. For each conductivity the blocks are scaled and the
matrix is factorized. `solve` uses MNE and OpenMEEG only; tests compare with it.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve

from deepesi.physics.building.anatomy import Anatomy, Surface
from deepesi.physics.family import BRAIN_CONDUCTIVITY, NOMINAL, Tissues
from deepesi.physics.montage import eeg_info
from deepesi.utils.optional import require

Array = NDArray[np.float64]

MRI_FRAME = 5  # FIFFV_COORD_MRI, the FIFF constant of the MRI (surface RAS) frame


@dataclass(frozen=True)
class BoundaryElements:
    """Boundary element matrix of one geometry.

    Unknowns are the potential at the vertices of inner skull, outer skull and scalp, then the
    flux through the triangles of inner and outer skull.

    Attributes:
        matrix: Symmetric system matrix with unit conductivities ``(n, n)``.
        sizes: Numbers of vertices of the three surfaces, of triangles of inner and outer skull.
        eyes: Right-hand sides ``(n, 6)`` of unit dipoles at the eyes, in the scalp compartment
            with unit conductivity; no columns without eyes.

    """

    matrix: Array
    sizes: tuple[int, int, int, int, int]
    eyes: Array

    @classmethod
    def assemble(cls, anatomy: Anatomy, thickness: float) -> "BoundaryElements":
        """Assemble the matrix for a mean skull thickness, m."""
        om = require("openmeeg", "head", "solve the BEM")
        layers = [anatomy.inner_skull, anatomy.skull.surface(thickness), anatomy.scalp]
        geometry = _geometry(layers)
        matrix = np.asarray(om.Matrix(om.HeadMat(geometry)).array())
        eyes = _right_hand_sides(geometry, _dipoles(anatomy.eyes, None), "Scalp", len(matrix))
        (inner, f), (outer, g), (skin, _) = layers
        return cls(matrix, (len(inner), len(outer), len(skin), len(f), len(g)), eyes)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Index ranges of the unknowns, in the order of `sizes`."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return tuple(slice(a, b) for a, b in itertools.pairwise(ends))

    def adjoint(
        self, skull: float, scalp: float, vertices: NDArray[np.int64]
    ) -> tuple[Array, Array]:
        """Solve the adjoint problem: the potential at scalp vertices for any right-hand side.

        Args:
            skull: Conductivity of the skull, S/m. The brain has `BRAIN_CONDUCTIVITY`.
            scalp: Conductivity of the scalp, S/m.
            vertices: Indices of scalp vertices ``(N,)``.

        Returns:
            Matrix ``A`` ``(N, m)``: ``A @ right_hand_sides(...)`` is the potential of brain
            sources, V/(A m). Potential of the eye dipoles ``(N, 6)``, V/(A m). Any reference.

        """
        inner, outer, skin, inner_flux, outer_flux = self.blocks
        brain = BRAIN_CONDUCTIVITY
        matrix = self.matrix.copy()
        # In a block of one surface, the unit conductivities of both sides add up to 2.
        for block, factor in (
            (inner, (brain + skull) / 2),
            (outer, (skull + scalp) / 2),
            (skin, scalp),
            (inner_flux, (1 / brain + 1 / skull) / 2),
            (outer_flux, (1 / skull + 1 / scalp) / 2),
        ):
            matrix[block, block] *= factor
        for one, other, factor in (
            (inner, outer, skull),
            (outer, skin, scalp),
            (inner_flux, outer_flux, 1 / skull),
        ):
            matrix[one, other] *= factor
            matrix[other, one] *= factor
        unit = np.zeros((len(matrix), len(vertices)))
        unit[skin.start + vertices, np.arange(len(vertices))] = 1.0
        factors = lu_factor(matrix, overwrite_a=True, check_finite=False)
        columns = lu_solve(factors, unit, overwrite_b=True, check_finite=False)
        eyes = self.eyes.copy()
        eyes[outer_flux] /= scalp
        return columns[np.r_[inner, inner_flux]].T, columns.T @ eyes


def right_hand_sides(anatomy: Anatomy) -> Array:
    """Right-hand sides of all sources at the inner skull ``(m, D)``; all other rows are zero.

    One dipole of 1 A m per source along the normal, or three along x, y, z.
    """
    layers = [anatomy.inner_skull, anatomy.skull.surface(0.006), anatomy.scalp]
    normals = anatomy.source_normals if anatomy.space.n_orient == 1 else None
    dipoles = _dipoles(anatomy.source_pos, normals)
    vertices, faces = (len(part) for part in anatomy.inner_skull)
    all_vertices = sum(len(layer[0]) for layer in layers)
    n = all_vertices + faces + len(layers[1][1])
    rows = np.r_[:vertices, all_vertices : all_vertices + faces]
    sides = _right_hand_sides(_geometry(layers), dipoles, "Brain", n)[rows]
    sides[vertices:] /= BRAIN_CONDUCTIVITY
    return sides


def _geometry(layers: list[Surface]) -> Any:
    om = require("openmeeg", "head", "solve the BEM")
    meshes = [(vertices, faces[:, [1, 0, 2]]) for vertices, faces in layers]
    return om.make_nested_geometry(meshes, [1.0, 1.0, 1.0])


def _dipoles(positions: Array, normals: Array | None) -> Array:
    """Positions and moments ``(D, 6)``; without normals three per source, along x, y, z."""
    if normals is not None:
        return np.hstack([positions, normals])
    return np.hstack([np.repeat(positions, 3, axis=0), np.tile(np.eye(3), (len(positions), 1))])


def _right_hand_sides(geometry: Any, dipoles: Array, domain: str, n: int) -> Array:
    om = require("openmeeg", "head", "solve the BEM")
    if not len(dipoles):
        return np.zeros((n, 0))
    sources = om.Matrix(np.asfortranarray(dipoles))
    return np.array(om.DipSourceMat(geometry, sources, domain).array())


def solve(anatomy: Anatomy, electrodes: Array, tissues: Tissues = NOMINAL) -> Array:
    """Lead field from MNE and OpenMEEG: ``(C, S)`` or ``(C, 3 S)``, V/(A m), any reference.

    Args:
        anatomy: Surfaces and sources.
        electrodes: Electrode positions on the scalp ``(C, 3)``, m, head frame.
        tissues: Conductivities and skull thickness.

    """
    mne = require("mne", "head", "solve the BEM")
    require("openmeeg", "head", "solve the BEM")
    from mne.surface import complete_surface_info

    layers: list[tuple[Surface, int, float]] = [
        (anatomy.scalp, 4, tissues.scalp_conductivity),
        (anatomy.skull.surface(tissues.skull_thickness), 3, tissues.skull_conductivity),
        (anatomy.inner_skull, 1, tissues.brain_conductivity),
    ]
    # Surfaces are in the head frame. MNE requires the label MRI, so both frames are the same here
    # and the transform between them is the identity.
    surfaces: list[Any] = [
        complete_surface_info(
            {
                "rr": rr,
                "tris": tris,
                "np": len(rr),
                "ntri": len(tris),
                "id": number,
                "sigma": sigma,
                "coord_frame": np.array(MRI_FRAME),
            },
            copy=False,
            verbose="error",
        )
        for (rr, tris), number, sigma in layers
    ]
    bem = mne.make_bem_solution(surfaces, solver="openmeeg", verbose="error")
    names = [f"E{i}" for i in range(len(electrodes))]
    info = eeg_info(names, electrodes)
    src = mne.setup_volume_source_space(
        pos={
            "rr": anatomy.source_pos,
            "nn": np.tile([0.0, 0.0, 1.0], (len(anatomy.source_pos), 1)),
        },
        verbose="error",
    )
    forward = mne.make_forward_solution(
        info, mne.Transform("head", "mri"), src, bem, meg=False, mindist=0, verbose="error"
    )
    if forward["nsource"] != len(anatomy.source_pos):
        raise RuntimeError(
            f"solve: MNE used {forward['nsource']} of {len(anatomy.source_pos)} sources; the "
            "others are outside the inner skull."
        )
    gain = np.asarray(forward["sol"]["data"])
    if anatomy.space.n_orient == 3:
        return gain
    by_source = gain.reshape(len(names), -1, 3)
    return np.asarray(np.einsum("csi,si->cs", by_source, anatomy.source_normals))
