"""Expected location of a response: a landmark and a lobe in MNI space."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Hemisphere = Literal["left", "right"]

#: Centres of areas of the AAL atlas, MNI mm, (left, right). Source: Tzourio-Mazoyer et al. 2002,
#: doi:10.1006/nimg.2001.0978, centres of mass as listed with BrainNet Viewer (Xia et al. 2013,
#: doi:10.1371/journal.pone.0068910). The atlas is in MNI152 space (Colin27 brain); we use
#: MNI305. They differ by a few mm, less than the extent of any of these areas.
CENTRES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "calcarine cortex": ((-7.1, -78.7, 6.4), (16.0, -73.2, 9.4)),
    "middle occipital gyrus": ((-32.4, -80.7, 16.1), (37.4, -79.7, 19.4)),
    "Heschl's gyrus": ((-42.0, -18.9, 10.0), (45.9, -17.2, 10.4)),
}
#: Lobes as generous boxes of (distance from the midline, y, z), MNI mm.
LOBES: dict[str, tuple[tuple[float, float], ...]] = {
    "occipital": ((0.0, np.inf), (-np.inf, -55.0), (-np.inf, np.inf)),
    "temporal": ((30.0, np.inf), (-55.0, 15.0), (-50.0, 25.0)),
}


@dataclass(frozen=True)
class Expectation:
    """Expected location of a response.

    Attributes:
        hemisphere: ``"left"`` or ``"right"``.
        area: Key of `CENTRES`.
        lobe: Key of `LOBES`.
        why: Reason, with a reference.

    Raises:
        ValueError: The area or lobe is unknown.

    """

    hemisphere: Hemisphere
    area: str
    lobe: str
    why: str

    def __post_init__(self) -> None:
        for name, known in ((self.area, CENTRES), (self.lobe, LOBES)):
            if name not in known:
                raise ValueError(f"Expectation: unknown {name!r}, expected one of {list(known)}.")

    @property
    def landmark(self) -> Array:
        """Centre of the area ``(3,)``, MNI mm."""
        return np.array(CENTRES[self.area][self.hemisphere == "right"])

    def in_hemisphere(self, mni: Array) -> NDArray[np.bool_]:
        """Whether positions ``(S, 3)``, MNI mm, are in the expected hemisphere."""
        return np.asarray((mni[:, 0] > 0) == (self.hemisphere == "right"))

    def in_lobe(self, mni: Array) -> NDArray[np.bool_]:
        """Whether positions ``(S, 3)``, MNI mm, are in the expected lobe of that hemisphere."""
        low, high = np.array(LOBES[self.lobe]).T
        folded = np.concatenate([np.abs(mni[:, :1]), mni[:, 1:]], axis=1)
        inside = ((folded >= low) & (folded <= high)).all(axis=1)
        return inside & self.in_hemisphere(mni)

    def __str__(self) -> str:
        x, y, z = self.landmark
        return (
            f"{self.hemisphere} {self.lobe} lobe; landmark: centre of the {self.hemisphere} "
            f"{self.area}, MNI ({x:.0f}, {y:.0f}, {z:.0f}) mm"
        )
