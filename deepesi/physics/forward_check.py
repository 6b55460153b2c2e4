"""Forward check: the part of a recording that an estimate explains, by sensor, in noise units."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from deepesi.physics.similarity import residual_variance, scaled_residual_variance

Array = NDArray[np.float64]

#: Probability that noise alone makes any channel of a recording count as one that does not fit.
BY_CHANCE = 0.01
#: Least residual of such a channel, over the median of all: a wrong head model makes all of them
#: larger.
MIN_RATIO = 3.0


@dataclass(frozen=True)
class ForwardCheck:
    """Whitened topographies of one sample. Noise alone has about unit variance in every channel.

    The whitening matrix is symmetric, so a whitened channel belongs to its sensor. Where the noise
    of neighbours is correlated, it also holds a part of them.

    Attributes:
        recorded: Whitened recording ``(C,)``.
        explained: Whitened potential of the estimate ``(C,)``.
        noise_std: Standard deviation of whitened noise ``(C,)``: 1, or less where the reference or
            a projector removed a part of it.

    """

    recorded: Array
    explained: Array
    noise_std: Array

    @property
    def residual(self) -> Array:
        """Residual of the estimate ``(C,)``, in standard deviations of the noise."""
        rest = self.recorded - self.explained
        return np.divide(rest, self.noise_std, out=np.zeros_like(rest), where=self.noise_std > 0)

    @property
    def share(self) -> float:
        """Share of the whitened power that the estimate explains; below 0 if it adds power."""
        return 1 - residual_variance(self.explained, self.recorded)

    @property
    def scaled_share(self) -> float:
        """The same after the best scaling of the estimate, so for its topography only."""
        return 1 - scaled_residual_variance(self.explained, self.recorded)

    @property
    def misfits(self) -> list[int]:
        """Channels that do not fit, the worst first.

        Their residual is larger than that of noise (`BY_CHANCE`), and than `MIN_RATIO` times the
        median.
        """
        size = np.abs(self.residual)
        least = max(norm.isf(BY_CHANCE / 2 / len(size)), MIN_RATIO * np.median(size))
        return [int(row) for row in np.argsort(-size) if size[row] > least]


def forward_check(leadfield: Array, whitener: Array, moments: Array, data: Array) -> ForwardCheck:
    """Compare a sample of a recording with the potential of its estimate.

    Args:
        leadfield: Nominal lead field ``(C, D)``, in the reference of the data.
        whitener: Whitening matrix ``(C, C)`` of `deepesi.physics.noise.whitener`.
        moments: Estimate ``(D,)``, A m.
        data: Referenced sample ``(C,)``.

    Raises:
        ValueError: The shapes do not fit together.

    """
    expected = (len(data), len(moments))
    if leadfield.shape != expected or whitener.shape != (len(data), len(data)):
        raise ValueError(
            f"forward_check: lead field {leadfield.shape} and whitener {whitener.shape}, expected "
            f"{expected} and {(len(data), len(data))} for {len(data)} channels and {len(moments)} "
            "moments. Use the head that the model was prepared for."
        )
    spanned = (np.linalg.pinv(whitener, rcond=1e-9, hermitian=True) @ whitener).diagonal()
    return ForwardCheck(
        whitener @ data, whitener @ (leadfield @ moments), np.sqrt(spanned.clip(0, 1))
    )
