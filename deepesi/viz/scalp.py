"""Scalp maps with MNE-Python's own topographic plot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.montage import eeg_info

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Array = NDArray[np.float64]

#: Height of the lowest sensors, m, head frame. Lower ones are on the face or the neck.
LOWEST = -0.03
#: Radius, m, above which sensors are those of a helmet: the outline is then theirs.
LARGEST_HEAD = 0.105


def draw_scalp(
    ax: "Axes",
    potentials: Array,
    sensor_pos: Array,
    ch_names: Sequence[str],
    limit: float | None = None,
) -> "AxesImage":
    """Draw referenced potentials, or fields of coils.

    Args:
        ax: Axes to draw in.
        potentials: Potentials ``(C,)``, V.
        sensor_pos: Sensor positions ``(C, 3)``, m, head frame.
        ch_names: Channel names.
        limit: Potential with the strongest colour, V. Default: the largest.

    Returns:
        Image, for a colour bar.

    """
    import mne

    info, sphere = eeg_info(ch_names, sensor_pos), fitted_sphere(sensor_pos)
    limit = limit or float(np.abs(potentials).max())
    # In the projection face and neck are far apart, with no sensors in between.
    extrapolate = "head" if sensor_pos[:, 2].min() > LOWEST else "local"
    image: AxesImage = mne.viz.plot_topomap(
        potentials,
        info,
        axes=ax,
        show=False,
        vlim=(-limit, limit),
        cmap="RdBu_r",
        contours=4,
        sphere="auto" if sphere[3] < LARGEST_HEAD else sphere,
        extrapolate=extrapolate,
    )[0]
    return image


def fitted_sphere(positions: Array) -> Array:
    """Centre and radius ``(4,)``, m, of the sphere through positions ``(C, 3)``, least squares."""
    columns = np.hstack([2 * positions, np.ones((len(positions), 1))])
    solution = np.linalg.lstsq(columns, (positions**2).sum(axis=1), rcond=None)[0]
    centre = solution[:3]
    return np.append(centre, np.sqrt(solution[3] + centre @ centre))
