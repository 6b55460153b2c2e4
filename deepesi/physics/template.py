"""Template: a head for any recording set-up; packaged heads load without a build step."""

import functools
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepesi.physics.dipoles import free_orientation_modes
from deepesi.physics.family import NOMINAL, LeadFieldFamily, Tissues
from deepesi.physics.graph import vertex_normals
from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.head_names import FREE, build_options
from deepesi.physics.magnetic import Coils, KnownCoils
from deepesi.physics.magnetic_files import ENDING, load_magnetic
from deepesi.physics.montage import standard_montage
from deepesi.physics.noise import white_noise_cov
from deepesi.physics.scalp import ScalpPoints, fit_to_scalp
from deepesi.physics.scalp_potential import ScalpPotentialFamily
from deepesi.physics.sensors import SensorArray
from deepesi.physics.source_mesh import CortexSurface
from deepesi.utils.cache import cache_folder
from deepesi.utils.files import atomic

Array = NDArray[np.float64]

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class DisplayMesh:
    """Inflated cortex to draw on, finer than the source space; one topology for both hemispheres.

    Attributes:
        positions: ``(2, N, 3)`` left and right, m, each centred on its own origin.
        faces: ``(F, 3)``.
        sulci: Whether a vertex lies in a sulcus ``(2, N)``.
        source_index: The three sources around each vertex ``(N, 3)``, numbered in a hemisphere.
        source_weight: Barycentric weights of these sources ``(N, 3)``.

    """

    positions: Array
    faces: NDArray[np.int64]
    sulci: NDArray[np.bool_]
    source_index: NDArray[np.int64]
    source_weight: Array

    @functools.cached_property
    def n_sources(self) -> int:
        """Number of sources of both hemispheres, which have as many each."""
        return 2 * (int(self.source_index.max()) + 1)

    def surface(self, hemisphere: int) -> CortexSurface:
        """One hemisphere, left or right."""
        return CortexSurface(self.positions[hemisphere], self.faces, self.sulci[hemisphere])

    def places(self, sources: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hemisphere and vertex of sources."""
        return np.divmod(sources, self.n_sources // 2)

    def interpolate(self, values: Array) -> Array:
        """Values at the sources ``(S,)`` to values at the vertices ``(2, N)``."""
        per_hemisphere = values.reshape(2, -1)
        return np.asarray((per_hemisphere[:, self.source_index] * self.source_weight).sum(-1))


@dataclass(frozen=True, eq=False)
class Template:
    """A head without sensors: with sensor positions and tissues it gives a `HeadModel`.

    Attributes:
        name: Name of the head, e.g. ``"fsaverage-ico3"`` or ``"warp9-ico3"``.
        family: Lead fields of the head.
        space: Source space of the head.
        source_pos: ``(S, 3)``, m, MNE head frame.
        source_normals: ``(S, 3)``, head frame, outward; zero where a source lies on no surface.
        source_mni: ``(S, 3)``, mm, MNI305 space, as `mne.vertex_to_mni` gives; NaN where unknown.
        is_cortex: Whether a source can be active ``(S,)``: False on the medial wall of fsaverage,
            where the surface runs through the corpus callosum, which is not cortex.
        display: The mesh to draw on, None for a volume or a head of the user's own.
        n_moved: Sources that were nearer than 2 mm to the inner skull and moved inward.
        warp_seed: Seed of the warped head, which decides its split; None for any other head.
        mri_head: Transform ``(4, 4)`` from the MRI of the subject (surface RAS) to the head frame,
            m, of a head of the user's own; None for any other head.
        cap: Names of the sensors, one per row of the family's scalp, for a head known by one
            forward solution only: its sensors cannot be moved and no others can be put on it.
        known_coils: MEG channels of that forward solution, if it has some.
        fingerprint: SHA-256 of the arrays in its file.

    """

    name: str
    family: ScalpPotentialFamily
    space: SourceSpace
    source_pos: Array
    source_normals: Array
    source_mni: Array
    is_cortex: NDArray[np.bool_]
    display: DisplayMesh | None = None
    n_moved: int = 0
    warp_seed: int | None = None
    mri_head: Array | None = None
    cap: tuple[str, ...] | None = None
    known_coils: KnownCoils | None = None
    fingerprint: str = ""

    def head(
        self,
        ch_names: Sequence[str],
        electrodes: ScalpPoints,
        noise_cov: Array | None = None,
        tissues: Tissues = NOMINAL,
        coils: Coils | None = None,
    ) -> HeadModel:
        """This head with sensors at these positions; by default, noise is white, 1 µV.

        Args:
            ch_names: Names of the EEG channels, maybe none.
            electrodes: Their positions on the scalp, as `electrodes` gives.
            noise_cov: ``(C, C)``, of EEG and then MEG, in `SensorArray.head_units`.
            tissues: Conductivities and skull thickness, on which EEG depends.
            coils: MEG channels, head frame.

        Raises:
            ValueError: As in `load_magnetic`, with coils.

        """
        sensors = SensorArray.eeg(ch_names, electrodes.positions)
        rows = [self.family.leadfield(tissues, electrodes)] if len(sensors) else []
        if coils is not None:
            sensors = sensors.joined(coils.sensors)
            rows.append(self.magnetic.leadfield(tissues, coils))
        if noise_cov is None:
            noise_cov = white_noise_cov(sensors, 1e-6)
        return HeadModel.referenced(
            leadfield=np.concatenate(rows),
            noise_cov=noise_cov,
            sensors=sensors,
            source_pos=self.source_pos,
            source_normals=self.source_normals,
            space=self.space,
            own_normals=self.mri_head is not None,
        )

    @functools.cached_property
    def magnetic(self) -> LeadFieldFamily[Coils]:
        """Magnetic fields of the head; errors as in `load_magnetic`."""
        return load_magnetic(self) if self.known_coils is None else self.known_coils

    def electrodes(self, positions: Array, ch_names: Sequence[str]) -> ScalpPoints:
        """Electrodes ``(C, 3)`` (m, frame of their own head) fitted onto this scalp.

        Raises:
            ValueError: They do not fit, or this head has no scalp to put them on.

        """
        if self.cap is not None:
            raise ValueError(
                f"Template: the head {self.name!r} is known by a forward solution at its own "
                f"{len(self.cap)} sensors, so no others can be put on it. Use its sensors, "
                "or give the BEM surfaces (head: {bem: ..., src: ..., trans: ...})."
            )
        return fit_to_scalp(positions, ch_names, self.family.scalp_pos, self.family.scalp_faces)

    def montage(self, name: str) -> tuple[list[str], ScalpPoints]:
        """Names and positions of a montage on this head; a head with its own cap has no other."""
        if self.cap is not None:
            rows = np.arange(len(self.cap))
            return list(self.cap), own_rows(self.family.scalp_pos, rows)
        if name not in self._montages:
            names, positions = standard_montage(name)
            self._montages[name] = names, self.electrodes(positions, names)
        return self._montages[name]

    @functools.cached_property
    def depth(self) -> Array:
        """Distance of every source from the scalp ``(S,)``, m."""
        return np.asarray(cKDTree(self.family.scalp_pos).query(self.source_pos)[0])

    def depth_and_angle(self, positions: Array, normals: Array) -> tuple[Array, Array]:
        """Distance from the scalp ``(N,)``, m, and angle to it ``(N,)``, degrees, of a cortex.

        The angle is that between the normals of the cortex and of the nearest vertex of the scalp:
        0 is radial, 90 tangential. NaN without a normal, or on a head without a mesh of the scalp.

        Args:
            positions: ``(N, 3)``, m, head frame.
            normals: Unit normals ``(N, 3)``, or zeros.

        """
        depth, nearest = cKDTree(self.family.scalp_pos).query(positions)
        unknown = ~normals.any(axis=1)
        if not len(self.family.scalp_faces):
            return np.asarray(depth), np.full(len(positions), np.nan)
        outward = vertex_normals(self.family.scalp_pos, self.family.scalp_faces)[nearest]
        cosine = np.abs((outward * normals).sum(axis=1)).clip(0, 1)
        return np.asarray(depth), np.where(unknown, np.nan, np.rad2deg(np.arccos(cosine)))

    @functools.cached_property
    def _montages(self) -> dict[str, tuple[list[str], ScalpPoints]]:
        """Cache of fitted montages."""
        return {}

    def montage_head(self, montage: str) -> HeadModel:
        """This head under a montage, with white noise and nominal tissues.

        A head of a forward solution has its own sensors, EEG and MEG.
        """
        coils = None if self.known_coils is None else self.known_coils.coils
        return self.head(*self.montage(montage), coils=coils)


def own_rows(positions: Array, rows: NDArray[np.int64]) -> ScalpPoints:
    """Vertices ``rows`` of a mesh ``(N, 3)`` as scalp points."""
    vertices = np.repeat(rows[:, None], 3, axis=1)
    weights = np.tile([1.0, 0.0, 0.0], (len(rows), 1))
    return ScalpPoints(vertices, weights, positions[rows], np.zeros(len(rows)))


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        if key != "fingerprint":
            value = np.ascontiguousarray(arrays[key])
            digest.update(f"{key}|{value.dtype.str}|{value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def save_template(path: str | Path, template: Template) -> str:
    """Write a template as ``.npz`` (no pickle) and return its fingerprint."""
    space = template.space
    arrays: dict[str, NDArray[Any]] = {
        "name": np.array(template.name),
        "space": np.array(space.name),
        "n_orient": np.array(space.n_orient),
        "edges": space.edges.astype(np.uint16),
        "source_pos": template.source_pos.astype(np.float32),
        "source_normals": template.source_normals.astype(np.float32),
        "source_mni": template.source_mni.astype(np.float32),
        "is_cortex": template.is_cortex,
        "n_moved": np.array(template.n_moved),
        "warp_seed": np.array(-1 if template.warp_seed is None else template.warp_seed),
        **template.family.to_arrays(),
    }
    for number, vertices in enumerate(space.vertices):
        arrays[f"vertices_{number}"] = vertices.astype(np.int32)
    if template.display is not None:
        arrays |= {
            "display_pos": template.display.positions.astype(np.float32),
            "display_faces": template.display.faces.astype(np.uint16),
            "display_sulci": template.display.sulci,
            "display_index": template.display.source_index.astype(np.uint16),
            "display_weight": template.display.source_weight.astype(np.float16),
        }
    if template.mri_head is not None:
        arrays["mri_head"] = template.mri_head
    arrays["fingerprint"] = np.array(_digest(arrays))
    with atomic(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **arrays)
    return str(arrays["fingerprint"])


@functools.lru_cache(maxsize=8)
def load_template(name: str | Path = "fsaverage-ico3") -> Template:
    """Load a packaged head, one built by ``deepesi head build`` by its name or by its path.

    A name that ends in ``-free`` is a head of free orientation. If it was not built, it is made
    from the head of fixed orientation, see `free_orientation`.

    Raises:
        FileNotFoundError: No such head.
        ValueError: The file is corrupt or not a head.

    """
    fixed = str(name).removesuffix(FREE)
    if fixed != str(name) and _path_of(name) is None and _path_of(fixed) is not None:
        return free_orientation(load_template(fixed))
    path = _find(name)
    try:
        with np.load(path, allow_pickle=False) as file:
            a: dict[str, NDArray[Any]] = dict(file)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _foreign(path, str(error)) from error
    if "fingerprint" not in a or str(a["fingerprint"]) != _digest(a):
        raise _foreign(path, "its fingerprint does not match its content")
    if "core" not in a or "is_cortex" not in a:
        raise _foreign(path, "it was written by another version")

    def wide(key: str) -> Array:
        return a[key].astype(np.float64)

    parts = sum(key.startswith("vertices_") for key in a)
    display = None
    if "display_pos" in a:
        display = DisplayMesh(
            positions=wide("display_pos"),
            faces=a["display_faces"].astype(np.int64),
            sulci=a["display_sulci"],
            source_index=a["display_index"].astype(np.int64),
            source_weight=wide("display_weight"),
        )
    return Template(
        name=str(a["name"]),
        family=ScalpPotentialFamily.from_arrays(a),
        space=SourceSpace(
            name=str(a["space"]),
            vertices=tuple(a[f"vertices_{i}"].astype(np.int64) for i in range(parts)),
            edges=a["edges"].astype(np.int64),
            n_orient=int(a["n_orient"]),
        ),
        source_pos=wide("source_pos"),
        source_normals=wide("source_normals"),
        source_mni=wide("source_mni"),
        is_cortex=a["is_cortex"],
        display=display,
        n_moved=int(a["n_moved"]),
        warp_seed=int(a["warp_seed"]) if a["warp_seed"] >= 0 else None,
        mri_head=a.get("mri_head"),
        fingerprint=str(a["fingerprint"]),
    )


def load_oriented(name: str | Path, n_orient: int | None) -> Template:
    """Load a head by its name, with free orientation if three components per source are needed.

    Args:
        name: As in `load_template`. A path is loaded as it is.
        n_orient: Components per source; None: those of the head.

    Raises:
        FileNotFoundError: As in `load_template`.
        ValueError: As in `load_template` and `free_orientation`.

    """
    template = load_template(name)
    if n_orient == 3 and template.space.n_orient == 1 and not str(name).endswith(".npz"):
        return load_template(f"{name}{FREE}")
    return template


def free_orientation(fixed: Template) -> Template:
    """The same head with three dipole components (x, y, z) per source.

    Lead fields of the components are combinations of those of the dipoles normal to the cortex, at
    ico-4 if this head is installed at ico-4, see `deepesi.physics.dipoles`.

    Raises:
        ValueError: The head has free orientation already, or sources that lie on no surface.

    """
    fine = finest(fixed)
    if fixed.space.n_orient == 3 or not fixed.source_normals.any(axis=1).all():
        raise ValueError(
            f"free_orientation: the head {fixed.name!r} has no fixed orientation along the normal "
            "of a surface. Use it as it is."
        )
    modes = free_orientation_modes(
        fixed.source_pos, fine.source_pos, fine.source_normals, fine.family.source_modes
    )
    digest = hashlib.sha256(f"{fixed.fingerprint}|{fine.fingerprint}|free".encode())
    return replace(
        fixed,
        name=f"{fixed.name}{FREE}",
        family=fine.family.with_sources(modes),
        space=replace(fixed.space, n_orient=3),
        fingerprint=digest.hexdigest(),
    )


def finest(template: Template) -> Template:
    """The same head with the sources of ico-4 if that is installed, else the head itself."""
    name = template.name.removesuffix(FREE).replace("-ico3", "-ico4")
    return load_template(name) if _path_of(name) is not None else template


def template_of(space: SourceSpace) -> Template | None:
    """The installed head with this source space, for drawing and atlas names; or None."""
    try:
        template = load_oriented(space.name, space.n_orient)
    except FileNotFoundError:
        return None
    return template if template.space.fingerprint == space.fingerprint else None


def _path_of(name: str | Path) -> Path | None:
    if str(name).endswith(".npz"):
        paths = [Path(name)]
    else:
        paths = [folder / f"{name}.npz" for folder in (DATA, cache_folder())]
    return next((path for path in paths if path.is_file()), None)


def _find(name: str | Path) -> Path:
    path = _path_of(name)
    if path is not None:
        return path
    files = [p for folder in (DATA, cache_folder()) for p in folder.glob("*.npz")]
    known = sorted({p.stem for p in files if not p.name.endswith(ENDING)})
    raise FileNotFoundError(
        f"load_template: no head {str(name)!r}. At hand: {known}. Build {_command(str(name))}, or "
        "give the path of an .npz file it wrote."
    )


def _command(name: str) -> str:
    """The command that builds a head of this name, in words."""
    options = build_options(name)
    if options is None:
        return "one with 'deepesi head build' (--warp-seed, --spacing)"
    return f"it with 'deepesi head build {options}'"


def _foreign(path: Path, why: str) -> ValueError:
    return ValueError(
        f"load_template: {path} is not an intact deepesi head ({why}). Delete it and build it "
        "again with 'deepesi head build', or reinstall deepesi if it was packaged."
    )
