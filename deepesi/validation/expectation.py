"""Expected location of a response: a landmark and a lobe in MNI space."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.lobes import LOBES, in_lobe

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
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
HEMISPHERES = ("left", "right")
#: Parts of an expectation that a source meets or not.
CRITERIA = ("hemisphere", "lobe", "tolerance")
#: A box around the cortex, MNI mm: lowest and highest (x, y, z).
CORTEX = np.array([(-80.0, -115.0, -65.0), (80.0, 80.0, 90.0)])


@dataclass(frozen=True)
class Expectation:
    """Expected location of a response: at least a hemisphere, a lobe or a landmark.

    Attributes:
        hemisphere: ``"left"`` or ``"right"``; None: either.
        area: Key of `CENTRES`: its centre in the hemisphere is the landmark.
        lobe: Key of `LOBES`, in the hemisphere if there is one.
        why: Reason, with a reference.
        mni: Landmark ``(x, y, z)``, MNI mm, in place of an area.
        within: Largest distance from the target that is a success, mm; None: any.

    Raises:
        ValueError: Nothing is expected, an unknown name, an area without hemisphere or beside
            coordinates, a tolerance without landmark or in another unit, or a landmark outside the
            cortex, the hemisphere or the lobe.

    """

    hemisphere: Hemisphere | None = None
    area: str | None = None
    lobe: str | None = None
    why: str = ""
    mni: tuple[float, float, float] | None = None
    within: float | None = None

    def __post_init__(self) -> None:
        known = {"hemisphere": HEMISPHERES, "area": CENTRES, "lobe": LOBES}
        for key, names in known.items():
            name = getattr(self, key)
            if name is not None and name not in names:
                raise ValueError(
                    f"Expectation: {key} is unknown {name!r}, expected one of {list(names)}."
                )
        if self.hemisphere is None and self.lobe is None and self.mni is None:
            raise ValueError(
                "Expectation: no location is expected. Give at least one of hemisphere, lobe and "
                "coordinates (mni)."
            )
        if self.area is not None and (self.hemisphere is None or self.mni is not None):
            raise ValueError(
                f"Expectation: the area {self.area!r} gives the landmark of one hemisphere. Give "
                "the hemisphere, and no coordinates (mni)."
            )
        self._check_tolerance()
        self._check_landmark()

    def _check_tolerance(self) -> None:
        if self.within is None:
            return
        if self.landmark is None:
            raise ValueError(
                f"Expectation: a tolerance (within {self.within:g} mm) needs coordinates (mni) or "
                "an area. Give one of them, or leave the tolerance out."
            )
        if not 1 <= self.within <= 150:
            raise ValueError(
                f"Expectation: a tolerance (within) of {self.within:g} mm, expected 1 to 150 mm. "
                "Is it in m or cm? Give it in mm."
            )

    def _check_landmark(self) -> None:
        """Refuse coordinates in another unit, and those that cannot be met with the rest."""
        if self.landmark is None:
            return
        text = f"Expectation: the coordinates {position_text(self.landmark)} mm"
        if np.abs(self.landmark).max() < 1:
            raise ValueError(
                f"Expectation: the coordinates {self.landmark.tolist()} are all below 1 mm. Are "
                "they in m? Give them in mm."
            )
        if (self.landmark < CORTEX[0]).any() or (self.landmark > CORTEX[1]).any():
            low, high = (position_text(corner) for corner in CORTEX)
            raise ValueError(
                f"{text} lie outside the brain, which is between {low} and {high}. Give MNI "
                "coordinates (x to the right, y to the front, z up)."
            )
        for key, inside in self._anatomy(self.landmark[None]).items():
            if not inside.all():
                raise ValueError(
                    f"{text} lie outside the {key} that is expected, too "
                    f"({getattr(self, key)}). Correct one of them, or leave the {key} out."
                )

    @property
    def landmark(self) -> Array | None:
        """Expected source location ``(3,)``, MNI mm; None: none is given."""
        if self.area is not None:
            return np.array(CENTRES[self.area][self.hemisphere == "right"])
        return None if self.mni is None else np.array(self.mni, dtype=np.float64)

    @property
    def landmark_text(self) -> str:
        """Text of the landmark; empty without one."""
        if self.landmark is None:
            return ""
        of = "point " if self.area is None else f"centre of the {self.hemisphere} {self.area}, "
        return f"{of}MNI {position_text(self.landmark)} mm"

    def in_hemisphere(self, mni: Array) -> Mask:
        """Whether positions ``(S, 3)``, MNI mm, are in the expected hemisphere, or in either."""
        if self.hemisphere is None:
            return np.ones(len(mni), dtype=bool)
        return np.asarray((mni[:, 0] > 0) == (self.hemisphere == "right"))

    def in_lobe(self, mni: Array) -> Mask:
        """Whether positions ``(S, 3)``, MNI mm, are in the expected lobe of that hemisphere."""
        assert self.lobe is not None
        return np.asarray(in_lobe(mni, self.lobe) & self.in_hemisphere(mni))

    def _anatomy(self, mni: Array) -> dict[str, Mask]:
        """The expected ones of hemisphere and lobe, at positions ``(S, 3)``, MNI mm."""
        inside = {"hemisphere": self.in_hemisphere, "lobe": self.in_lobe}
        return {k: contains(mni) for k, contains in inside.items() if getattr(self, k) is not None}

    def met(self, mni: Array, target_distance: Array | None) -> dict[str, Mask]:
        """Whether sources meet the expectation ``(S,)``, by those of `CRITERIA` that it has.

        Args:
            mni: Source positions ``(S, 3)``, MNI mm.
            target_distance: Distance of every source to the target ``(S,)``, mm; None: no target.

        """
        met = self._anatomy(mni)
        if self.within is not None and target_distance is not None:
            met["tolerance"] = np.asarray(target_distance <= self.within)
        return met

    def __str__(self) -> str:
        parts = [self.hemisphere or "", f"{self.lobe} lobe" if self.lobe else ""]
        where = " ".join(part for part in parts if part)
        if self.hemisphere and not self.lobe:
            where += " hemisphere"
        landmark = f"landmark: {self.landmark_text}" if self.landmark is not None else ""
        if self.within is not None:
            landmark += f", within {self.within:g} mm"
        return "; ".join(part for part in (where, landmark) if part)


def position_text(position: Iterable[float]) -> str:
    """Text of a position ``(3,)``, MNI mm, such as ``(16, -73, 9)``."""
    x, y, z = (round(float(value)) for value in position)  # integers have no -0
    return f"({x}, {y}, {z})"
