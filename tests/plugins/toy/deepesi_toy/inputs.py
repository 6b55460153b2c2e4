"""Head inputs of the network. No torch: users of an exported file compute them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput


@dataclass(frozen=True)
class Sensitivity(HeadInput):
    """Norm of every column of the lead field ``(D,)``, to a power, V/(A m) for the power 1.

    Attributes:
        power: The power.

    """

    power: float = 1.0

    axes: ClassVar[tuple[str, ...]] = ("dipoles",)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """The norm over electrodes."""
        return np.linalg.norm(head.leadfield, axis=0) ** self.power
