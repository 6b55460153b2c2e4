"""Effect of another skull on topographies, as filters between the channels.

A skull between the brain and the scalp smooths the potential. On concentric spheres its
conductivity multiplies every spherical harmonic of the scalp potential by a factor that does not
depend on the source, so a lead field at another conductivity is the same filter applied to every
column. On the fsaverage BEM one fitted filter maps all columns at 0.01 S/m to those at 0.003 or
0.03 S/m with a relative difference (RDM) of 0.01. The filter of the sphere, which needs only the
sensor positions, reduces the RDM from 0.14 to 0.05.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import eval_legendre

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput
from deepesi.physics.head_inputs.patches import Radii, orthonormal_topographies
from deepesi.physics.noise import whitener
from deepesi.physics.sensors import SensorArray
from deepesi.physics.sphere import ShellModel, transfer_factors

#: Outer radii of brain, skull and scalp, m, as on the template.
SHELLS = np.array([0.079, 0.085, 0.092])
#: Conductivity of brain and scalp, and of the skull at ratio 1, S/m.
SOFT, SKULL = 0.33, 0.01
#: Highest degree of the harmonics, and the eccentricity of the assumed sources.
N_DEGREES, ECCENTRICITY = 12, 0.85
#: Share of the expected power of a channel that the sphere does not explain.
RIDGE = 1e-3


@dataclass(frozen=True)
class SkullRatios:
    """Ratios of skull conductivities to the nominal one, evenly spaced in their logarithm.

    Attributes:
        widest: The largest ratio; the smallest is one over it.
        n_ratios: Number of ratios ``M``, odd, so that the nominal one is in the middle.

    Raises:
        ValueError: The ratio is not above 1 and at most 10, or the number is not odd.

    """

    widest: float = 3.0
    n_ratios: int = 5

    def __post_init__(self) -> None:
        if not 1 < self.widest <= 10 or self.n_ratios < 1 or self.n_ratios % 2 == 0:
            raise ValueError(
                "Skull filters: widest must be above 1 and at most 10, n_ratios odd, got "
                f"widest={self.widest}, n_ratios={self.n_ratios}. They are ratios to the nominal "
                "conductivity (3 spans 0.0033 to 0.03 S/m around 0.01)."
            )

    @property
    def ratios(self) -> Array:
        """The ratios ``(M,)``."""
        width = np.log(self.widest) if self.n_ratios > 1 else 0.0
        return np.asarray(np.exp(np.linspace(-width, width, self.n_ratios)))


def skull_filter(sensors: SensorArray, ratio: float) -> Array:
    """Filter ``(C, C)`` from topographies to those under another skull.

    The reference of the sensors plus the expected change given the potential at the sensors:
    ``(K' − K)(K + λ)⁻¹``, with ``K`` the covariance of the potential of dipoles anywhere at one
    eccentricity, of any direction, and ``K'`` that with the potential under the other skull.
    Magnetic fields do not depend on the skull: MEG channels stay as they are.

    Args:
        sensors: Channels. Of EEG the directions from the centre of the fitted sphere are used.
        ratio: Ratio of the skull conductivity to the nominal one.

    Source: ours; the transfer of a degree is `deepesi.physics.sphere.transfer_factors`.

    """
    potentials = sensors.rows_of("eeg")
    if len(potentials) < len(sensors):
        whole = np.eye(len(sensors))
        if len(potentials):
            whole[np.ix_(potentials, potentials)] = skull_filter(sensors[potentials], ratio)
        return whole
    degree = np.arange(1, N_DEGREES + 1)
    nominal, other = (
        transfer_factors(ShellModel(SHELLS, np.array([SOFT, SKULL * r, SOFT])), N_DEGREES)
        for r in (1.0, ratio)
    )
    directions = sensors.positions - _centre(sensors.positions)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    harmonics = eval_legendre(degree[:, None, None], directions @ directions.T)
    power = (2 * degree + 1) * (nominal * ECCENTRICITY**degree) ** 2
    expected, change = (
        sensors.reference_cov(np.tensordot(weights, harmonics, axes=1))
        for weights in (power, power * (other / nominal - 1))
    )
    n = len(sensors)
    ridge = RIDGE * np.trace(expected) / n * np.eye(n)
    moved = np.linalg.solve(expected + ridge, change).T
    return sensors.reference_operator + sensors.reference(moved, axis=1)


def _centre(positions: Array) -> Array:
    """Centre ``(3,)`` of the sphere that fits points best in the least-squares sense."""
    middle = positions.mean(axis=0)
    points = positions - middle
    unknowns = np.c_[2 * points, np.full(len(points), 0.1)]  # 0.1 m: columns of similar size
    solution = np.linalg.lstsq(unknowns, (points**2).sum(axis=1), rcond=1e-3)[0]
    return np.asarray(middle + solution[:3])


@dataclass(frozen=True)
class SkullFilters(SkullRatios, HeadInput):
    """Filters ``(M, C, C)`` from whitened topographies to those under another skull."""

    @property
    def axes(self) -> Axes:
        """``(M, C, C)``."""
        return (self.n_ratios, "channels", "channels")

    def compute(self, head: HeadModel) -> Array:
        """``W F W⁺`` with ``W`` the whitener."""
        white = whitener(head.noise_cov)
        back = np.linalg.pinv(white, rcond=1e-9, hermitian=True)
        return np.stack([white @ skull_filter(head.sensors, r) @ back for r in self.ratios])


@dataclass(frozen=True)
class SkullPowers(Radii, SkullRatios, HeadInput):
    """Squares of the filtered unit topographies of patches ``(M, K, S, C)``, no unit.

    One value per channel, so that norms can be computed for any weights of the channels. With free
    orientation, the mean over an orthonormal set.
    """

    def __post_init__(self) -> None:
        Radii.__post_init__(self)
        SkullRatios.__post_init__(self)

    @property
    def axes(self) -> Axes:
        """``(M, K, S, C)``."""
        return (self.n_ratios, self.n_radii, "sources", "channels")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        filters = SkullFilters(self.widest, self.n_ratios).compute(head)
        topographies = np.stack([orthonormal_topographies(head, r) for r in self.radii])
        filtered = np.einsum("mce,kde->mkdc", filters, topographies, optimize=True)
        power = (filtered**2).reshape(*filtered.shape[:2], -1, head.space.n_orient, head.n_channels)
        return np.asarray(power.mean(axis=3))


@dataclass(frozen=True)
class NormalSkullPowers(SkullPowers):
    """`SkullPowers` of patches along the normals ``(M, K, S, C)``, whatever the orientation."""

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        return super().compute(head.along_normals())
