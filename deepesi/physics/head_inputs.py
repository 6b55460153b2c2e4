"""HeadInput: what a model or a loss may ask of a head, computed once per head in float64.

A declaration is a frozen dataclass of plain parameters; it travels in an ONNX file as JSON, so
that whoever applies the file can prepare a new montage, lead field or noise covariance for it.
"""

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from deepesi.physics.head import HeadModel, average_reference
from deepesi.physics.linear_inverse import linear_inverse
from deepesi.physics.noise import denoiser, whitener

Array = NDArray[np.float64]
#: Length of each axis of a prepared array: a number, or the name of a size the head decides.
Axes = tuple[int | str, ...]


@dataclass(frozen=True)
class HeadInput(ABC):
    """One array a head can be asked for. Subclasses add parameters as dataclass fields."""

    @property
    def key(self) -> str:
        """Name of the array: class and parameters, unique among declarations."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        values = [getattr(self, f.name) for f in dataclasses.fields(self)]
        return "_".join([name, *(re.sub(r"\W", "_", str(v)) for v in values)])

    @property
    @abstractmethod
    def axes(self) -> Axes:
        """Shape; sizes that depend on the head are ``"channels"``, ``"dipoles"``, ``"edges"``."""

    @abstractmethod
    def compute(self, head: HeadModel) -> NDArray[Any]:
        """The array, float64 (or int64 where it holds numbers of vertices)."""

    def to_json(self) -> dict[str, Any]:
        """Class name and parameters."""
        return {"type": type(self).__name__, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(declaration: dict[str, Any]) -> "HeadInput":
        """The declaration that `to_json` described.

        Raises:
            ValueError: This version of deepesi has no such head input, or other parameters.

        """
        parameters = dict(declaration)
        name = parameters.pop("type", None)
        known = {c.__name__: c for c in HeadInput.__subclasses__()}
        if name not in known:
            raise ValueError(
                f"HeadInput: this deepesi does not know the head input {name!r} (it knows "
                f"{sorted(known)}). Install the version of deepesi that wrote the file, or newer."
            )
        expected = {f.name for f in dataclasses.fields(known[name])}
        if set(parameters) != expected:
            raise ValueError(
                f"HeadInput: {name} has parameters {sorted(expected)}, the file gives "
                f"{sorted(parameters)}. Install the version of deepesi that wrote the file."
            )
        return known[name](**parameters)


def prepare(declarations: Iterable[HeadInput], head: HeadModel) -> dict[str, NDArray[Any]]:
    """Compute all declared inputs for one head, each once."""
    return {d.key: d.compute(head) for d in dict.fromkeys(declarations)}


@dataclass(frozen=True)
class Whitener(HeadInput):
    """Symmetric whitening matrix ``(C, C)``, 1/V."""

    axes: ClassVar[Axes] = ("channels", "channels")

    def compute(self, head: HeadModel) -> Array:
        """See `deepesi.physics.noise.whitener`."""
        return whitener(head.noise_cov)


@dataclass(frozen=True)
class NoiseLevel(HeadInput):
    """RMS noise per channel after average referencing ``(1,)``, V."""

    axes: ClassVar[Axes] = (1,)

    def compute(self, head: HeadModel) -> Array:
        """See `HeadModel.noise_level`."""
        return np.array([head.noise_level])


@dataclass(frozen=True)
class SourceUnit(HeadInput):
    """Dipole moment ``(1,)``, A m, that a median source needs to equal the noise at the scalp.

    Networks compute in this unit, so that their outputs are of order one whatever the units of
    the lead field and the noise, and scale with the data as the contract demands.
    """

    axes: ClassVar[Axes] = (1,)

    def compute(self, head: HeadModel) -> Array:
        """RMS noise over the median RMS column of the lead field."""
        columns = np.sqrt((head.leadfield**2).mean(axis=0))
        return np.array([head.noise_level / np.median(columns)])


@dataclass(frozen=True)
class Gain(HeadInput):
    """Lead field ``(C, D)``: V/(A m), or 1/(A m) if whitened."""

    whitened: bool = False

    axes: ClassVar[Axes] = ("channels", "dipoles")

    def compute(self, head: HeadModel) -> Array:
        """The lead field, whitened if declared so."""
        return whitener(head.noise_cov) @ head.leadfield if self.whitened else head.leadfield


@dataclass(frozen=True)
class TopographicMatrix(HeadInput):
    """Interpolates ``C`` electrodes onto an image ``(H·W, C)``: linear, so a plain matrix.

    Electrodes are laid on the plane by the azimuthal equidistant projection about the centre of a
    sphere of the head's size; thin-plate splines interpolate between them. Pixels farther than
    one and a half electrode distances from every electrode are zero, so nothing is extrapolated.

    Attributes:
        height: Rows ``H``.
        width: Columns ``W``.
        denoise_snr_db: If given, what is drawn is not the potential but its posterior mean, the
            noise covariance known and sources independent at this SNR; see `denoiser`.

    """

    height: int = 12
    width: int = 12
    denoise_snr_db: float | None = None

    @property
    def axes(self) -> Axes:
        """``(H·W, C)``."""
        return (self.height * self.width, "channels")

    def compute(self, head: HeadModel) -> Array:
        """The interpolation matrix for the electrodes of this head."""
        flat = azimuthal_projection(head.sensor_pos)
        x, y = np.linspace(-1, 1, self.width), np.linspace(1, -1, self.height)
        pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        spline = RBFInterpolator(flat, np.eye(len(flat)), kernel="thin_plate_spline", smoothing=0)
        distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
        np.fill_diagonal(distance, np.inf)
        reach = 1.5 * np.median(distance.min(axis=1))
        nearest = np.linalg.norm(pixels[:, None] - flat[None], axis=-1).min(axis=1)
        matrix = np.where((nearest <= reach)[:, None], spline(pixels), 0.0)
        if self.denoise_snr_db is not None:
            matrix = matrix @ denoiser(head.leadfield, head.noise_cov, self.denoise_snr_db)
        return average_reference(matrix, axis=1)


#: Centre of the projection in the MNE head frame, m, and the angle from the vertex at the rim.
HEAD_CENTRE, RIM_ANGLE = np.array([0.0, 0.01, 0.04]), np.deg2rad(120)


def azimuthal_projection(positions: Array) -> Array:
    """Electrodes ``(C, 3)`` (m, head frame) on a disc ``(C, 2)``: x right, y front, rim 120°."""
    direction = positions - HEAD_CENTRE
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    polar = np.arccos(np.clip(direction[:, 2], -1, 1)) / RIM_ANGLE
    azimuth = np.arctan2(direction[:, 1], direction[:, 0])
    return np.stack([polar * np.cos(azimuth), polar * np.sin(azimuth)], axis=1)


@dataclass(frozen=True)
class LinearInverse(HeadInput):
    """Kernels ``(L, D, C)``, A m per V, of one linear inverse at ``L`` signal-to-noise ratios.

    dSPM and sLORETA are statistics; here they are multiplied by one number, the mean factor by
    which they were divided, so that the maps keep their shape and get the unit A m.

    Attributes:
        method: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.
        snr_db_low: First SNR, dB.
        snr_db_step: Step, dB.
        n_steps: Number of SNRs ``L``.

    """

    method: str = "eLORETA"
    snr_db_low: float = -10.0
    snr_db_step: float = 2.5
    n_steps: int = 17

    @property
    def axes(self) -> Axes:
        """``(L, D, C)``."""
        return (self.n_steps, "dipoles", "channels")

    def compute(self, head: HeadModel) -> Array:
        """One kernel per SNR, ``lambda2 = 10^(-SNR/10)``.

        Raises:
            ValueError: The head has free orientation.

        """
        if head.space.n_orient != 1:
            raise ValueError(
                f"LinearInverse: the head has {head.space.n_orient} orientations per source, these "
                "kernels are for fixed orientation. Use a head with n_orient=1, or leave these "
                "baselines out (baselines=[])."
            )
        return np.stack([self._kernel(head, step) for step in range(self.n_steps)])

    def _kernel(self, head: HeadModel, step: int) -> Array:
        lambda2 = 10 ** (-(self.snr_db_low + step * self.snr_db_step) / 10)
        kernel = linear_inverse(head.leadfield, head.noise_cov, lambda2, self.method)
        if self.method in ("MNE", "eLORETA"):
            return kernel
        current = linear_inverse(head.leadfield, head.noise_cov, lambda2, "MNE")
        norm = np.linalg.norm(current, axis=1) / np.linalg.norm(kernel, axis=1)
        return kernel * norm.mean()


@dataclass(frozen=True)
class MeshEdges(HeadInput):
    """Edges of the source mesh ``(E, 2)``, each once: the pairs a Laplacian smooths over."""

    axes: ClassVar[Axes] = ("edges", 2)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """See `deepesi.physics.head.SourceSpace`."""
        return head.space.edges
