"""The model, eLORETA and a dipole scan under one set-up: where each has its strongest source."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.few_sources import few_sources
from deepesi.physics.head import HeadModel, magnitudes
from deepesi.physics.head_inputs import LinearInverse
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.runtime.windows import windows_of

Array = NDArray[np.float64]

ELORETA, SCAN = "eLORETA", "dipole scan"


class MethodEstimates(NamedTuple):
    """Estimates of recordings of one sample.

    Attributes:
        means: Estimates of the model ``(N, D)``, A m.
        strongest: Strongest source of the model, eLORETA and the scan ``(N, 3)``.
        residual: Share of the whitened power that one, two and three sources leave ``(N, 3)``.

    """

    means: Array
    strongest: NDArray[np.int64]
    residual: Array


@dataclass(frozen=True)
class Methods:
    """The methods, prepared.

    Attributes:
        model: Name of the model.
        inverse: The model.
        head: Head of free orientation under the same set-up, for eLORETA and the scan.
        snr_db: SNR that eLORETA is regularized for, dB.

    """

    model: str
    inverse: PreparedInverse
    head: HeadModel
    snr_db: float

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the methods, in the order of `MethodEstimates.strongest`."""
        taken = self.model in (ELORETA, SCAN)
        return f"{self.model} (the model)" if taken else self.model, ELORETA, SCAN

    def apply(self, data: Array) -> MethodEstimates:
        """Estimates of recordings ``(N, C)``, V, in the reference of the sensors."""
        return self._estimates(self._means(data), data)

    def strongest(self, data: Array) -> NDArray[np.int64]:
        """Strongest source ``(N,)`` of the model alone."""
        return self._magnitudes(self._means(data)).argmax(0)

    def _means(self, data: Array) -> Array:
        means = self.inverse.model.run(data[..., None], self.inverse.feeds)["mean"][..., 0]
        if not np.isfinite(means).all():
            raise ValueError(
                f"advise: {self.model} gave NaN or infinite moments for recordings simulated for "
                "this set-up. Its training diverged or its file is damaged; use another model."
            )
        return np.asarray(means, dtype=np.float64)

    def _magnitudes(self, means: Array) -> Array:
        return magnitudes(means.T, self.inverse.space.n_orient)

    def apply_at(self, data: Array, sample: int) -> MethodEstimates:
        """Estimates of one sample of a recording ``(C, T)``; the model receives windows of it.

        The estimate of the model is that of `PreparedInverse.localize`.
        """
        windows = windows_of(data.shape[1], self.inverse.model.longest, sample, sample + 1)
        first = windows.starts[0]
        means = self.inverse.estimate(data[:, first : windows.stop])[0][:, sample - first]
        return self._estimates(means[None], data[:, sample][None])

    def _estimates(self, means: Array, data: Array) -> MethodEstimates:
        eloreta = magnitudes(self._kernel @ data.T, 3)
        best, residual = few_sources(self._gain, data @ self.inverse.whitener.T)
        strongest = np.column_stack([self._magnitudes(means).argmax(0), eloreta.argmax(0), best])
        return MethodEstimates(means, strongest, residual)

    @functools.cached_property
    def _gain(self) -> Array:
        return self.inverse.whitener @ self.head.leadfield

    @functools.cached_property
    def _kernel(self) -> Array:
        declared = LinearInverse(method=ELORETA, snr_db_low=self.snr_db, n_steps=1)
        return np.asarray(declared.compute(self.head)[0])


def largest_distance(positions: Array, sources: NDArray[np.int64]) -> Array:
    """Largest distance (mm) between the sources ``(N, K)`` of every example ``(N,)``.

    Args:
        positions: Source locations ``(S, 3)``, m.
        sources: Numbers of sources.

    """
    at = positions[sources]
    return np.asarray(1e3 * np.linalg.norm(at[:, :, None] - at[:, None], axis=3).max((1, 2)))
