"""Prior of the orientation of sources."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput
from deepesi.physics.orientation import check_loose, orientation_root


class LooseInput(HeadInput):
    """Head input of sources with loose orientation.

    Attributes:
        loose: Variance of the tangential components relative to that along the normal, above 0;
            1: free orientation, or fixed on a head of fixed orientation.

    """

    loose: float

    def check_sources(self, space: SourceSpace, normals: Array) -> None:
        """Check the orientation prior with `deepesi.physics.orientation.check_loose`."""
        check_loose(self.loose, space, normals)

    def root(self, head: HeadModel) -> Array:
        """Compute `deepesi.physics.orientation.orientation_root`."""
        return orientation_root(self.loose, head.space, head.source_normals)


@dataclass(frozen=True)
class OrientationRoot(LooseInput):
    """Symmetric root of the prior covariance of every source ``(S, O, O)``, no unit."""

    loose: float = 1.0

    axes: ClassVar[Axes] = ("sources", "orientations", "orientations")

    def compute(self, head: HeadModel) -> Array:
        """The variance is 1 along the normal and `loose` in the tangential directions."""
        return self.root(head)


@dataclass(frozen=True)
class OwnNormals(HeadInput):
    """Whether the cortex is that of the recorded person ``(1,)``: 1, or 0 for a template's."""

    axes: ClassVar[Axes] = (1,)

    def compute(self, head: HeadModel) -> Array:
        """Return `HeadModel.own_normals` as a number."""
        return np.array([float(head.own_normals)])
