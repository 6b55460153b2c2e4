"""HeadInput: what a model or a loss may ask of a head, computed once per head in float64.

A declaration is a frozen dataclass of plain parameters; it travels in an ONNX file as JSON, so
that whoever applies the file can prepare a new montage, lead field or noise covariance for it.
"""

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel

Array = NDArray[np.float64]
#: Length of each axis of a prepared array: a number, or the name of a size the head decides.
Axes = tuple[int | str, ...]


@dataclass(frozen=True)
class HeadInput(ABC):
    """One array a head can be asked for. Subclasses add parameters as dataclass fields."""

    @property
    def key(self) -> str:
        """Name of the array: class and parameters, unique among declarations."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        values = [getattr(self, f.name) for f in dataclasses.fields(self)]
        return "_".join([name, *(re.sub(r"\W", "_", str(v)) for v in values)])

    @property
    @abstractmethod
    def axes(self) -> Axes:
        """Shape; sizes that the head decides are names.

        ``"channels"``, ``"sources"``, ``"dipoles"``, ``"edges"`` and ``"neighbours"`` (of the
        source mesh), ``"patch_pairs"``, ``"sensor_edges"``, ``"orientations"`` (per source, 1 or 3:
        an exported file keeps the one it was traced with).
        """

    @abstractmethod
    def compute(self, head: HeadModel) -> NDArray[Any]:
        """The array, float64 (or int64 where it holds numbers of vertices)."""

    def to_json(self) -> dict[str, Any]:
        """Class name and parameters."""
        return {"type": type(self).__name__, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(declaration: dict[str, Any]) -> "HeadInput":
        """The declaration that `to_json` described.

        Raises:
            ValueError: This version of deepesi has no such head input, or other parameters.

        """
        parameters = dict(declaration)
        name = parameters.pop("type", None)
        known = {c.__name__: c for c in HeadInput.__subclasses__()}
        if name not in known:
            raise ValueError(
                f"HeadInput: this deepesi does not know the head input {name!r} (it knows "
                f"{sorted(known)}). Install the version of deepesi that wrote the file, or newer."
            )
        expected = {f.name for f in dataclasses.fields(known[name])}
        if set(parameters) != expected:
            raise ValueError(
                f"HeadInput: {name} has parameters {sorted(expected)}, the file gives "
                f"{sorted(parameters)}. Install the version of deepesi that wrote the file."
            )
        return known[name](**parameters)


def sizes_of(
    declarations: Iterable[HeadInput], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Sizes of the named axes of prepared arrays, by name.

    Args:
        declarations: What the arrays were declared as.
        shapes: Shape of each array, by its key.

    """
    return {
        axis: size
        for declaration in declarations
        for axis, size in zip(declaration.axes, shapes[declaration.key], strict=True)
        if isinstance(axis, str)
    }


def noise_size(
    axes: Axes,
    declarations: Iterable[HeadInput],
    data_shape: Sequence[int],
    shapes: Mapping[str, Sequence[int]],
) -> int:
    """How many numbers ``Z`` one posterior draw takes: the product of the sizes of its axes.

    Args:
        axes: Numbers, or names of sizes: ``"channels"``, ``"times"``, or an axis of a head input.
        declarations: Head inputs of the model.
        data_shape: ``(B, C, T)`` of the recordings.
        shapes: Shape of each prepared head input, by its key.

    Raises:
        ValueError: An axis is not known.

    """
    known = sizes_of(declarations, shapes) | {"channels": data_shape[1], "times": data_shape[2]}
    unknown = [axis for axis in axes if isinstance(axis, str) and axis not in known]
    if unknown:
        raise ValueError(
            f"noise_size: the posterior draws along {unknown}, the head inputs have the axes "
            f"{sorted(known)}. Declare a head input with that axis, or give a number."
        )
    return math.prod(known[axis] if isinstance(axis, str) else axis for axis in axes)


def prepare(declarations: Iterable[HeadInput], head: HeadModel) -> dict[str, NDArray[Any]]:
    """Compute all declared inputs for one head, each once."""
    return {d.key: d.compute(head) for d in dict.fromkeys(declarations)}
