"""What can be explained: one number of an estimate. Arrays of NumPy and tensors alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepesi.interpret.any_model.frames import Explained, Frame, Run, Values

Array = NDArray[np.float64]

#: Radius of the neighbourhood of a peak, m: the largest patches of the training are as large.
NEIGHBOURHOOD = 0.02


@dataclass(frozen=True)
class Moment:
    """Moment of one source component, A m.

    Attributes:
        dipole: Number of the component.

    """

    dipole: int
    unit: str = "nAm"
    factor: float = 1e9

    def __call__(self, moments: Values) -> Values:
        """Values ``(B,)`` of moments ``(B, D)``, A m."""
        return moments[:, self.dipole]


@dataclass(frozen=True)
class Power:
    """Sum of the squared moments of some sources, such as those of a parcel, (A m)².

    Attributes:
        sources: Numbers of the sources.
        n_orient: Components per source.

    """

    sources: tuple[int, ...]
    n_orient: int
    unit: str = "(nAm)²"
    factor: float = 1e18

    def __call__(self, moments: Values) -> Values:
        """Values ``(B,)`` of moments ``(B, D)``, A m."""
        return powers(moments, self.n_orient)[:, list(self.sources)].sum(1)


@dataclass(frozen=True)
class Share:
    """The localization itself: share of the power that lies in a neighbourhood, 0 to 1.

    It does not depend on the scale of the estimate: it says where activity is, not how strong. The
    share of an estimate of zero is 0.

    Attributes:
        sources: Numbers of the sources in the neighbourhood.
        n_orient: Components per source.

    """

    sources: tuple[int, ...]
    n_orient: int
    unit: str = "%"
    factor: float = 100.0

    def __call__(self, moments: Values) -> Values:
        """Values ``(B,)`` of moments ``(B, D)``, A m."""
        power = powers(moments * 1e9, self.n_orient)  # squares of A m leave single precision
        total = power.sum(1)
        return power[:, list(self.sources)].sum(1) / (total + (total == 0))


Target = Moment | Power | Share


def powers(moments: Values, n_orient: int) -> Values:
    """Squared magnitude of every source ``(B, S)`` of moments ``(B, D)``."""
    return (moments.reshape(len(moments), -1, n_orient) ** 2).sum(2)


def neighbourhood(positions: Array, source: int, radius: float = NEIGHBOURHOOD) -> tuple[int, ...]:
    """Numbers of the sources at most `radius` (m) from one of the positions ``(S, 3)``, m."""
    distance = np.linalg.norm(positions - positions[source], axis=1)
    return tuple(np.flatnonzero(distance <= radius).tolist())


def explained(frame: Frame, run: Run, target: Target) -> Explained:
    """The target as a function of recordings in place of that of a frame."""
    return lambda data: target(frame.moments(run, data))
