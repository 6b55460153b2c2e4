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

#: Electrodes below are on the face and the neck, m under the plane of nasion and ears.
LOWEST = -0.03


def draw_scalp(
    ax: "Axes",
    potentials: Array,
    sensor_pos: Array,
    ch_names: Sequence[str],
    limit: float | None = None,
) -> "AxesImage":
    """Draw average-referenced potentials.

    Args:
        ax: Where to draw.
        potentials: ``(C,)``, V.
        sensor_pos: Electrodes ``(C, 3)``, m, head frame.
        ch_names: ``C`` names.
        limit: Potential that gets the strongest colour, V; by default the largest.

    Returns:
        The map, for a colour bar.

    """
    import mne

    info = eeg_info(ch_names, sensor_pos)
    limit = limit or float(np.abs(potentials).max())
    # The projection pulls face and neck far apart; nothing is known between their electrodes.
    extrapolate = "head" if sensor_pos[:, 2].min() > LOWEST else "local"
    image, _ = mne.viz.plot_topomap(
        potentials,
        info,
        axes=ax,
        show=False,
        vlim=(-limit, limit),
        cmap="RdBu_r",
        contours=4,
        sphere="auto",
        extrapolate=extrapolate,
    )
    return image
