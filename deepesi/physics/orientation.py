"""Loose orientation: a prior of dipole moments that prefers the normal of the cortex."""

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import SourceSpace

Array = NDArray[np.float64]


def check_variance(loose: float) -> None:
    """Check the variance of tangential moments, relative to that along the normal.

    Raises:
        ValueError: It is not above 0 and at most 1.

    """
    if not 0 < loose <= 1:
        raise ValueError(
            f"loose orientation: loose must be above 0 and at most 1, got {loose}. 1 is free "
            "orientation; for fixed orientation take a head of fixed orientation."
        )


def check_loose(loose: float, space: SourceSpace, normals: Array) -> None:
    """Check that sources can have a loose orientation.

    Args:
        loose: Variance of the two tangential components, relative to that along the normal.
        space: The source space.
        normals: Unit normals ``(S, 3)``; zero where there is no surface.

    Raises:
        ValueError: `loose` is not above 0 and at most 1; or it is below 1 and the head has fixed
            orientation, or sources that lie on no surface.

    """
    check_variance(loose)
    if loose < 1 and space.n_orient == 1:
        raise ValueError(
            f"loose orientation: loose={loose} needs three dipole components per source, and the "
            f"head {space.name!r} has fixed orientation. Take a head of free orientation: "
            f"head.name={space.name}-free or --head {space.name}-free for a packaged head, "
            "head.n_orient=3 for head=forward, own or cohort."
        )
    if loose < 1 and not normals.any(axis=1).all():
        raise ValueError(
            f"loose orientation: loose={loose} needs the normal of every source, and "
            f"{int((~normals.any(axis=1)).sum())} sources of {space.name!r} lie on no surface. "
            "Take loose=1 (free orientation)."
        )


def mean_variance(loose: float, n_orient: int) -> float:
    """Mean over orientations of prior variances that are 1 along the normal, and `loose`."""
    return (1 + (n_orient - 1) * loose) / n_orient


def orientation_root(loose: float, space: SourceSpace, normals: Array) -> Array:
    """Symmetric root of the prior covariance of every source, ``n nᵀ + √loose (I − n nᵀ)``.

    The variance is 1 along the normal ``n`` and `loose` in the two tangential directions.

    Args:
        loose: As in `check_loose`, which names the errors.
        space: The source space, of ``O`` orientations.
        normals: Unit normals ``(S, 3)``, head frame.

    Returns:
        Blocks ``(S, O, O)``, no unit, head frame.

    """
    check_loose(loose, space, normals)
    n_orient = space.n_orient
    identity = np.tile(np.eye(n_orient), (space.n_sources, 1, 1))
    if loose == 1:
        return identity
    return prior_root(loose, normals)


def prior_root(loose: float, normals: Array) -> Array:
    """Symmetric root of ``n nᵀ + loose (I − n nᵀ)``; of a mean normal ``n``, shorter than 1, too.

    The variance along a normal of length ``a`` is ``loose + (1 − loose) a²``.

    Args:
        loose: Variance of the two tangential components.
        normals: Normals ``(S, 3)``, at most 1 long.

    Returns:
        Blocks ``(S, 3, 3)``, no unit.

    """
    size = np.linalg.norm(normals, axis=1, keepdims=True)
    along = normals / np.maximum(size, 1e-12)
    outer = along[:, :, None] * along[:, None, :]
    most = np.sqrt(loose + (1 - loose) * size**2)[..., None]
    least = np.sqrt(loose)
    return np.asarray(least * np.eye(3) + (most - least) * outer)
