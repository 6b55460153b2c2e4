"""Building of magnetic families: charges that have the fields of MNE-Python's BEM.

One layer, the inner skull, as is usual for MEG: the skull lets so little current through that the
layers outside change the field by little.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.building.anatomy import Anatomy, Surface
from deepesi.physics.building.bem import MRI_FRAME
from deepesi.physics.building.warps import read_member
from deepesi.physics.family import BRAIN_CONDUCTIVITY
from deepesi.physics.graph import vertex_normals
from deepesi.physics.head_names import head_name
from deepesi.physics.magnetic import Coils, MagneticFieldFamily, charge_field
from deepesi.physics.magnetic_files import magnetic_file, save_magnetic
from deepesi.physics.noise import leading_eigh
from deepesi.physics.sensors import SensorArray
from deepesi.utils.cache import cache_folder
from deepesi.utils.optional import require

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Resolution of the inner skull in the BEM, and of the charges.
BEM_SPACING = "ico4"
#: Distance of the charges from the inner skull, inward, and of the points of the fit, outward, m.
CHARGE_DEPTH, FIT_DISTANCE = 0.002, 0.020
#: Smallest singular value of the fit, relative to the largest.
CUTOFF = 1e-9
#: Number of FIFF for a coil that is a point.
POINT_COIL = 2000


def point_info(points: Array) -> "mne.Info":
    """Measurement info of magnetometers along x, y and z at points ``(N, 3)``, m, head frame."""
    import mne

    info = mne.create_info(list(_point_names(points)), 1e3, "mag")
    axes = np.eye(3)
    for number, channel in enumerate(info["chs"]):
        turned = np.roll(axes, -1 - number % 3, axis=0)  # the last of the three is the normal
        channel["loc"][:] = np.concatenate([points[number // 3], turned.ravel()])
        channel["coil_type"], channel["coord_frame"] = POINT_COIL, 1
    info["dev_head_t"] = mne.Transform("meg", "head", np.eye(4))
    return info


def point_coils(points: Array) -> Coils:
    """The coils of `point_info`."""
    n = 3 * len(points)
    at, directions = np.repeat(points, 3, axis=0), np.tile(np.eye(3), (len(points), 1))
    sensors = SensorArray(_point_names(points), ("mag",) * n, at, directions)
    return Coils(sensors, at, directions, np.ones(n), np.arange(n))


def _point_names(points: Array) -> tuple[str, ...]:
    return tuple(f"P{i}{axis}" for i in range(len(points)) for axis in "xyz")


def solve_magnetic(inner_skull: Surface, source_pos: Array, info: "mne.Info") -> Array:
    """Lead field of MNE-Python's one-layer BEM ``(C, 3 S)``, T/(A m) or T/(A m²).

    Args:
        inner_skull: Vertices, m, head frame, and triangles.
        source_pos: ``(S, 3)``, m, head frame.
        info: MEG channels with their position in the head frame.

    Raises:
        RuntimeError: A source lies outside the inner skull.

    """
    mne = require("mne", "head", "solve the BEM")
    from mne.surface import complete_surface_info

    # Surfaces are in the head frame; MNE requires the label MRI, as in `bem.solve`.
    vertices, faces = inner_skull
    surface: dict[str, Any] = {
        "rr": vertices,
        "tris": faces,
        "np": len(vertices),
        "ntri": len(faces),
        "id": 1,
        "sigma": BRAIN_CONDUCTIVITY,
        "coord_frame": np.array(MRI_FRAME),
    }
    bem = mne.make_bem_solution(
        [complete_surface_info(surface, copy=False, verbose="error")], verbose="error"
    )
    up = np.tile([0.0, 0.0, 1.0], (len(source_pos), 1))
    src = mne.setup_volume_source_space(pos={"rr": source_pos, "nn": up}, verbose="error")
    forward = mne.make_forward_solution(
        info, mne.Transform("head", "mri"), src, bem, eeg=False, mindist=0, verbose="error"
    )
    if forward["nsource"] != len(source_pos):
        raise RuntimeError(
            f"solve_magnetic: MNE used {forward['nsource']} of {len(source_pos)} sources; the "
            "others are outside the inner skull."
        )
    return np.asarray(forward["sol"]["data"])


def _offset(surface: Surface, distance: float) -> Array:
    """Vertices moved along the outward normals, m."""
    vertices, faces = surface
    return np.asarray(vertices + distance * vertex_normals(vertices, faces))


def fit_magnetic(anatomy: Anatomy, inner_skull: Surface) -> MagneticFieldFamily:
    """The family of a head from one boundary element solution, three components per source.

    Args:
        anatomy: Sources; its inner skull carries the charges.
        inner_skull: Inner skull of the BEM, of any resolution.

    """
    points = _offset(anatomy.inner_skull, FIT_DISTANCE)
    field = solve_magnetic(inner_skull, anatomy.source_pos, point_info(points))
    return reduce_magnetic(anatomy.inner_skull, field)


def reduce_magnetic(skull: Surface, field: Array) -> MagneticFieldFamily:
    """Charges and modes for fields ``(3 N, 3 S)`` at the points of the fit.

    The modes are those of the fields at these points, with every source at the same strength, so
    that deep sources are as accurate as others. There are as many as charges: sensors on the scalp
    need the weak ones.
    """
    points, charge_pos = _offset(skull, FIT_DISTANCE), _offset(skull, -CHARGE_DEPTH)
    of_charges = charge_field(point_coils(points), charge_pos)
    to_charges = np.linalg.pinv(of_charges, rcond=CUTOFF)
    fitted = of_charges @ (to_charges @ field)
    norms = np.linalg.norm(fitted, axis=0)
    fitted /= norms
    _, vectors = leading_eigh(fitted @ fitted.T, min(len(charge_pos), fitted.shape[1]))
    return MagneticFieldFamily(charge_pos, to_charges @ vectors, (vectors.T @ fitted * norms).T)


def build_magnetic(
    warp_seed: int | None, spacings: Sequence[str], folder: Path | None = None
) -> Iterator[Path]:
    """Build the magnetic fields of the template head or of a warped head; yield every file.

    Args:
        warp_seed: Seed of the warp. None: template head.
        spacings: Spacings of the sources, each a file of its own.
        folder: Output folder. Default: the cache, where heads of these names find them.

    """
    fine = read_member(warp_seed, "ico1", BEM_SPACING).inner_skull
    for spacing in spacings:
        anatomy = read_member(warp_seed, spacing)
        path = (folder or cache_folder()) / magnetic_file(head_name(warp_seed, spacing))
        save_magnetic(path, fit_magnetic(anatomy, fine), anatomy.space.vertices)
        yield path
