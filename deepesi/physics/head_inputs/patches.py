"""Patch dictionary: the topography of a patch of cortex around every source, at several radii."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepesi.physics.graph import source_distances
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput
from deepesi.physics.noise import whitener
from deepesi.physics.orientation import prior_root


def patch_profiles(head: HeadModel, radius: float) -> csr_array:
    """Relative moments ``(S, S)`` of patches: row ``s`` is the one around source ``s``, sum 1.

    Weights ``exp(-d² / 2(r/2)²)`` with the distance ``d`` of `source_distances` up to the radius
    ``r``, m, as in the generator. A source without neighbours within the radius is a patch by
    itself.
    """
    positions = np.ascontiguousarray(head.source_pos, dtype=np.float64)
    edges = np.ascontiguousarray(head.space.edges, dtype=np.int64)
    in_volume = ~head.source_normals.any(axis=1)
    return _profiles(positions.tobytes(), edges.tobytes(), in_volume.tobytes(), radius)


@functools.lru_cache(maxsize=32)  # set-ups of one head share them
def _profiles(positions: bytes, edges: bytes, in_volume: bytes, radius: float) -> csr_array:
    points = np.frombuffer(positions).reshape(-1, 3)
    pairs = np.frombuffer(edges, dtype=np.int64).reshape(-1, 2)
    distances = source_distances(points, pairs, np.frombuffer(in_volume, dtype=bool), radius)
    rows, columns = np.nonzero(distances <= radius)
    weights = np.exp(-2 * (distances[rows, columns] / radius) ** 2)
    weights /= np.bincount(rows, weights, minlength=len(points))[rows]
    return csr_array((weights, (rows, columns)), shape=(len(points), len(points)))


@dataclass(frozen=True)
class Radii:
    """Radii of a dictionary, evenly spaced.

    Attributes:
        smallest: Smallest radius, m.
        largest: Largest radius, m.
        n_radii: Number of radii ``K``.

    Raises:
        ValueError: No radius, or radii out of order or not in metres.

    """

    smallest: float = 0.010
    largest: float = 0.025
    n_radii: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest <= 0.1 or self.n_radii < 1:
            raise ValueError(
                "Patch dictionary: radii must be positive, in order and at most 0.1 m, at least "
                f"one of them, got smallest={self.smallest}, largest={self.largest}, "
                f"n_radii={self.n_radii}. They are in metres (10 mm is 0.010)."
            )

    @property
    def radii(self) -> Array:
        """The radii ``(K,)``, m."""
        return np.linspace(self.smallest, self.largest, self.n_radii)


def patch_topographies(head: HeadModel, radius: float) -> Array:
    """Whitened topographies ``(S, C, O)``, 1/(A m), of patches of unit total moment."""
    n_orient = head.space.n_orient
    gain = whitener(head.noise_cov) @ head.leadfield
    profiles = patch_profiles(head, radius)
    columns = [profiles @ gain[:, o::n_orient].T for o in range(n_orient)]
    return np.stack(columns, axis=-1)


def inverse_root(gram: Array) -> Array:
    """``G^(-1/2)`` of positive matrices ``(S, O, O)``; finite along silent directions."""
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 1e-6 * values[:, -1:])
    return np.asarray(np.einsum("sij,sj,skj->sik", vectors, 1 / np.sqrt(values), vectors))


def orthonormal_topographies(head: HeadModel, radius: float) -> Array:
    """Orthonormal sets ``(D, C)`` that span the whitened topographies of patches of a radius."""
    topographies = patch_topographies(head, radius)
    root = inverse_root(np.einsum("sco,scp->sop", topographies, topographies))
    return np.einsum("sco,sop->spc", topographies, root).reshape(-1, topographies.shape[1])


@dataclass(frozen=True)
class PatchTopographies(Radii, HeadInput):
    """Whitened topographies of patches ``(K, D, C)``, no unit: an orthonormal set per patch.

    One unit vector with fixed orientation. With free orientation three vectors that span the
    topographies of the patch, orthonormalized symmetrically, so that they follow the orientations.
    The squared projection onto them is the matched filter's energy, chi-squared for noise alone.
    """

    @property
    def axes(self) -> Axes:
        """``(K, D, C)``."""
        return (self.n_radii, "dipoles", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        return np.stack([orthonormal_topographies(head, r) for r in self.radii])


@dataclass(frozen=True)
class PatchMoments(Radii, HeadInput):
    """Total moments ``(K, D, O)``, A m, that project as the vectors of `PatchTopographies`."""

    @property
    def axes(self) -> Axes:
        """``(K, D, O)``."""
        return (self.n_radii, "dipoles", "orientations")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        by_radius = [patch_topographies(head, r) for r in self.radii]
        roots = [inverse_root(np.einsum("sco,scp->sop", t, t)) for t in by_radius]
        return np.stack([root.reshape(-1, head.space.n_orient) for root in roots])


def check_prior(loose: float) -> None:
    """Refuse a variance of tangential moments that no prior has.

    Raises:
        ValueError: It is not above 0 and at most 1.

    """
    if not 0 < loose <= 1:
        raise ValueError(f"Patch dictionary: loose must be above 0 and at most 1, got {loose}.")


@dataclass(frozen=True)
class LoosePatches(Radii):
    """Radii, and a prior of the moments of patches.

    Attributes:
        loose: Prior variance of the moment of a patch along each tangent of the cortex, relative
            to that along its mean normal. No effect with fixed orientation.

    """

    loose: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prior(self.loose)

    def components(self, head: HeadModel, radius: float) -> tuple[Array, Array]:
        """Principal topographies ``(S, C, O)`` under the prior, and their moments ``(S, O, O)``.

        The topographies of a patch are orthogonal; their squares are its shares of the expected
        power, times ``O``. Moments: component, then topography.
        """
        topographies = patch_topographies(head, radius)
        root = self._root(head, radius)
        weighted = topographies @ root
        values, vectors = np.linalg.eigh(weighted.swapaxes(1, 2) @ weighted)
        scale = np.sqrt(values.shape[1] / values.sum(axis=1))[:, None, None]
        return weighted @ vectors * scale, root @ vectors * scale

    def _root(self, head: HeadModel, radius: float) -> Array:
        """Symmetric roots of the prior covariances of moments ``(S, O, O)``."""
        n_orient = head.space.n_orient
        if n_orient == 1:
            return np.ones((head.space.n_sources, 1, 1))
        return prior_root(self.loose, patch_profiles(head, radius) @ head.source_normals)


@dataclass(frozen=True)
class LooseTopographies(LoosePatches, HeadInput):
    """Whitened principal topographies of patches under a prior of their moments ``(O, K, S, C)``.

    Orthogonal for each patch; the squares of their norms add up to the number of orientations.
    """

    @property
    def axes(self) -> Axes:
        """``(O, K, S, C)``."""
        return ("orientations", self.n_radii, "sources", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        by_radius = [self.components(head, r)[0].transpose(2, 0, 1) for r in self.radii]
        return np.stack(by_radius, axis=1)


@dataclass(frozen=True)
class LooseMoments(LoosePatches, HeadInput):
    """Total moments ``(O, O, K, S)``, A m, that project as the rows of `LooseTopographies`.

    The first axis is the component of the moment, the second the row.
    """

    @property
    def axes(self) -> Axes:
        """``(O, O, K, S)``."""
        return ("orientations", "orientations", self.n_radii, "sources")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        by_radius = [self.components(head, r)[1].transpose(1, 2, 0) for r in self.radii]
        return np.stack(by_radius, axis=2)


def _along_normals(head: HeadModel, radius: float) -> Array:
    """Whitened topographies ``(S, C)``, 1/(A m), of patches with each source along its normal."""
    return patch_topographies(head.along_normals(), radius)[:, :, 0]


@dataclass(frozen=True)
class NormalTopographies(Radii, HeadInput):
    """Whitened unit topographies of patches along the normals ``(K, S, C)``, no unit."""

    @property
    def axes(self) -> Axes:
        """``(K, S, C)``."""
        return (self.n_radii, "sources", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        by_radius = np.stack([_along_normals(head, r) for r in self.radii])
        return np.asarray(by_radius / np.linalg.norm(by_radius, axis=2, keepdims=True))


@dataclass(frozen=True)
class NormalMoments(Radii, HeadInput):
    """Sums of moments ``(K, S)``, A m, that project as the rows of `NormalTopographies`."""

    @property
    def axes(self) -> Axes:
        """``(K, S)``."""
        return (self.n_radii, "sources")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        by_radius = np.stack([_along_normals(head, r) for r in self.radii])
        return np.asarray(1 / np.linalg.norm(by_radius, axis=2))


@dataclass(frozen=True)
class PatchPairs(Radii, HeadInput):
    """Pairs ``(P, 2)``: a source, and the centre of a patch of the largest radius around it."""

    @property
    def axes(self) -> Axes:
        """``(P, 2)``."""
        return ("patch_pairs", 2)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array."""
        centres, sources = patch_profiles(head, self.largest).nonzero()
        return np.stack([sources, centres], axis=1)


@dataclass(frozen=True)
class PatchShares(Radii, HeadInput):
    """Share ``(P, K)`` of the moment of the patch at the source, per radius."""

    @property
    def axes(self) -> Axes:
        """``(P, K)``."""
        return ("patch_pairs", self.n_radii)

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        centres, sources = patch_profiles(head, self.largest).nonzero()
        return np.stack([patch_profiles(head, r)[centres, sources] for r in self.radii], axis=1)
