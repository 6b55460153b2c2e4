r"""Magnetic field of dipoles in a sphere, the reference for tests: an exact closed form.

Outside any spherically symmetric conductor, with positions from its centre, a source ``x`` of
moment ``m`` has the field::

    B(r) = μ0 / (4π F²) (F m × x - (m × x · r) ∇F)
    F = a (r a + r² - x · r),   a = r - x

Radii and conductivities of the shells do not matter, and radial sources have no field.

Source: Sarvas 1987, doi:10.1088/0031-9155/32/1/004. Difference: none.
"""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.magnetic import Coils

Array = NDArray[np.float64]

#: Permeability of vacuum over 4π, T m/A.
MU0_4PI = 1e-7


def magnetic_field(center: Array, points: Array, source_pos: Array) -> Array:
    """Magnetic field of unit dipoles in a sphere ``(Q, 3, 3 S)``, T/(A m).

    Args:
        center: Centre of the sphere ``(3,)``, m.
        points: Points outside the sphere ``(Q, 3)``, m.
        source_pos: Sources inside ``(S, 3)``, m.

    Returns:
        Component ``i`` at point ``q`` of source ``s`` along axis ``o``: ``[q, i, 3 s + o]``.

    Raises:
        ValueError: A point is nearer to the centre than a source.

    """
    r, x = points - center, source_pos - center
    if np.linalg.norm(r, axis=1).min() <= np.linalg.norm(x, axis=1).max(initial=0.0):
        raise ValueError(
            "magnetic_field: a point lies nearer to the centre than a source, but points must be "
            "outside the conductor and sources inside. Check that both are in metres and in the "
            "frame of the centre."
        )
    a = r[:, None] - x
    a_norm, r_norm = np.linalg.norm(a, axis=2), np.linalg.norm(r, axis=1)[:, None]
    ar = np.einsum("qsi,qi->qs", a, r)
    f = a_norm * (r_norm * a_norm + r_norm**2 - r @ x.T)
    along_r = a_norm**2 / r_norm + ar / a_norm + 2 * (a_norm + r_norm)
    along_x = a_norm + 2 * r_norm + ar / a_norm
    gradient = along_r[..., None] * r[:, None] - along_x[..., None] * x
    moments = np.cross(np.eye(3)[None], x[:, None])  # (S, axis, 3): m × x
    along = np.einsum("soi,qi->qso", moments, r)
    field = f[:, :, None, None] * moments - along[..., None] * gradient[:, :, None]
    field *= MU0_4PI / f[:, :, None, None] ** 2
    return np.asarray(field.transpose(0, 3, 1, 2).reshape(len(r), 3, -1))


def magnetic_leadfield(center: Array, coils: Coils, source_pos: Array) -> Array:
    """Lead field ``(C, 3 S)`` of coils around a sphere, T/(A m) or T/(A m²).

    Column ``3 s + o`` is source ``s`` along axis ``o`` as in MNE; other args and errors as in
    `magnetic_field`.
    """
    field = magnetic_field(center, coils.points, source_pos)
    return coils.sums(np.einsum("qin,qi->qn", field, coils.directions))
