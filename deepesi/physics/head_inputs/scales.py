"""Scales: whitener, rank and level of the noise, unit of sources."""

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
        """Compute `deepesi.physics.noise.whitener`."""
        return whitener(head.noise_cov)


@dataclass(frozen=True)
class Rank(HeadInput):
    """Number of dimensions ``(1,)`` that the noise covariance and whitened data span.

    Whitened noise has this power on average. The reference of EEG removes one dimension; removed
    components and interpolated channels remove more.
    """

    axes: ClassVar[Axes] = (1,)

    def compute(self, head: HeadModel) -> Array:
        """Compute `deepesi.physics.noise.rank_of`."""
        return np.array([float(rank_of(head.noise_cov))])


@dataclass(frozen=True)
class NoiseLevel(HeadInput):
    """RMS noise per channel ``(1,)``, V, in the reference of the head."""

    axes: ClassVar[Axes] = (1,)

    def compute(self, head: HeadModel) -> Array:
        """Return the noise level of the head."""
        return np.array([head.noise_level])


@dataclass(frozen=True)
class SourceUnit(HeadInput):
    """Dipole moment ``(1,)``, A m, of a median source with the RMS of the noise at the scalp.

    Networks compute in this unit. Their outputs are then of order one for any units of lead field
    and noise, and scale with the data, as the contract demands.
    """

    axes: ClassVar[Axes] = (1,)

    def compute(self, head: HeadModel) -> Array:
        """RMS noise over the median RMS column of the lead field."""
        columns = np.sqrt((head.leadfield**2).mean(axis=0))
        return np.array([head.noise_level / np.median(columns)])


@dataclass(frozen=True)
class NormalUnit(SourceUnit):
    """`SourceUnit` of moments along the normals ``(1,)``, A m, whatever the orientation."""

    def compute(self, head: HeadModel) -> Array:
        """Return the array."""
        return super().compute(head.along_normals())
