"""Tissues of a head, and what every family of its lead fields offers."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Type of sensor positions, such as points on the scalp.
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

    Interface for `Template` and the generator; `Positions` is the type of the sensor positions.
    ``L = patterns(positions) (sum_k c_k(tissues) core_k) source_modesᵀ``.

    Attributes:
        scalp_pos: Vertices of the scalp mesh ``(N, 3)``, m, head frame.
        scalp_faces: Triangles ``(F, 3)`` of the scalp.
        bounds: Box covered ``(3, 2)``: log skull conductivity, thickness, log scalp conductivity.
        core: ``(K, p, r)``.
        source_modes: ``(D, r)``.
        eye_core: The same core for the eyes ``(K, p, E)``: left x, y, z, right x, y, z; no columns
            where the eyes are not known.

    """

    @property
    def scalp_pos(self) -> Array: ...  # noqa: D102

    @property
    def scalp_faces(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def bounds(self) -> Array: ...  # noqa: D102

    @property
    def core(self) -> Array: ...  # noqa: D102

    @property
    def source_modes(self) -> Array: ...  # noqa: D102

    @property
    def eye_core(self) -> Array: ...  # noqa: D102

    @property
    def varies(self) -> bool:
        """Whether the tissues change the lead field."""
        ...

    def polynomials(self, log_skull: Any, thickness: Any, log_scalp: Any) -> list[Any]:
        """The ``K`` terms at tissues of a brain at `BRAIN_CONDUCTIVITY`; arrays or tensors."""
        ...

    def coefficients(self, tissues: Tissues) -> Array:
        """Weights ``(K,)`` of the core.

        Raises:
            ValueError: The family does not cover the tissues.

        """
        ...

    def patterns(self, positions: Positions) -> Array:
        """Potentials of every pattern at these sensors ``(C, p)``, referenced."""
        ...

    def leadfield(self, tissues: Tissues, positions: Positions) -> Array:
        """Lead field ``(C, D)``, unit of the sensor per A m, referenced."""
        ...

    def with_sources(self, source_modes: Array) -> Self:
        """The same family for other sources, by their modes ``(D, r)``."""
        ...

    def to_arrays(self) -> Mapping[str, NDArray[Any]]:
        """The family as arrays to be stored, by name."""
        ...
