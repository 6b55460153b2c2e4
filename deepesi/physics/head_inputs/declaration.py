"""HeadInput: an array that a model or a loss needs from a head, computed once in float64.

A declaration is a frozen dataclass of plain parameters. An ONNX file stores it as JSON, so that
the file can be applied to a new montage, lead field or noise covariance.
"""

import dataclasses
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.sensors import KINDS
from deepesi.utils import plugins

Array = NDArray[np.float64]
#: Length of each axis of a prepared array: a number, or the name of a size that the head sets.
Axes = tuple[int | str, ...]
#: Metadata of a parameter that a head input got after files were written with it. At its default it
#: is not part of the key and of the declaration, so these files stay valid.
ADDED_LATER = {"added_later": True}
#: Valid names of packages.
PACKAGE = re.compile(r"[A-Za-z0-9]([\w.-]{0,98}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class HeadInput(ABC):
    """One array computed from a head. Subclasses add parameters as dataclass fields.

    Attributes:
        sensor_kinds: Kinds of sensors that it can be computed for.

    """

    sensor_kinds: ClassVar[tuple[str, ...]] = tuple(KINDS)

    @property
    def key(self) -> str:
        """Name of the array: class and parameters, unique among declarations."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        values = self.parameters().values()
        return "_".join([name, *(re.sub(r"\W", "_", str(v)) for v in values)])

    def parameters(self) -> dict[str, Any]:
        """Parameters by name, without those of `ADDED_LATER` at their default."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if not (_added_later(f) and getattr(self, f.name) == f.default)
        }

    @property
    @abstractmethod
    def axes(self) -> Axes:
        """Shape of the array; sizes that the head sets are names.

        ``"channels"``, ``"sources"``, ``"dipoles"``, ``"edges"`` and ``"neighbours"`` (of the
        source mesh), ``"patch_pairs"``, ``"patch_members"``, ``"sensor_edges"``,
        ``"orientations"`` (per source, 1 or 3: an exported file keeps the one it was traced with).
        """

    @abstractmethod
    def compute(self, head: HeadModel) -> NDArray[Any]:
        """The array, float64 (or int64 where it holds numbers of vertices)."""

    def to_json(self) -> dict[str, Any]:
        """Class name and parameters; for a class outside deepesi, also its package.

        Raises:
            ValueError: A reader of the file could not find the class by its name.

        """
        name, package = type(self).__name__, {}
        if built_in().get(name) is not type(self):
            entry = plugins.declared(plugins.HEAD_INPUTS).get(name)
            if name in built_in() or entry is None or entry.load() is not type(self):
                raise ValueError(
                    f"HeadInput: {name} of {type(self).__module__} cannot be found by its name, so "
                    "no exported file could ask for it. Declare it in the pyproject.toml of its "
                    f"package, under a name that deepesi does not use: [project.entry-points."
                    f'"{plugins.HEAD_INPUTS}"] {name} = "{type(self).__module__}:{name}"; then '
                    "install the package."
                )
            package = {"package": plugins.package_of(entry)}
        return {"type": name, **package, **self.parameters()}

    @staticmethod
    def from_json(declaration: dict[str, Any]) -> "HeadInput":
        """The declaration that `to_json` described.

        Raises:
            ValueError: Neither deepesi nor an installed package has such a head input, or it has
                other parameters.

        """
        parameters = dict(declaration)
        kind = find_head_input(parameters.pop("type", None), parameters.pop("package", None))
        fields = dataclasses.fields(kind)
        known = {f.name for f in fields}
        if not {f.name for f in fields if not _added_later(f)} <= parameters.keys() <= known:
            raise ValueError(
                f"HeadInput: {kind.__name__} has parameters {sorted(known)}, the file gives "
                f"{sorted(parameters)}. Install the version of deepesi that wrote the file."
            )
        return kind(**parameters)


def _added_later(field: dataclasses.Field[Any]) -> bool:
    return field.metadata == ADDED_LATER


def sensor_kinds(declarations: Iterable[HeadInput]) -> tuple[str, ...]:
    """Kinds of sensors that all of these can be computed for."""
    limits = [set(d.sensor_kinds) for d in declarations]
    return tuple(kind for kind in KINDS if all(kind in limit for limit in limits))


def built_in() -> dict[str, type[HeadInput]]:
    """The head inputs of deepesi by name: those that this package lists in its ``__all__``."""
    package = importlib.import_module("deepesi.physics.head_inputs")
    listed = {name: getattr(package, name) for name in package.__all__}
    return {
        name: kind
        for name, kind in listed.items()
        if isinstance(kind, type) and issubclass(kind, HeadInput) and kind is not HeadInput
    }


def find_head_input(name: Any, package: Any = None) -> type[HeadInput]:
    """A head input of deepesi or of an installed package, by its name.

    Only entry points of installed packages are imported, whatever a file contains.

    Args:
        name: Name of the class, and of its entry point.
        package: Package of the class, according to a file.

    Raises:
        ValueError: There is none; or as in `deepesi.utils.plugins.load`.

    """
    known = built_in()
    if name in known:
        return known[name]
    added = plugins.declared(plugins.HEAD_INPUTS)
    if name in added:
        return plugins.load(added[name], HeadInput)  # type: ignore[type-abstract] # only checked against
    raise ValueError(
        f"HeadInput: this deepesi does not know the head input {name!r} (it knows "
        f"{sorted(known.keys() | added.keys())}). {_cure(package)}"
    )


def _cure(package: Any) -> str:
    if package is None:
        return "Install the version of deepesi that wrote the file, or newer."
    if not (isinstance(package, str) and PACKAGE.fullmatch(package)):
        return "The file does not name its package; ask its author."
    return (
        f"The file names the package {package!r}. If you trust its author: pip install {package}."
    )


def sizes_of(
    declarations: Iterable[HeadInput], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Sizes of the named axes of prepared arrays, by name.

    Args:
        declarations: Declarations of the arrays.
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
    """Number of normal random numbers ``Z`` of one posterior draw: the product of its axes.

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
    size = 1  # a loop: torch.compile does not trace math.prod of symbolic sizes
    for axis in axes:
        size *= known[axis] if isinstance(axis, str) else axis
    return size


def prepare(declarations: Iterable[HeadInput], head: HeadModel) -> dict[str, NDArray[Any]]:
    """Compute all declared inputs for one head, each once."""
    return {d.key: d.compute(head) for d in dict.fromkeys(declarations)}
