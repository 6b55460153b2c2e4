"""Tissues of a head, and the interface of every family of its lead fields."""

import itertools
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Type of sensor positions, such as points on the scalp or coils.
Positions = TypeVar("Positions", contravariant=True)

#: Conductivity of the brain at which families are built, S/m.
BRAIN_CONDUCTIVITY = 0.33


@dataclass(frozen=True)
class Tissues:
    """Tissue properties that a lead field depends on, beside the shape of the head.

    Args:
        skull_conductivity: S/m.
        skull_thickness: Mean over the calvaria, m.
        scalp_conductivity: S/m.
        brain_conductivity: S/m.

    """

    skull_conductivity: float = 0.01
    skull_thickness: float = 0.006
    scalp_conductivity: float = 0.33
    brain_conductivity: float = BRAIN_CONDUCTIVITY


NOMINAL = Tissues()


@dataclass(frozen=True)
class TissueGrid:
    """The box of tissues a family covers, and the Chebyshev nodes it is built from.

    Conductivities are those at `BRAIN_CONDUCTIVITY`: with a more conductive brain the covered
    conductivities of skull and scalp rise in proportion.

    Args:
        skull_conductivity: Lowest and highest, S/m.
        skull_thickness: Lowest and highest, m.
        scalp_conductivity: Lowest and highest, S/m.
        n_nodes: Nodes along each of the three.

    """

    skull_conductivity: tuple[float, float] = (0.002, 0.03)
    skull_thickness: tuple[float, float] = (0.0035, 0.0085)
    scalp_conductivity: tuple[float, float] = (0.19, 0.62)
    n_nodes: tuple[int, int, int] = (5, 4, 3)

    @property
    def bounds(self) -> Array:
        """Lowest and highest log conductivity, thickness, log conductivity ``(3, 2)``."""
        return np.array(
            [
                np.log(self.skull_conductivity),
                self.skull_thickness,
                np.log(self.scalp_conductivity),
            ]
        )

    @property
    def axes(self) -> list[Array]:
        """Nodes (first kind) along each axis, in the units of `Tissues`."""
        low, high = self.bounds.T
        nodes = [
            (a + b) / 2 + (b - a) / 2 * np.cos((2 * np.arange(n, 0, -1) - 1) * np.pi / (2 * n))
            for a, b, n in zip(low, high, self.n_nodes, strict=True)
        ]
        return [np.exp(nodes[0]), nodes[1], np.exp(nodes[2])]

    @property
    def nodes(self) -> list[Tissues]:
        """Every node, thickness slowest: one geometry serves all its conductivities."""
        skull, thickness, scalp = self.axes
        return [Tissues(k, t, s) for t, k, s in itertools.product(thickness, skull, scalp)]


class LeadFieldFamily(Protocol[Positions]):
    """All lead fields of one head, for any tissues and sensor positions.

    EEG and MEG share this interface: `deepesi.physics.scalp_potential.ScalpPotentialFamily` has
    points on the scalp as `Positions`, `deepesi.physics.magnetic.MagneticFieldFamily` and
    `KnownCoils` have coils. ``L = patterns(positions) core(tissues) source_modesᵀ``; magnetic
    families have no core.

    Attributes:
        source_modes: ``(D, r)``, 1/(A m).

    """

    @property
    def source_modes(self) -> Array: ...  # noqa: D102

    def patterns(self, positions: Positions) -> Array:
        """What these sensors measure of every pattern ``(C, p)``, in head units, referenced.

        Units: `SensorArray.head_units`.
        """
        ...

    def leadfield(self, tissues: Tissues, positions: Positions) -> Array:
        """Lead field ``(C, D)``, head units of the sensor per A m, referenced.

        Raises:
            ValueError: The family does not cover the tissues.

        """
        ...
