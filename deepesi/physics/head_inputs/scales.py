"""What sets the scale: whitener, rank and level of the noise, the unit of sources."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput
from deepesi.physics.noise import rank_of, whitener


@dataclass(frozen=True)
class Whitener(HeadInput):
    """Symmetric whitening matrix ``(C, C)``, 1/V."""

    axes: ClassVar[Axes] = ("channels", "channels")

    def compute(self, head: HeadModel) -> Array:
        """See `deepesi.physics.noise.whitener`."""
        return whitener(head.noise_cov)


@dataclass(frozen=True)
class Rank(HeadInput):
    """Number of dimensions ``(1,)`` that the noise covariance spans, and with it whitened data.

    Whitened noise has this power on average. The reference of EEG takes one dimension away;
    components and channels that were taken out of the recording take more.
    """

    axes: ClassVar[Axes] = (1,)

    def compute(self, head: HeadModel) -> Array:
        """See `deepesi.physics.noise.rank_of`."""
        return np.array([float(rank_of(head.noise_cov))])


@dataclass(frozen=True)
class NoiseLevel(HeadInput):
    """RMS noise per channel ``(1,)``, V, in the reference of the head."""

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
