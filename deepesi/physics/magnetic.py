r"""MagneticFieldFamily: the MEG lead fields of one head, for any coils at any head position.

Outside the head the magnetic field has no curl and no divergence: it is that of magnetic charges
inside. So the field of every source of a boundary element model is stored once as charges at fixed
points ``s_k`` just under the inner skull, ``q = M Vᵀ j`` with patterns ``M``::

    B(r) = sum_k q_k (r - s_k) / |r - s_k|³

The field at any point outside the head is then exact to rounding, and moving the head in the helmet
moves the points of the coils. There is no grid of head positions and no interpolation.

Magnetic fields do not depend on the conductivities of skull and scalp in this model: currents flow
inside the inner skull only.

Source: Hämäläinen & Sarvas 1989, doi:10.1109/10.16463, for the homogeneous model; Fairweather &
Karageorghis 1998, doi:10.1023/A:1018981221740, for charges as fundamental solutions. Difference:
charges are fitted to the lead fields of MNE-Python's BEM, not to boundary conditions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from deepesi.physics.family import Tissues
from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]

#: Step of the stored modes of a source, relative to their norm.
STEP = 1e-4


@dataclass(frozen=True)
class Coils:
    """MEG sensors as weighted sums of field components at points.

    Attributes:
        sensors: Names, kinds, centres and normals of the ``C`` coils, in the frame of the points.
        points: Integration points of all coils ``(Q, 3)``, m.
        directions: Unit vectors of the components that are measured ``(Q, 3)``.
        weights: Weight of every point ``(Q,)``, no unit, or 1/m for gradiometers.
        coil: Number of the coil of every point ``(Q,)``.

    """

    sensors: SensorArray
    points: Array
    directions: Array
    weights: Array
    coil: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sensors)

    def __getitem__(self, rows: Sequence[int] | NDArray[np.int64]) -> "Coils":
        """Some coils, in this order."""
        order = np.asarray(rows, dtype=np.int64)
        kept = [np.flatnonzero(self.coil == row) for row in order]
        index = np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)
        coil = np.repeat(np.arange(len(order)), [len(own) for own in kept])
        return Coils(
            self.sensors[order],
            self.points[index],
            self.directions[index],
            self.weights[index],
            coil,
        )

    def moved(self, rotation: Array, shift: Array) -> "Coils":
        """The coils after ``x -> rotation x + shift``: another frame, or another position.

        Args:
            rotation: ``(3, 3)``.
            shift: ``(3,)``, m.

        """
        sensors = replace(
            self.sensors,
            positions=self.sensors.positions @ rotation.T + shift,
            orientations=self.sensors.orientations @ rotation.T,
        )
        return replace(
            self,
            sensors=sensors,
            points=self.points @ rotation.T + shift,
            directions=self.directions @ rotation.T,
        )

    def sums(self, field: Array) -> Array:
        """Measurements ``(C, N)`` of the coils, from field components at the points ``(Q, N)``.

        T, or T/m for gradiometers.
        """
        shape = (len(self), len(self.points))
        matrix = csr_array((self.weights, (self.coil, np.arange(len(self.points)))), shape=shape)
        return np.asarray(matrix @ field)


def charge_field(coils: Coils, charge_pos: Array) -> Array:
    """Measurements of the coils for unit charges ``(C, K)``, T or T/m.

    Args:
        coils: The coils.
        charge_pos: Charges ``(K, 3)``, m, in the frame of the coils.

    """
    points, directions = coils.points, coils.directions
    along = (points * directions).sum(axis=1)[:, None] - directions @ charge_pos.T
    return coils.sums(along / cdist(points, charge_pos) ** 3)


@dataclass(frozen=True)
class MagneticFieldFamily:
    """All MEG lead fields of one head: for any coils, at any position of the head.

    A `deepesi.physics.family.LeadFieldFamily`.

    Attributes:
        charge_pos: Points of the charges ``s`` ``(K, 3)``, m, head frame, inside the head.
        charge_modes: Patterns of charges ``M`` ``(K, r)``, T m².
        source_modes: Modes of the sources ``V`` ``(D, r)``, 1/(A m).

    """

    charge_pos: Array
    charge_modes: Array
    source_modes: Array

    def patterns(self, coils: Coils) -> Array:
        """Measurements of coils for every mode ``(C, r)``, `SensorArray.head_units`.

        Exact at any position outside the head.
        """
        return coils.sensors.to_head(charge_field(coils, self.charge_pos) @ self.charge_modes)

    def leadfield(self, tissues: Tissues, coils: Coils) -> Array:
        """Lead field ``(C, D)`` of coils in the head frame, `SensorArray.head_units` per A m.

        `tissues` have no effect: in this model currents flow inside the inner skull only.
        """
        return np.asarray(self.patterns(coils) @ self.source_modes.T)

    def with_sources(self, source_modes: Array) -> Self:
        """The same family for other sources, by their modes ``(D, r)``."""
        return replace(self, source_modes=source_modes)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The family as arrays to be stored, modes of the sources in multiples of `STEP`.

        One step for all modes: the weak ones, most of them, are then small numbers, which compress
        well, best mode by mode. Charges keep 32 bits: their fields nearly cancel, so 16 bits are
        not accurate enough.
        """
        norms = np.linalg.norm(self.source_modes, axis=1, keepdims=True)
        steps = np.round(self.source_modes / norms / STEP).astype(np.int16)
        return {
            "charge_pos": self.charge_pos.astype(np.float32),
            "charge_modes": self.charge_modes.astype(np.float32),
            "source_modes": np.ascontiguousarray(steps.T),
            "source_norms": norms.astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "MagneticFieldFamily":
        """The family that `to_arrays` stored."""
        wide = {key: value.astype(np.float64) for key, value in arrays.items()}
        return cls(
            wide["charge_pos"],
            wide["charge_modes"],
            wide["source_modes"].T * STEP * wide["source_norms"],
        )


@dataclass(frozen=True)
class KnownCoils:
    """The MEG lead field of a forward solution: for its own coils at their own positions only.

    A `deepesi.physics.family.LeadFieldFamily`.

    Attributes:
        coils: The coils, each as one point.
        rows: Lead field of every coil in the modes ``(C, r)``, `SensorArray.head_units`.
        source_modes: ``(D, r)``, 1/(A m).

    """

    coils: Coils
    rows: Array
    source_modes: Array

    @classmethod
    def of(cls, sensors: SensorArray, leadfield: Array) -> "KnownCoils":
        """The coils of a lead field ``(C, D)`` in `SensorArray.head_units`."""
        left, values, right = np.linalg.svd(leadfield, full_matrices=False)
        number = np.arange(len(sensors))
        positions, normals = sensors.positions, sensors.orientations
        coils = Coils(sensors, positions, normals, np.ones(len(sensors)), number)
        return cls(coils, left * values, right.T)

    def patterns(self, coils: Coils) -> Array:
        """Rows of some of the coils ``(C, r)``, by their names."""
        known = self.coils.sensors.names
        return np.asarray(self.rows[[known.index(name) for name in coils.sensors.names]])

    def leadfield(self, tissues: Tissues, coils: Coils) -> Array:
        """Lead field ``(C, D)`` of some of the coils; `tissues` have no effect."""
        return np.asarray(self.patterns(coils) @ self.source_modes.T)
