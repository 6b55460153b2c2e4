"""Targets of ``deepesi explain --target``, by their names."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.interpret.any_model.targets import (
    NEIGHBOURHOOD,
    Moment,
    Power,
    Share,
    Target,
    neighbourhood,
)
from deepesi.physics.atlas import seitzman_parcels
from deepesi.physics.head import SourceSpace
from deepesi.physics.template import Template
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.runtime.writing.estimate import location
from deepesi.runtime.writing.subject_anatomy import SubjectAnatomy
from deepesi.utils.nearest import near_names

Array = NDArray[np.float64]

#: Targets at the strongest source.
AT_PEAK = ("localization", "moment", "power")
#: Hemispheres of a cortex, in the order of its sources.
HEMISPHERES = ("left", "right")
ALL = f"{', '.join(AT_PEAK)}, parcel:NAME or source:HEMISPHERE:VERTEX"
SOURCE = (
    "expected source:left:VERTEX or source:right:VERTEX with the number of a vertex, such as "
    "source:left:12; source:VERTEX in a volume"
)


class NamedTarget(NamedTuple):
    """What is explained.

    Attributes:
        target: The target.
        text: Its description.

    """

    target: Target
    text: str


def check_target(name: str) -> None:
    """Refuse a target of an unknown form.

    Raises:
        ValueError: It is none of `AT_PEAK`, ``parcel:NAME`` and ``source:HEMISPHERE:VERTEX``.

    """
    kind, colon, rest = name.partition(":")
    if kind == "source" and colon:
        *hemisphere, vertex = rest.split(":")
        is_known = not hemisphere or (len(hemisphere) == 1 and hemisphere[0] in HEMISPHERES)
        if not (is_known and vertex.isdecimal()):
            raise ValueError(f"--target {name}: {SOURCE}.")
    elif name not in AT_PEAK and not (kind == "parcel" and rest):
        raise ValueError(f"--target: unknown {name!r}, expected one of {ALL}.")


def named_target(
    name: str,
    moments: Array,
    peak: int,
    inverse: PreparedInverse,
    anatomy: SubjectAnatomy | None = None,
) -> NamedTarget:
    """The target of a name.

    Args:
        name: As `check_target` allows.
        moments: Moments of the estimate ``(D,)``, A m.
        peak: Number of the strongest source.
        inverse: The prepared model.
        anatomy: As in `location`.

    Raises:
        ModuleNotFoundError: A parcel, without nilearn, which brings the atlas.
        ValueError: A parcel or a source that the head does not have.

    """
    n_orient, radius = inverse.space.n_orient, f"{1e3 * NEIGHBOURHOOD:g} mm"
    kind, _, rest = name.partition(":")
    if kind == "parcel":
        inside = parcel_sources(rest, inverse.space, inverse.template)
        text = f"power of the parcel {rest} ({len(inside)} source(s))"
        return NamedTarget(Power(inside, n_orient), text)
    if kind == "source":
        source = source_number(name, inverse.space)
        text = f"moment of one source ({location(source, inverse, anatomy)})"
        return NamedTarget(_moment(source, moments, n_orient), text)
    near = neighbourhood(inverse.positions, peak)
    if kind == "power":
        text = f"power within {radius} of the strongest source"
        return NamedTarget(Power(near, n_orient), text)
    if kind == "localization":
        text = f"share of the power that lies within {radius} of the strongest source"
        return NamedTarget(Share(near, n_orient), text)
    return NamedTarget(_moment(peak, moments, n_orient), "moment of the strongest source")


def _moment(source: int, moments: Array, n_orient: int) -> Moment:
    """The largest component of a source."""
    return Moment(n_orient * source + int(np.abs(moments[n_orient * source :][:n_orient]).argmax()))


def parcel_sources(
    name: str, space: SourceSpace, template: Template | None = None
) -> tuple[int, ...]:
    """Numbers of the sources of a parcel.

    Args:
        name: Name of the parcel, as in `deepesi.physics.atlas.seitzman_parcels`.
        space: The sources.
        template: Their head; None: an installed one.

    Raises:
        ModuleNotFoundError: nilearn, which brings the atlas, is not installed.
        ValueError: There is no such parcel, or the sources have no MNI positions.

    """
    names, _, of_source = seitzman_parcels(space, template)
    if name not in names:
        near = near_names(name, names)
        nearest = f"Nearest: {', '.join(near)}. " if near else ""
        raise ValueError(
            f"--target parcel:{name}: {space.name} has no such parcel. {nearest}Names are network, "
            f"side and number in Seitzman's atlas, such as {names[0]!r}; the page of deepesi apply "
            "--html shows them under the mouse."
        )
    return tuple(np.flatnonzero(of_source == names.index(name)).tolist())


def source_number(name: str, space: SourceSpace) -> int:
    """Number of the source at a vertex.

    Args:
        name: ``source:left:VERTEX``, ``source:right:VERTEX`` or, in a volume, ``source:VERTEX``.
        space: The sources.

    Raises:
        ValueError: The vertex is not a source, or the form is that of another kind of space.

    """
    *hemisphere, vertex = name.split(":")[1:]
    is_cortex = len(space.vertices) == len(HEMISPHERES)
    if is_cortex != bool(hemisphere):
        what = "is a cortex with two hemispheres" if is_cortex else "has no hemispheres"
        raise ValueError(f"--target {name}: {space.name} {what}, {SOURCE}.")
    part = HEMISPHERES.index(hemisphere[0]) if hemisphere else 0
    numbers = space.vertices[part] if is_cortex else np.concatenate(space.vertices)
    found = np.flatnonzero(numbers == int(vertex))
    if not len(found):
        near = np.sort(numbers[np.argsort(np.abs(numbers - int(vertex)), kind="stable")[:3]])
        where = f"the {hemisphere[0]} hemisphere of {space.name}" if hemisphere else space.name
        raise ValueError(
            f"--target {name}: vertex {vertex} is not a source. Nearest numbers of the "
            f"{len(numbers)} sources of {where}: {', '.join(str(n) for n in near)}."
        )
    return int(found[0]) + sum(len(part) for part in space.vertices[:part])
