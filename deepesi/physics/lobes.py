"""Lobes of the cortex as boxes in MNI space, and the distance to another lobe."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Lobes as generous boxes of (distance from the midline, y, z), MNI mm; a lobe may have several.
#: Boxes of neighbouring lobes overlap, because borders differ from person to person. ``central``
#: is the cortex around the central sulcus. Of the coordinates that Dosenbach et al. 2010
#: (doi:10.1126/science.1194144) name after a lobe, 83 to 100 % lie in its boxes (a test checks it).
LOBES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "occipital": (((0.0, np.inf), (-np.inf, -55.0), (-np.inf, np.inf)),),
    "temporal": (((30.0, np.inf), (-55.0, 15.0), (-50.0, 25.0)),),
    "frontal": (
        ((0.0, np.inf), (-30.0, np.inf), (25.0, np.inf)),
        ((0.0, np.inf), (15.0, np.inf), (-30.0, np.inf)),
        ((35.0, np.inf), (-5.0, 15.0), (0.0, 25.0)),
    ),
    "parietal": (((0.0, np.inf), (-80.0, -15.0), (20.0, np.inf)),),
    "central": (((0.0, np.inf), (-45.0, 5.0), (20.0, np.inf)),),
    "insular": (((25.0, 48.0), (-30.0, 25.0), (-15.0, 20.0)),),
}
#: Least distance to a source in another lobe, m: medial sources of both hemispheres are neighbours.
MIN_DISTANCE = 0.03
#: Least distance where lobes are unknown, m: lobes are 60 to 80 mm across.
LOBE_SIZE = 0.06


def in_lobe(mni: Array, lobe: str) -> Mask:
    """Whether positions ``(S, 3)``, MNI mm, are in a lobe of either hemisphere; NaN is in none."""
    folded = np.concatenate([np.abs(mni[:, :1]), mni[:, 1:]], axis=1)
    low, high = np.moveaxis(np.array(LOBES[lobe]), -1, 0)[:, :, None]
    return np.asarray(((folded >= low) & (folded <= high)).all(axis=2).any(axis=0))


def lobe_text(mni: Array) -> str:
    """Hemisphere and lobes of one position ``(3,)``, MNI mm, such as ``"left occipital"``."""
    side = "right" if mni[0] > 0 else "left"
    names = [name for name in LOBES if in_lobe(mni[None], name)[0]]
    return f"{side} {' or '.join(names)}" if names else f"{side} hemisphere, in no lobe"


def elsewhere(source: int, positions: Array, mni: Array | None) -> Mask:
    """Which sources are in another lobe than one of them ``(S,)``.

    They share no lobe of one hemisphere with it, and are at least `MIN_DISTANCE` away. Without
    MNI positions, or for a source in no lobe: all that are at least `LOBE_SIZE` away.

    Args:
        source: Number of the source.
        positions: Source positions ``(S, 3)``, m.
        mni: Source positions ``(S, 3)``, MNI mm; None: unknown.

    """
    distance = np.linalg.norm(positions - positions[source], axis=1)
    if mni is None:
        return np.asarray(distance >= LOBE_SIZE)
    lobes = np.array([in_lobe(mni, name) for name in LOBES])
    if not lobes[:, source].any():
        return np.asarray(distance >= LOBE_SIZE)
    same_side = (mni[:, 0] > 0) == (mni[source, 0] > 0)
    shared = (lobes & lobes[:, [source]]).any(axis=0) & same_side
    return np.asarray(~shared & lobes.any(axis=0) & (distance >= MIN_DISTANCE))
