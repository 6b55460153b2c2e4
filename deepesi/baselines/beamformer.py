"""The linearly constrained minimum variance (LCMV) beamformer."""

import numpy as np

from deepesi.baselines.solver import Array, Solution, Solver


class LCMV(Solver):
    """Unit-noise-gain beamformer with the covariance of the window.

    The covariance is that of the whitened window plus noise, ``V Vᵀ / T + noise I``. The noise
    term regularizes it, so one sample is enough to compute the filters, but not to suppress other
    sources. Sources with correlated time courses suppress each other, as in every beamformer.
    With free orientation all three components are kept.

    Args:
        noise: Variance of the added noise, relative to the noise covariance (no unit).

    Raises:
        ValueError: `noise` is not positive.

    Source: Van Veen et al. 1997, doi:10.1109/10.623056; Sekihara & Nagarajan 2008,
    doi:10.1007/978-3-540-79370-0 (unit noise gain). Difference: the output has no unit, so it is
    scaled to A m by one number, the mean factor to the unit-gain filters, as for dSPM here.

    """

    def __init__(self, noise: float | int = 1.0) -> None:
        super().__init__()
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
        # (gᵀ C⁻¹ g)⁻¹ gᵀ C⁻¹ has gain 1; each row is then divided by its gain for white noise.
        power = np.linalg.inv(filtered @ blocks.swapaxes(1, 2))
        unit_gain = power @ filtered
        noise_gain = np.linalg.norm(unit_gain, axis=2, keepdims=True)
        filters = (unit_gain / noise_gain).reshape(-1, len(gain))
        return Solution(noise_gain.mean() * (filters @ recording))
