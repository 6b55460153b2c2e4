"""Warped heads: smooth anatomical warps of the template head.

A head is a function of its seed alone. Size, proportions, low-order shape, the position of the
cortex in the skull, folding and the local thickness of the skull vary; topology does not, so
every member has the source space of the template, and its vertices mean the same locations.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import sph_harm_y

from deepesi.physics.building.anatomy import Anatomy, read_anatomy
from deepesi.physics.cohort import split_of

Array = NDArray[np.float64]

#: Middle of the head in the MNE head frame of fsaverage, m: warps are about this point.
MIDDLE = np.array([0.0, 0.01, 0.045])
#: Standard deviations of the parameters of a warp. Adult head length and breadth vary by about 4 %
#: (Gordon et al. 2014, ANSUR II anthropometry); the others are choices.
SIZE, PROPORTION, SHAPE = 0.03, 0.025, 0.02
CORTEX_SHIFT, CORTEX_TILT = 0.002, np.deg2rad(2.5)
THICKNESS_RATIO = 0.2
#: Folding: standard deviation of a smooth displacement of the cortex along each axis, and the
#: range of its wavelengths, m. It rotates the normals by about 7 degrees.
FOLDING, WAVELENGTHS = 0.0015, (0.04, 0.08)


def _harmonics(directions: Array, max_degree: int) -> Array:
    """Real spherical harmonics of degree 1 to `max_degree` at unit vectors: ``(N, H)``."""
    polar = np.arccos(np.clip(directions[:, 2], -1, 1))
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    columns = []
    for degree in range(1, max_degree + 1):
        for order in range(degree + 1):
            value = sph_harm_y(degree, order, polar, azimuth)
            columns += [value.real] if order == 0 else [value.real, value.imag]
    return np.asarray(np.sqrt(4 * np.pi) * np.stack(columns, axis=1))


@dataclass(frozen=True)
class Warp:
    """A smooth map of heads: scaling per axis, then a radial factor smooth over directions.

    Every surface is moved by the same factor in a direction, so nested surfaces stay nested.

    Attributes:
        scale: Factors along x, y, z ``(3,)``.
        shape: Coefficients of the radial factor, harmonics of degree 1-3 ``(15,)``.
        shift: Shift of the cortex in the skull ``(3,)``, m.
        tilt: Rotation vector of the cortex ``(3,)``, rad.
        folds: Wave vectors (rad/m), phase (rad) and displacement (m) of every wave ``(W, 7)``.
        thickness: Coefficients of the logarithm of the relative thickness ``(15,)``.

    """

    scale: Array
    shape: Array
    shift: Array
    tilt: Array
    folds: Array
    thickness: Array

    @classmethod
    def draw(cls, warp_seed: int) -> "Warp":
        """The warp of a seed."""
        rng = np.random.default_rng([2026, warp_seed])
        size = rng.normal(scale=SIZE) + rng.normal(scale=PROPORTION, size=3)
        waves = rng.normal(size=(20, 3))
        waves /= np.linalg.norm(waves, axis=1, keepdims=True)
        waves *= 2 * np.pi / rng.uniform(*WAVELENGTHS, size=(20, 1))
        phase = rng.uniform(0, 2 * np.pi, size=(20, 1))
        moves = rng.normal(scale=FOLDING * np.sqrt(2 / 20), size=(20, 3))
        # Power falls with the degree; the nine, five and three of a degree share it.
        falloff = np.repeat([1 / np.sqrt(3), 0.5 / np.sqrt(5), 0.25 / np.sqrt(7)], [3, 5, 7])
        return cls(
            scale=np.exp(np.clip(size, -0.1, 0.1)),
            shape=np.clip(rng.normal(size=15), -2, 2) * falloff * SHAPE,
            shift=np.clip(rng.normal(size=3), -2, 2) * CORTEX_SHIFT,
            tilt=np.clip(rng.normal(size=3), -2, 2) * CORTEX_TILT,
            folds=np.hstack([waves, phase, moves]),
            thickness=np.clip(rng.normal(size=15), -2, 2) * falloff * THICKNESS_RATIO,
        )

    def __call__(self, points: Array) -> Array:
        """Points ``(N, 3)`` of the template (m, head frame) on the warped head."""
        centred = points - MIDDLE
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        factor = np.exp(_harmonics(centred / length, 3) @ self.shape)
        return np.asarray(MIDDLE + self.scale * centred * factor[:, None])

    def cortex(self, points: Array) -> Array:
        """Points ``(N, 3)`` of the cortex, moved to their position in the skull."""
        from scipy.spatial.transform import Rotation

        turned = Rotation.from_rotvec(self.tilt).apply(points - MIDDLE)
        waves, phase, moves = self.folds[:, :3], self.folds[:, 3], self.folds[:, 4:]
        folded = np.cos((points - MIDDLE) @ waves.T + phase) @ moves
        return np.asarray(turned + folded + MIDDLE + self.shift)

    def relative_thickness(self, points: Array) -> Array:
        """Factor ``(N,)`` of the local thickness of the skull."""
        centred = points - MIDDLE
        directions = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(np.exp(_harmonics(directions, 3) @ self.thickness))


def read_member(warp_seed: int | None, spacing: str, skull_spacing: str = "ico3") -> Anatomy:
    """Anatomy of the template (None) or of a warped head."""
    if warp_seed is None:
        return read_anatomy(spacing, skull_spacing)
    split_of(warp_seed)
    warp = Warp.draw(warp_seed)
    return read_anatomy(spacing, skull_spacing, warp, warp.cortex, warp.relative_thickness)
