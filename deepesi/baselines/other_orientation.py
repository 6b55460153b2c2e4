"""Inverse models of fixed orientation on heads of free orientation, and the other way round."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import FixedOrientations, HeadInput, SourceNormals
from deepesi.physics.head_inputs.declaration import Axes


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
        self.model, self.axes = model, FixedOrientations()
        self.bound_to_space, self.window_needs = model.bound_to_space, model.window_needs
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
        estimate = self.model(data, own)
        mean, std = estimate.mean, estimate.std
        axes = inputs[self.axes.key]

        def along(values: Float[Tensor, "B S T"], directions: Tensor) -> Float[Tensor, "B D T"]:
            return (values[:, :, None] * directions[None, :, :, None]).flatten(1, 2)

        std = None if std is None else along(std, axes.abs())
        return estimate._replace(mean=along(mean, axes), std=std, samples=None)


class FreeOrientation(InverseModel):
    """Any inverse model of free orientation on a head of fixed orientation.

    It is prepared for a lead field of three components that is zero but along the normal, and the
    components of its estimates along the normals are taken. So an exported network, which keeps
    the orientation it was traced with, can be compared on any head.

    Args:
        model: Inverse model of free orientation.

    """

    exportable = False

    def __init__(self, model: InverseModel) -> None:
        super().__init__()
        self.model, self.normals = model, SourceNormals()
        self.bound_to_space, self.window_needs = model.bound_to_space, model.window_needs
        self.inner = {d.key: OnThreeComponents(d) for d in model.head_inputs}
        self.head_inputs = (self.normals, *self.inner.values())

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model."""
        return self.model.assumptions

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Invert with free orientation; standard deviations of components count as independent."""
        own = {key: inputs[declaration.key] for key, declaration in self.inner.items()}
        estimate = self.model(data, own)
        mean, std = estimate.mean, estimate.std
        normals = inputs[self.normals.key]
        mean = torch.einsum("bsot,so->bst", mean.unflatten(1, normals.shape), normals)
        if std is not None:
            variance = std.unflatten(1, normals.shape).square()
            std = torch.einsum("bsot,so->bst", variance, normals.square()).sqrt()
        return estimate._replace(mean=mean, std=std, samples=None)


@dataclass(frozen=True)
class _OfAnotherHead(HeadInput):
    """A head input of the same head with another orientation.

    Attributes:
        declaration: The head input.

    """

    declaration: HeadInput

    @property
    def key(self) -> str:
        """Name of the array."""
        return f"{type(self).__name__.lower()}_{self.declaration.key}"


@dataclass(frozen=True)
class AlongNormals(_OfAnotherHead):
    """A head input of the same head with fixed orientation."""

    @property
    def axes(self) -> Axes:
        """Axes of the array; ``"dipoles"`` are sources, and each has one orientation."""
        fixed: dict[str | int, str | int] = {"dipoles": "sources", "orientations": 1}
        return tuple(fixed.get(axis, axis) for axis in self.declaration.axes)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array."""
        return self.declaration.compute(head.along_normals())


@dataclass(frozen=True)
class OnThreeComponents(_OfAnotherHead):
    """A head input of the same head with three components, see `HeadModel.with_components`."""

    @property
    def axes(self) -> Axes:
        """Axes of the array; every source has three dipoles."""
        free: dict[str | int, str | int] = {"dipoles": "free_dipoles", "orientations": 3}
        return tuple(free.get(axis, axis) for axis in self.declaration.axes)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """Return the array."""
        return self.declaration.compute(head.with_components())
