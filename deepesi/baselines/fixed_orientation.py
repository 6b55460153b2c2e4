"""Inverse model of fixed orientation on a head of free orientation."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput
from deepesi.physics.head_inputs.declaration import Array, Axes


class FixedOrientation(InverseModel):
    """Any inverse model that assumes sources along the normals of the nominal cortex.

    It is prepared for the lead field along the normals, and its estimates become moments along
    the normals. So methods of fixed and of free orientation can be compared on one head.

    Args:
        model: Inverse model of fixed orientation.

    """

    exportable = False

    def __init__(self, model: InverseModel) -> None:
        super().__init__()
        self.model, self.axes = model, NormalAxes()
        self.bound_to_space = model.bound_to_space
        self.inner = {d.key: AlongNormals(d) for d in model.head_inputs}
        self.head_inputs = (self.axes, *self.inner.values())

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model, with the orientation."""
        own = self.model.assumptions
        return own._replace(sources=f"{own.sources}, along the template's normals")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Invert with fixed orientation; standard deviations are those along the normals."""
        own = {key: inputs[declaration.key] for key, declaration in self.inner.items()}
        mean, std, _ = self.model(data, own)
        axes = inputs[self.axes.key]

        def along(values: Float[Tensor, "B S T"], directions: Tensor) -> Float[Tensor, "B D T"]:
            return (values[:, :, None] * directions[None, :, :, None]).flatten(1, 2)

        return Estimate(along(mean, axes), None if std is None else along(std, axes.abs()))


@dataclass(frozen=True)
class NormalAxes(HeadInput):
    """Components of a unit moment along the normal ``(S, O)``; 1 with fixed orientation."""

    axes: ClassVar[Axes] = ("sources", "orientations")

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        if head.space.n_orient == 1:
            return np.ones((head.space.n_sources, 1))
        return head.source_normals


@dataclass(frozen=True)
class AlongNormals(HeadInput):
    """A head input of the same head with fixed orientation.

    Attributes:
        declaration: The head input.

    """

    declaration: HeadInput

    @property
    def key(self) -> str:
        """Name of the array."""
        return f"along_normals_{self.declaration.key}"

    @property
    def axes(self) -> Axes:
        """Axes of the array; ``"dipoles"`` are sources, and each has one orientation."""
        fixed: dict[str | int, str | int] = {"dipoles": "sources", "orientations": 1}
        return tuple(fixed.get(axis, axis) for axis in self.declaration.axes)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array."""
        return self.declaration.compute(head.along_normals())
