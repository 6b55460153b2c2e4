"""Scalp maps with MNE-Python's own topographic plot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.montage import electrode_info

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def draw_scalp(ax: "Axes", potentials: Array, sensor_pos: Array, ch_names: Sequence[str]) -> None:
    """Draw average-referenced potentials.

    Args:
        ax: Where to draw.
        potentials: ``(C,)``, V.
        sensor_pos: Electrodes ``(C, 3)``, m, head frame.
        ch_names: ``C`` names.

    """
    import mne

    info = electrode_info(ch_names, sensor_pos)
    limit = float(np.abs(potentials).max())
    mne.viz.plot_topomap(
        potentials, info, axes=ax, show=False, vlim=(-limit, limit), cmap="RdBu_r", contours=4,
        sphere="auto",
    )  # fmt: skip
