"""Patch dictionary: the topography of a patch of cortex around every source, at several radii."""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepesi.physics.graph import source_distances
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import ADDED_LATER, Array, Axes, HeadInput
from deepesi.physics.head_inputs.orientation import LooseInput
from deepesi.physics.noise import whitener
from deepesi.physics.orientation import check_variance, prior_root


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
    """``G^(-1/2)`` of positive matrices ``(S, O, O)``; finite along directions without signal."""
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 1e-6 * values[:, -1:])
    return np.asarray(np.einsum("sij,sj,skj->sik", vectors, 1 / np.sqrt(values), vectors))


def moment_root(topographies: Array, normals: Array, loose: float = 1.0) -> Array:
    """Symmetric roots ``(S, O, O)``, A m, of the prior covariance of the total moment of patches.

    With the Gram matrix ``G`` of the topographies of a patch and its normal ``n`` the covariance is
    ``loose · G⁻¹ + (1 − loose) · n nᵀ / (nᵀ G n)``: a mixture of the prior of free orientation,
    under which topographies of all directions have variance 1, and that of fixed orientation, a
    topography of norm 1 along the normal.

    Args:
        topographies: Whitened topographies ``(S, C, O)``, 1/(A m).
        normals: Mean normals of the patches ``(S, 3)``, of any length.
        loose: Share of the first; 1: free orientation, or fixed on a head of fixed orientation.

    """
    root = inverse_root(np.einsum("sco,scp->sop", topographies, topographies))
    if loose == 1:
        return root
    along = np.linalg.solve(root, normals[..., None])[..., 0]  # as a topography
    length = np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    factor = np.matmul(root, prior_root(loose, np.asarray(along / length, dtype=np.float64)))
    values, vectors = np.linalg.eigh(factor @ factor.swapaxes(1, 2))
    return np.asarray(np.einsum("sij,sj,skj->sik", vectors, np.sqrt(values.clip(0)), vectors))


def mean_normals(head: HeadModel, radius: float) -> Array:
    """Mean normals ``(S, 3)`` of the patches of a radius, shorter than 1 where they differ."""
    return np.asarray(patch_profiles(head, radius) @ head.source_normals)


def orthonormal_topographies(head: HeadModel, radius: float, loose: float = 1.0) -> Array:
    """Orthonormal sets ``(D, C)`` that span the whitened topographies of patches of a radius.

    With `loose` below 1 they are multiplied by the root of the prior, see `moment_root`.
    """
    topographies = patch_topographies(head, radius)
    root = moment_root(topographies, mean_normals(head, radius), loose)
    return np.asarray(
        np.einsum("sco,sop->spc", topographies, root).reshape(-1, topographies.shape[1])
    )


@dataclass(frozen=True)
class PriorPatches(Radii, LooseInput):
    """Radii, and a prior of the orientation of patches.

    Attributes:
        loose: Prior variance of topographies that are orthogonal to that of the mean normal of the
            patch, relative to the variance of that one, as in `moment_root`.

    """

    loose: float = field(default=1.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variance(self.loose)


@dataclass(frozen=True)
class PatchTopographies(PriorPatches):
    """Whitened topographies of patches ``(K, D, C)``, no unit: an orthonormal set per patch.

    One unit vector with fixed orientation. With free orientation three vectors that span the
    topographies of the patch, orthonormalized symmetrically, so that they follow the orientations.
    The squared projection onto them is the matched filter's energy, chi-squared for noise alone.
    With ``loose`` below 1 they are multiplied by the root of the prior: see `moment_root`.
    """

    @property
    def axes(self) -> Axes:
        """``(K, D, C)``."""
        return (self.n_radii, "dipoles", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        self.check_sources(head.space, head.source_normals)
        return np.stack([orthonormal_topographies(head, r, self.loose) for r in self.radii])


@dataclass(frozen=True)
class PatchMoments(PriorPatches):
    """Total moments ``(K, D, O)``, A m, that project as the vectors of `PatchTopographies`."""

    @property
    def axes(self) -> Axes:
        """``(K, D, O)``."""
        return (self.n_radii, "dipoles", "orientations")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        self.check_sources(head.space, head.source_normals)
        roots = [
            moment_root(patch_topographies(head, r), mean_normals(head, r), self.loose)
            for r in self.radii
        ]
        return np.stack([root.reshape(-1, head.space.n_orient) for root in roots])


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
        check_variance(self.loose)

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
        return prior_root(self.loose, mean_normals(head, radius))


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


@dataclass(frozen=True)
class PatchMembers(Radii, HeadInput):
    """Sources of the patch of the largest radius around every source ``(S, M)``, filled with ``S``.

    The pairs of `PatchPairs` as a table, to compute a few patches without the others.
    """

    @property
    def axes(self) -> Axes:
        """``(S, M)``."""
        return ("sources", "patch_members")

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array."""
        centres, sources = patch_profiles(head, self.largest).nonzero()
        return _table(centres, sources, head.space.n_sources, head.space.n_sources)


@dataclass(frozen=True)
class MemberShares(Radii, HeadInput):
    """Share ``(K, S, M)`` of the moment of the patch at each of `PatchMembers`, per radius."""

    @property
    def axes(self) -> Axes:
        """``(K, S, M)``."""
        return (self.n_radii, "sources", "patch_members")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        centres, sources = patch_profiles(head, self.largest).nonzero()
        by_radius = [patch_profiles(head, r)[centres, sources] for r in self.radii]
        return np.stack([_table(centres, v, head.space.n_sources, 0.0) for v in by_radius])


def _table(rows: NDArray[Any], values: NDArray[Any], n_rows: int, fill: float) -> NDArray[Any]:
    """Values of every row, in their order; short rows are filled."""
    sizes = np.bincount(rows, minlength=n_rows)
    table = np.full((n_rows, sizes.max()), fill, dtype=values.dtype)
    table[np.arange(table.shape[1]) < sizes[:, None]] = values[np.argsort(rows, kind="stable")]
    return table
