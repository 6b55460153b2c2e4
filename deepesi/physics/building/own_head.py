"""Subject heads from a forward solution, or from BEM surfaces and a source space."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.building.anatomy import (
    CALVARIA,
    MIN_SCALP_THICKNESS,
    SOURCE_DEPTH,
    Anatomy,
    Skull,
    Surface,
)
from deepesi.physics.building.build import build_head, geometry_digest
from deepesi.physics.family import TissueGrid
from deepesi.physics.graph import is_inside
from deepesi.physics.io.channels import sensor_array, sensor_positions
from deepesi.physics.io.source_space import source_space
from deepesi.physics.magnetic import KnownCoils
from deepesi.physics.scalp import project_to_mesh
from deepesi.physics.scalp_potential import ScalpPotentialFamily
from deepesi.physics.sensors import SensorArray
from deepesi.physics.template import Template, load_template
from deepesi.utils.cache import cache_folder
from deepesi.utils.optional import require

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

HEAD_FRAME = 4  # FIFFV_COORD_HEAD, the FIFF constant of the MNE head frame
SURFACES = {4: "the scalp", 3: "the outer skull", 1: "the inner skull"}  # by FIFF number


def head_of_forward(forward: str | Path, n_orient: int = 1) -> Template:
    """Head from the file of a forward solution, as `head_of_solution` makes it.

    Args:
        forward: Path of a ``-fwd.fif``.
        n_orient: 1: normal to the surface; 3: free orientation.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The forward solution does not fit, see `head_of_solution`.

    """
    mne = require("mne", "head", "read the forward solution")
    solution = mne.read_forward_solution(_file(forward, "forward"), verbose="error")
    return head_of_solution(solution, n_orient, _stem(forward), str(forward))


def head_of_solution(
    solution: "mne.Forward",
    n_orient: int = 1,
    name: str | None = None,
    forward: str = "the forward solution",
) -> Template:
    """Head from one `mne.Forward`, with the EEG and MEG channels, sources and lead field in it.

    Args:
        solution: Forward solution.
        n_orient: 1: normal to the surface; 3: free orientation.
        name: Name of the head; by default that of the source space.
        forward: What errors call the forward solution.

    Raises:
        ValueError: There are no EEG or MEG channels, sensors have no positions or positions that
            do not match the names, there are no normals for fixed orientation, or a fixed solution
            is requested with free orientation.

    """
    mne = require("mne", "head", "read the forward solution")
    if n_orient not in (1, 3):
        raise ValueError(f"head_of_forward: n_orient must be 1 or 3, got {n_orient}.")
    name = name or source_space(solution["src"]).name
    info = solution["info"]
    kinds_of = dict(zip(info["ch_names"], info.get_channel_types(), strict=True))
    names = [name for name, kind in kinds_of.items() if kind == "eeg"]
    coils = [name for name, kind in kinds_of.items() if kind in ("mag", "grad")]
    if not names and not coils:
        raise ValueError(
            f"head_of_forward: {forward} has no EEG or MEG channels. Compute it with eeg=True."
        )
    solution = mne.pick_channels_forward(solution, [*names, *coils], ordered=True, verbose="error")
    kinds = {part["type"] for part in solution["src"]}
    is_fixed = solution["sol"]["ncol"] == solution["nsource"]
    if n_orient == 1 and not is_fixed and kinds != {"surf"}:
        raise ValueError(
            f"head_of_forward: {forward} has sources of the kinds {sorted(kinds)}. Sources "
            "that are not on a surface have no normal for fixed orientation. Use head.n_orient=3."
        )
    if n_orient == 3 and is_fixed:
        raise ValueError(
            f"head_of_forward: {forward} was computed for fixed orientation only. Use "
            "head.n_orient=1, or compute it with free orientation."
        )
    if solution["coord_frame"] != HEAD_FRAME:
        raise ValueError(
            f"head_of_forward: {forward} is not in the MNE head frame. Read and compute it with "
            "mne.make_forward_solution, which uses that frame."
        )
    normals = np.concatenate([_normals(part) for part in solution["src"]])
    gain = np.asarray(solution["sol"]["data"], dtype=np.float64)
    if n_orient == 1 and not is_fixed:
        gain = np.einsum("csi,si->cs", gain.reshape(len(gain), -1, 3), normals)
    scalp, n_eeg = SensorArray.eeg(names, _positions(info, names, forward)), len(names)
    channels = "|".join([*names, *coils]).encode()
    left, values, right = np.linalg.svd(scalp.reference(gain[:n_eeg]), full_matrices=False)
    known = None
    if coils:
        sensors = sensor_array(info, coils, f"head_of_forward: {forward}")
        known = KnownCoils.of(sensors, sensors.to_head(gain[n_eeg:]))
    return Template(
        name=name,
        family=ScalpPotentialFamily(
            scalp_pos=scalp.positions,
            scalp_faces=np.empty((0, 3), dtype=np.int64),
            bounds=np.zeros((3, 2)),
            terms=np.zeros((1, 3), dtype=np.int64),
            scalp_modes=left,
            core=np.diag(values)[None],
            source_modes=right.T,
            eye_core=np.empty((1, len(values), 0)),
        ),
        space=source_space(solution["src"], n_orient),
        source_pos=np.asarray(solution["source_rr"], dtype=np.float64),
        source_normals=normals,
        source_mni=np.full((solution["nsource"], 3), np.nan),
        is_cortex=np.ones(solution["nsource"], dtype=bool),
        cap=tuple(names),
        known_coils=known,
        fingerprint=hashlib.sha256(gain.tobytes() + channels).hexdigest(),
    )


def _positions(info: "mne.Info", names: list[str], forward: str) -> Array:
    """Positions of the EEG channels ``(C, 3)``; of none without EEG."""
    if not names:
        return np.empty((0, 3))
    return sensor_positions(info, names, f"head_of_forward: {forward}")


def head_of_anatomy(
    bem: str | Path,
    src: str | Path,
    trans: str | Path,
    n_orient: int = 1,
    drop_outside: bool = False,
    grid: TissueGrid | None = None,
) -> Template:
    """Head from the anatomy of a subject, for any conductivity, skull thickness and montage.

    It is built on first use (minutes, longer for fine surfaces) and then read from the cache. The
    skull thickness varies in proportion to that of the subject. The head has no eyes.

    Args:
        bem: Path of BEM surfaces (``-bem.fif``): scalp, outer and inner skull.
        src: Path of a source space (``-src.fif``).
        trans: Path of the transform between MRI and head (``-trans.fif``).
        n_orient: 1: normal to the surface; 3: free orientation.
        drop_outside: Whether to omit sources outside the inner skull or less than 2 mm inside,
            where the BEM is not accurate. If not, they are an error.
        grid: Grid of tissues to cover. Default: that of the packaged heads.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: A surface is missing, surfaces cross, or sources are outside the inner skull.

    """
    anatomy = read_own_anatomy(bem, src, trans, n_orient, drop_outside)
    grid = grid or TissueGrid()
    digest = geometry_digest(anatomy, grid)
    for part in (anatomy.source_pos, anatomy.source_normals, anatomy.space.edges):
        digest.update(np.ascontiguousarray(part).tobytes())
    name = f"{anatomy.space.name}-{'free-' * (n_orient == 3)}{digest.hexdigest()[:12]}"
    path = cache_folder() / f"{name}.npz"
    if not path.is_file():
        build_head(path, name, anatomy, grid)
    return load_template(path)


def read_own_anatomy(
    bem: str | Path,
    src: str | Path,
    trans: str | Path,
    n_orient: int = 1,
    drop_outside: bool = False,
) -> Anatomy:
    """Read the anatomy of a subject for `head_of_anatomy`, in the MNE head frame."""
    mne = require("mne", "head", "read the anatomy")
    from mne.transforms import apply_trans

    mri_head = mne.read_trans(_file(trans, "trans"))
    if mri_head["from"] == HEAD_FRAME:
        mri_head = mne.transforms.invert_transform(mri_head)
    surfaces = {s["id"]: s for s in mne.read_bem_surfaces(_file(bem, "bem"), verbose="error")}
    absent = [text for number, text in SURFACES.items() if number not in surfaces]
    if absent:
        raise ValueError(
            f"head_of_anatomy: {bem} lacks {', '.join(absent)}. The conductivity family needs all "
            "three surfaces (mne.make_bem_model with three conductivities)."
        )
    scalp, outer, inner = (
        (apply_trans(mri_head, surfaces[i]["rr"]), np.asarray(surfaces[i]["tris"], np.int64))
        for i in SURFACES
    )
    spaces = mne.read_source_spaces(_file(src, "src"), verbose="error")
    if n_orient == 1 and {s["type"] for s in spaces} != {"surf"}:
        raise ValueError(
            f"head_of_anatomy: {src} has sources that are not on a surface and have no normal for "
            "fixed orientation. Use head.n_orient=3."
        )
    to_head = np.eye(4) if spaces[0]["coord_frame"] == HEAD_FRAME else mri_head
    good = [_inside(apply_trans(to_head, s["rr"][s["vertno"]]), inner) for s in spaces]
    n_outside = sum(int((~kept).sum()) for kept in good)
    if n_outside and not drop_outside:
        raise ValueError(
            f"head_of_anatomy: {n_outside} of {sum(map(len, good))} sources lie outside the inner "
            f"skull or less than {1e3 * SOURCE_DEPTH:g} mm inside. Check that surfaces, source "
            "space and transform belong together and are in metres, or omit these sources "
            "(head.drop_outside=true)."
        )
    for part, kept in zip(spaces, good, strict=True):
        part["vertno"] = part["vertno"][kept]
    pos = apply_trans(to_head, np.concatenate([s["rr"][s["vertno"]] for s in spaces]))
    normals = apply_trans(to_head, np.concatenate([_normals(s) for s in spaces]), move=False)
    return Anatomy(
        scalp=scalp,
        skull=_skull(outer, inner, scalp),
        inner_skull=inner,
        eyes=np.empty((0, 3)),
        space=source_space(spaces, n_orient),
        source_pos=pos,
        source_normals=normals,
        source_mni=np.full_like(pos, np.nan),
        is_cortex=np.ones(len(pos), dtype=bool),
        display=None,
        n_moved=0,
        mri_head=np.asarray(mri_head["trans"], dtype=np.float64),
    )


def _normals(part: Any) -> Array:
    """Normals of the sources in one part of a source space; zero if it is not a surface."""
    if part["type"] != "surf":
        return np.zeros((len(part["vertno"]), 3))
    return np.asarray(part["nn"][part["vertno"]], dtype=np.float64)


def _inside(points: Array, inner: Surface) -> NDArray[np.bool_]:
    return is_inside(points, *inner) & (project_to_mesh(points, *inner).distances >= SOURCE_DEPTH)


def _skull(outer: Surface, inner: Surface, scalp: Surface) -> Skull:
    """Outer skull of the subject as points of the inner skull, directions and thickness."""
    vertices, faces = outer
    feet = project_to_mesh(vertices, *inner)
    room = project_to_mesh(vertices, *scalp).distances + feet.distances - MIN_SCALP_THICKNESS
    crossing = ~is_inside(vertices, *scalp) | is_inside(vertices, *inner)
    if crossing.any() or feet.distances.min() <= 0 or room.min() <= 0:
        raise ValueError(
            "head_of_anatomy: the surfaces cross or touch: the outer skull must lie between inner "
            f"skull and scalp, at least {1e3 * MIN_SCALP_THICKNESS:g} mm under the scalp; "
            f"{int(crossing.sum())} of its {len(vertices)} vertices do not. Check the BEM model."
        )
    relative = feet.distances / feet.distances[vertices[:, 2] > CALVARIA].mean()
    directions = (vertices - feet.positions) / feet.distances[:, None]
    return Skull(feet.positions, directions, relative, room, faces)


def _file(path: str | Path, what: str) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"head: there is no file {path} (head.{what}).")
    return Path(path)


def _stem(path: str | Path) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".fif")
