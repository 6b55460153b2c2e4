"""MEG sensor arrays by name, and the position of a head in them."""

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepesi.physics.io.coils import coils_of
from deepesi.physics.magnetic import Coils

Array = NDArray[np.float64]

#: Helmets, by the names of MNE-Python's canonical arrays.
HELMETS = {"neuromag306": "neuromag", "ctf275": "ctf275"}
#: On-scalp magnetometers (QuSpin ZFOPM) at the electrodes of a montage.
ON_SCALP = "opm64"
ARRAYS = (*HELMETS, ON_SCALP)
#: Montage of the on-scalp array, distance of its cells from the scalp, m, number of FIFF.
OPM_MONTAGE, OPM_DISTANCE, OPM_COIL = "biosemi64", 0.0065, 8001
#: Least distance of the coils of a helmet from the scalp, m: the wall of the dewar.
CLEARANCE = 0.017
#: Height from which a head is moved into a helmet, and the step, m.
START, STEP = 0.12, 0.001


@functools.cache
def helmet(name: str) -> Coils:
    """A helmet in the frame of its device, with the integration points of MNE-Python.

    Args:
        name: A key of `HELMETS`.

    """
    import mne

    info = mne.channels.read_meg_canonical_info(HELMETS[name])
    return coils_of(info, in_device=True)


def put_on(coils: Coils, scalp_pos: Array, rotation: Array, shift: Array, gap: float) -> Coils:
    """A helmet on a head: rotated, shifted sideways, then lowered as far as possible.

    Args:
        coils: The helmet in the frame of its device.
        scalp_pos: Vertices of the scalp ``(N, 3)``, m, head frame.
        rotation: Rotation of the helmet ``(3, 3)``.
        shift: Shift of its middle from that of the head, to the right and forward, m.
        gap: Least distance of a coil from the scalp, m.

    """
    tree, middle = cKDTree(scalp_pos), np.ptp(scalp_pos, axis=0) / 2 + scalp_pos.min(axis=0)
    turned = coils.moved(rotation, np.zeros(3))
    centre = np.ptp(turned.points, axis=0) / 2 + turned.points.min(axis=0)
    side = np.append(middle[:2] - centre[:2] + shift, START)
    while True:
        lower = side - [0, 0, STEP]
        if tree.query(turned.points + lower)[0].min() < gap or lower[2] < 0:
            return turned.moved(np.eye(3), side)
        side = lower


def on_scalp(positions: Array, centre: Array) -> Coils:
    """On-scalp magnetometers over points of the scalp ``(C, 3)``, m, facing `centre`."""
    import mne

    names = [f"OPM {number:03d}" for number in range(1, len(positions) + 1)]
    info = mne.create_info(names, 1e3, "mag")
    outward = positions - centre
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    for channel, position, z in zip(info["chs"], positions, outward, strict=True):
        x = np.cross([0.0, 1.0, 0.0], z)
        x /= np.linalg.norm(x)
        axes = np.concatenate([x, np.cross(z, x), z])
        channel["loc"][:] = np.concatenate([position + OPM_DISTANCE * z, axes])
        channel["coil_type"], channel["coord_frame"] = OPM_COIL, 1
    info["dev_head_t"] = mne.Transform("meg", "head", np.eye(4))
    return coils_of(info)
