"""The linearly constrained minimum variance (LCMV) beamformer."""

import numpy as np

from deepesi.baselines.solver import Array, Solution, Solver
from deepesi.physics.linear_inverse import inverse_root


class LCMV(Solver):
    """Unit-noise-gain beamformer with the covariance of the window.

    The covariance is that of the whitened window plus noise, ``V Vᵀ / T + noise I``. The noise
    term regularizes it, so one sample is enough to compute the filters, but not to suppress other
    sources. Sources with correlated time courses suppress each other, as in every beamformer.
    With free orientation all three components are kept. They are divided by the square root of
    the covariance of their noise, so the map does not depend on the axes (in MNE-Python
    ``pick_ori="vector"``, ``weight_norm="unit-noise-gain-invariant"``). Unit-gain filters do not
    depend on a prior. With loose orientation the prior comes in where outputs are divided by their
    noise: components are in units of the prior before, and multiplied by its root afterwards. So
    the limit of a small `loose` is the beamformer of fixed orientation.

    Args:
        noise: Variance of the added noise, relative to the noise covariance (no unit).
        loose: Variance of the tangential components relative to that along the normal, as in
            `Solver`.

    Raises:
        ValueError: `noise` is not positive.

    Source: Van Veen et al. 1997, doi:10.1109/10.623056; Sekihara & Nagarajan 2008,
    doi:10.1007/978-3-540-79370-0 (unit noise gain). Difference: the output has no unit, so it is
    scaled to A m by one number, the mean factor to the unit-gain filters, as for dSPM here.
    MNE-Python has no loose orientation for beamformers.

    """

    def __init__(self, noise: float | int = 1.0, loose: float | int = 1.0) -> None:
        super().__init__(loose=loose)
        if not noise > 0:
            raise ValueError(f"LCMV: noise must be positive, got {noise}.")
        self.noise = float(noise)

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Compute the filters from the window and apply them."""
        covariance = recording @ recording.T / recording.shape[1]
        covariance += self.noise * np.eye(len(recording))
        inverse = np.linalg.inv(covariance)
        blocks = gain.T.reshape(-1, n_orient, len(gain))
        filtered = blocks @ inverse
        # gᵀ C⁻¹ divided by its gain for white noise.
        filters = inverse_root(filtered @ filtered.swapaxes(1, 2)) @ filtered
        own_gain = np.linalg.norm(filters @ blocks.swapaxes(1, 2), axis=(1, 2))
        return Solution((1 / own_gain).mean() * (filters.reshape(-1, len(gain)) @ recording))
