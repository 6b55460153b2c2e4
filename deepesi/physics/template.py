"""The packaged fsaverage head: cortex, scalp and lead-field family, ready without a build step."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.family import LeadFieldFamily
from deepesi.physics.files import atomic
from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.montage import ScalpPoints, fit_to_scalp, standard_montage
from deepesi.physics.noise import white_noise_cov

Array = NDArray[np.float64]

DATA = Path(__file__).parent / "data"
#: Skull conductivity an analyst would assume, S/m: within the range adults show (METHODS in docs).
NOMINAL_SKULL_CONDUCTIVITY = 0.01


@dataclass(frozen=True)
class DisplayMesh:
    """Inflated cortex to draw on, finer than the source space; one topology for both hemispheres.

    Attributes:
        positions: ``(2, N, 3)`` left and right, m, each centred on its own origin.
        faces: ``(F, 3)``.
        sulci: Whether a vertex lies in a sulcus ``(2, N)``.
        source_index: The three sources around each vertex ``(N, 3)``, numbered in a hemisphere.
        source_weight: Their barycentric weights ``(N, 3)``.

    """

    positions: Array
    faces: NDArray[np.int64]
    sulci: NDArray[np.bool_]
    source_index: NDArray[np.int64]
    source_weight: Array

    def interpolate(self, values: Array) -> Array:
        """Values at the sources ``(S,)`` to values at the vertices ``(2, N)``."""
        per_hemisphere = values.reshape(2, -1)
        return np.asarray((per_hemisphere[:, self.source_index] * self.source_weight).sum(-1))


@dataclass(frozen=True, eq=False)
class Template:
    """A head under every recording set-up: choose electrodes and it gives a `HeadModel`.

    Attributes:
        family: Its lead fields.
        space: Its source space.
        source_pos: ``(S, 3)``, m, MNE head frame.
        source_normals: ``(S, 3)``, head frame, outward.
        source_mni: ``(S, 3)``, mm, MNI305 space, as `mne.vertex_to_mni` gives.
        display: The mesh to draw on.
        n_moved: Sources that were nearer than 2 mm to the inner skull and moved inward.
        fingerprint: SHA-256 of the packaged arrays.

    """

    family: LeadFieldFamily
    space: SourceSpace
    source_pos: Array
    source_normals: Array
    source_mni: Array
    display: DisplayMesh
    n_moved: int
    fingerprint: str

    def head(
        self,
        ch_names: Sequence[str],
        electrodes: ScalpPoints,
        noise_cov: Array | None = None,
        skull_conductivity: float = NOMINAL_SKULL_CONDUCTIVITY,
    ) -> HeadModel:
        """This head with these electrodes; without a covariance, noise is white, 1 µV."""
        if noise_cov is None:
            noise_cov = white_noise_cov(len(ch_names), 1e-6)
        return HeadModel.referenced(
            leadfield=self.family.leadfield(skull_conductivity, electrodes),
            noise_cov=noise_cov,
            sensor_pos=electrodes.positions,
            source_pos=self.source_pos,
            source_normals=self.source_normals,
            ch_names=ch_names,
            space=self.space,
        )

    def electrodes(self, positions: Array, ch_names: Sequence[str]) -> ScalpPoints:
        """Electrodes ``(C, 3)`` (m, frame of their own head) fitted onto this scalp."""
        return fit_to_scalp(positions, ch_names, self.family.scalp_pos, self.family.scalp_faces)

    def montage_head(self, montage: str) -> HeadModel:
        """This head under a standard montage of MNE, with white noise and the nominal skull."""
        names, positions = standard_montage(montage)
        return self.head(names, self.electrodes(positions, names))


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        if key != "fingerprint":
            value = np.ascontiguousarray(arrays[key])
            digest.update(f"{key}|{value.dtype.str}|{value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def save_template(path: Path, template: Template) -> str:
    """Write a template as ``.npz`` (no pickle) and return its fingerprint.

    Modes are rounded to 16-bit floats relative to the largest of each mode, which costs about
    3e-4 of a topography.
    """
    family = template.family
    scale = np.abs(family.scalp_modes).max(axis=(0, 1))
    arrays: dict[str, NDArray[Any]] = {
        "name": np.array(template.space.name),
        "vertices_lh": template.space.vertices[0].astype(np.int32),
        "vertices_rh": template.space.vertices[1].astype(np.int32),
        "faces": template.space.faces.astype(np.uint16),
        "source_pos": template.source_pos.astype(np.float32),
        "source_normals": template.source_normals.astype(np.float32),
        "source_mni": template.source_mni.astype(np.float32),
        "n_moved": np.array(template.n_moved),
        "scalp_pos": family.scalp_pos.astype(np.float32),
        "scalp_faces": family.scalp_faces.astype(np.uint16),
        "conductivities": family.conductivities,
        "conductivity_range": np.array(family.conductivity_range),
        "scalp_modes": (family.scalp_modes / scale).astype(np.float16),
        "source_modes": (family.source_modes * scale).astype(np.float32),
        "display_pos": template.display.positions.astype(np.float32),
        "display_faces": template.display.faces.astype(np.uint16),
        "display_sulci": template.display.sulci,
        "display_index": template.display.source_index.astype(np.uint16),
        "display_weight": template.display.source_weight.astype(np.float16),
    }
    arrays["fingerprint"] = np.array(_digest(arrays))
    with atomic(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **arrays)
    return str(arrays["fingerprint"])


@functools.lru_cache(maxsize=4)
def load_template(name: str | Path = "fsaverage-ico3") -> Template:
    """Load a packaged template by name, or one built with ``deepesi head build`` by its path.

    Raises:
        FileNotFoundError: No such template.
        ValueError: The file is corrupt or not a template.

    """
    path = Path(name) if str(name).endswith(".npz") else DATA / f"{name}.npz"
    if not path.is_file():
        packaged = sorted(p.stem for p in DATA.glob("*.npz"))
        raise FileNotFoundError(
            f"load_template: no head {str(name)!r}. Packaged: {packaged}; or give the path of an "
            ".npz file written by 'deepesi head build'."
        )
    with np.load(path, allow_pickle=False) as file:
        a: dict[str, NDArray[Any]] = dict(file)
    if "fingerprint" not in a or str(a["fingerprint"]) != _digest(a):
        raise ValueError(
            f"load_template: {path} is not an intact deepesi head (its fingerprint does not match "
            "its content). Reinstall deepesi, or rebuild the file with 'deepesi head build'."
        )

    def wide(key: str) -> Array:
        return a[key].astype(np.float64)

    low, high = a["conductivity_range"]
    return Template(
        family=LeadFieldFamily(
            scalp_pos=wide("scalp_pos"),
            scalp_faces=a["scalp_faces"].astype(np.int64),
            conductivities=a["conductivities"],
            conductivity_range=(float(low), float(high)),
            scalp_modes=wide("scalp_modes"),
            source_modes=wide("source_modes"),
        ),
        space=SourceSpace(
            name=str(a["name"]),
            vertices=(a["vertices_lh"].astype(np.int64), a["vertices_rh"].astype(np.int64)),
            faces=a["faces"].astype(np.int64),
        ),
        source_pos=wide("source_pos"),
        source_normals=wide("source_normals"),
        source_mni=wide("source_mni"),
        display=DisplayMesh(
            positions=wide("display_pos"),
            faces=a["display_faces"].astype(np.int64),
            sulci=a["display_sulci"],
            source_index=a["display_index"].astype(np.int64),
            source_weight=wide("display_weight"),
        ),
        n_moved=int(a["n_moved"]),
        fingerprint=str(a["fingerprint"]),
    )
