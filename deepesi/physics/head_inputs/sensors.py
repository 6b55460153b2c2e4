"""Descriptions of single sensors, for networks with one token per sensor."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput
from deepesi.physics.sensors import KINDS

#: Scale of positions, m.
HEAD_SIZE = 0.1
#: Number of values per sensor.
N_ENCODED = 6 + len(KINDS)


@dataclass(frozen=True)
class SensorEncodings(HeadInput):
    """Position (in 10 cm), orientation and kind of every sensor ``(C, 9)``, no unit, head frame.

    The orientation of electrodes is zero. The kind is 1 in one of three columns: electrode,
    magnetometer, gradiometer.
    """

    axes: ClassVar[Axes] = ("channels", N_ENCODED)

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        sensors = head.sensors
        kinds = np.array([[kind == name for name in KINDS] for kind in sensors.kinds], float)
        return np.hstack([sensors.positions / HEAD_SIZE, sensors.orientations, kinds])
