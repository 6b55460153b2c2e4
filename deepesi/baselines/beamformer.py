"""The linearly constrained minimum variance (LCMV) beamformer."""

import numpy as np

from deepesi.baselines.solver import Array, Solution, Solver


class LCMV(Solver):
    """Unit-noise-gain beamformer on the covariance of the window itself.

    The covariance is that of the whitened window plus the noise, ``V Vᵀ / T + noise I``: known
    noise regularizes it, so one sample suffices to compute, though not to suppress other sources;
    those that vary together over the window are suppressed with each other, as in every beamformer.
    Free orientation keeps all three components.

    Args:
        noise: Variance of the noise added, over that of the noise covariance.

    Raises:
        ValueError: It is not positive.

    Source: Van Veen et al. 1997, doi:10.1109/10.623056; Sekihara & Nagarajan 2008,
    doi:10.1007/978-3-540-79370-0 (unit noise gain). In units of the noise the output is a
    statistic; it is multiplied by one number, the mean factor to the unit-gain filters, as dSPM
    here.

    """

    def __init__(self, noise: float | int = 1.0) -> None:
        super().__init__()
        if not noise > 0:
            raise ValueError(f"LCMV: noise must be positive, got {noise}.")
        self.noise = float(noise)

    def solve(self, recording: Array, gain: Array, n_orient: int, rank: int) -> Solution:
        """Filters of the window's own covariance."""
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
