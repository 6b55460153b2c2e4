"""Parcels of the cortex: every source belongs to the nearest coordinate of an atlas."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepesi.physics.head import SourceSpace
from deepesi.physics.template import Template, template_of
from deepesi.utils.optional import require

Array = NDArray[np.float64]

#: Largest distance of a source from the coordinate of its parcel, mm.
FARTHEST = 25.0


class Parcels(NamedTuple):
    """Parcels of a source space.

    Attributes:
        names: Names of the ``R`` parcels.
        centres: MNI coordinates of the atlas ``(R, 3)``, mm.
        of_source: Index of the parcel of every source ``(S,)``; -1: none.

    """

    names: tuple[str, ...]
    centres: Array
    of_source: NDArray[np.int64]

    def time_courses(self, magnitudes: Array) -> Array:
        """RMS over the sources of every parcel: ``(S, T)`` to ``(R, T)``, in the unit of both.

        The RMS does not cancel; moments along the normals of two walls of a sulcus would.
        """
        inside = self.of_source >= 0
        sums = np.zeros((len(self.names), magnitudes.shape[1]))
        np.add.at(sums, self.of_source[inside], magnitudes[inside] ** 2)
        counts = np.bincount(self.of_source[inside], minlength=len(self.names))
        return np.asarray(np.sqrt(sums / counts[:, None]))


def seitzman_parcels(space: SourceSpace, template: Template | None = None) -> Parcels:
    """The cortical parcels of Seitzman's 300 regions that contain sources of a space.

    Names are network, side and number in the atlas.

    Args:
        space: Source space of a head with MNI positions.
        template: The head of these sources; None: an installed one.

    Raises:
        ValueError: The sources have no MNI positions.
        ModuleNotFoundError: Without nilearn, which brings the table.

    Source: Seitzman et al. 2020, doi:10.1016/j.neuroimage.2019.116290, from nilearn. Difference:
    the nearest sources belong to a parcel, not those in a sphere of 5 mm.

    """
    head = template or template_of(space)
    if head is None or not np.isfinite(head.source_mni).all():
        raise ValueError(
            f"parcels: the source space {space.name} has no MNI positions, so its sources belong "
            "to no parcel of an atlas. Use a packaged head."
        )
    return _parcels(head)


def parcel_names(template: Template) -> tuple[list[str], str]:
    """Name of the parcel of every source of a head, for a page.

    Args:
        template: A head.

    Returns:
        The names, empty where a source belongs to none, as in `seitzman_parcels`; and an empty
        text. No names for a head without MNI positions or without nilearn, and the reason.

    """
    if not np.isfinite(template.source_mni).all():
        return [], f"parcels are not named: the head {template.name} has no MNI positions"
    try:
        parcels = _parcels(template)
    except ModuleNotFoundError as error:
        return [], f"parcels are not named: {error}"
    return [parcels.names[k] if k >= 0 else "" for k in parcels.of_source.tolist()], ""


def _parcels(template: Template) -> Parcels:
    datasets = require("nilearn.datasets", "stream", "group sources by an atlas")
    atlas = datasets.fetch_coords_seitzman_2018()
    centres = np.asarray(atlas["rois"][["x", "y", "z"]], dtype=np.float64)
    cortical = np.array([str(r).startswith("cortex") for r in atlas["regions"]])
    numbers = np.flatnonzero(cortical)
    apart, nearest = cKDTree(centres[numbers]).query(template.source_mni)
    near = (apart <= FARTHEST) & template.is_cortex
    used = np.unique(nearest[near])
    renumbered = np.full(len(numbers), -1)
    renumbered[used] = np.arange(len(used))
    of_source = np.where(near, renumbered[nearest], -1)
    sides = [str(parcel).removeprefix("cortex") for parcel in atlas["regions"]]
    names = tuple(f"{atlas['networks'][n]} {sides[n]} {n + 1}" for n in numbers[used])
    return Parcels(names, centres[numbers[used]], of_source)
