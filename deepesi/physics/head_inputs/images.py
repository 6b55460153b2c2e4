"""Sensor data interpolated to an image."""

from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import RBFInterpolator

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import ADDED_LATER, Array, Axes
from deepesi.physics.head_inputs.orientation import LooseInput
from deepesi.physics.linear_inverse import weighted_gain
from deepesi.physics.noise import denoiser
from deepesi.physics.orientation import check_variance


@dataclass(frozen=True)
class TopographicMatrix(LooseInput):
    """Interpolates ``C`` sensors onto an image ``(H·W, C)``: linear, so a plain matrix.

    Sensors are laid on the plane by the azimuthal equidistant projection about the centre of a
    sphere of the head's size; thin-plate splines interpolate between them. Pixels farther than
    one and a half sensor distances from every sensor are zero, so nothing is extrapolated.

    Attributes:
        height: Rows ``H``.
        width: Columns ``W``.
        denoise_snr_db: None: the image shows the potential. Else it shows the posterior mean of
            the potential for independent sources at this SNR, dB, as in `denoiser`.
        loose: Variance of the tangential components of these sources, relative to that along the
            normal.

    Raises:
        ValueError: `loose` is not above 0 and at most 1.

    """

    sensor_kinds = ("eeg",)
    height: int = 12
    width: int = 12
    denoise_snr_db: float | None = None
    loose: float = field(default=1.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_variance(self.loose)

    @property
    def axes(self) -> Axes:
        """``(H·W, C)``."""
        return (self.height * self.width, "channels")

    def compute(self, head: HeadModel) -> Array:
        """The interpolation matrix for the sensors of this head; refuses MEG."""
        head.sensors.check_eeg_only("a topographic image")
        flat = azimuthal_projection(head.sensors.positions)
        x, y = np.linspace(-1, 1, self.width), np.linspace(1, -1, self.height)
        pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        spline = RBFInterpolator(flat, np.eye(len(flat)), kernel="thin_plate_spline", smoothing=0)
        distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
        np.fill_diagonal(distance, np.inf)
        reach = 1.5 * np.median(distance.min(axis=1))
        nearest = np.linalg.norm(pixels[:, None] - flat[None], axis=-1).min(axis=1)
        matrix = np.where((nearest <= reach)[:, None], spline(pixels), 0.0)
        if self.denoise_snr_db is not None:
            gain = head.leadfield
            if self.loose < 1:
                gain = weighted_gain(gain, self.root(head))
            matrix = matrix @ denoiser(gain, head.noise_cov, self.denoise_snr_db)
        return head.sensors.reference(matrix, axis=1)


#: Centre of the projection in the MNE head frame, m, and the angle from the vertex at the rim.
HEAD_CENTRE, RIM_ANGLE = np.array([0.0, 0.01, 0.04]), np.deg2rad(120)


def azimuthal_projection(positions: Array) -> Array:
    """Sensors ``(C, 3)`` (m, head frame) on a disc ``(C, 2)``: x right, y front, rim 120°."""
    direction = positions - HEAD_CENTRE
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    polar = np.arccos(np.clip(direction[:, 2], -1, 1)) / RIM_ANGLE
    azimuth = np.arctan2(direction[:, 1], direction[:, 0])
    return np.stack([polar * np.cos(azimuth), polar * np.sin(azimuth)], axis=1)
