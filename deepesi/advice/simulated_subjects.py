"""Strangers: recordings of other people's heads under the set-up of one recording."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.batch import LowRankLeadField
from deepesi.core.contracts import as_tensors
from deepesi.core.quantities import scale_to_db, summed_power
from deepesi.data_gen.anatomy import Anatomy, AnatomyRanges
from deepesi.data_gen.caps import DIGITIZED, NAMES, CapRanges, displace_cap, movement_of
from deepesi.data_gen.generator import render
from deepesi.data_gen.heads import HeadOnDevice
from deepesi.data_gen.keys import torch_generator
from deepesi.data_gen.snapshot import SNAPSHOT_SOURCES
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.noise import rank_of, spanned_eigh, whitener
from deepesi.physics.scalp import ScalpPoints
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: Strangers that share an anatomy and a set-up; each has a pose of the cap of its own.
BLOCK = 5
#: Sources of strangers: those of ``data=snapshot`` with ``head=stranger``. A test compares.
SOURCES = replace(
    SNAPSHOT_SOURCES,
    shapes=("gaussian", "flat", "diffused", "irregular", "split"),
    extent=("geodesic", "euclidean"),
)


@dataclass(frozen=True)
class StrangerRanges:
    """Ranges that strangers are drawn from; by default those of ``head=stranger``.

    Attributes:
        knowledge: What the analyst knows of the cap, one of `deepesi.data_gen.caps.KNOWLEDGE`.
        anatomy: Ranges of the cortex. None: the analyst has the anatomy.
        cap: Ranges of the cap.
        tissues: Ranges of the tissues.
        sources: Sources: one to three patches of any definition.

    """

    knowledge: str = NAMES
    anatomy: AnatomyRanges | None = field(default_factory=AnatomyRanges)
    cap: CapRanges = field(default_factory=CapRanges)
    tissues: TissueRanges = field(default_factory=TissueRanges)
    sources: PatchSources = SOURCES

    @property
    def known(self) -> str:
        """What the analyst knows, as text."""
        cap = (
            "digitized electrodes" if self.knowledge == DIGITIZED else "the names of the electrodes"
        )
        return f"{cap}, {'the MRI of the subject' if self.anatomy is None else 'no MRI'}"


@dataclass(frozen=True)
class Conditions:
    """What a recording and its strangers have in common.

    Attributes:
        head: Packaged head of free orientation.
        positions: Electrode positions that the analyst assumes ``(C,)``.
        noise_cov: Noise covariance of the average ``(C, C)``, V².

    """

    head: Template
    positions: ScalpPoints
    noise_cov: Array


class Strangers(NamedTuple):
    """Recordings of one sample.

    Attributes:
        data: Referenced recordings ``(N, C)``, V.
        peaks: Sources at the centres of the patches ``(N, K)``, -1 where there are fewer.
        moments: Total moments of the patches ``(N, K)``, any unit.

    """

    data: Array
    peaks: NDArray[np.int64]
    moments: Array

    def targets(self, covers: str) -> NDArray[np.int64]:
        """Centres that prediction sets must hold ``(N, K)``, -1 for others.

        Args:
            covers: As in `deepesi.calibration.conformal.target_scores`.

        """
        if covers == "all":
            return self.peaks
        ranked = np.where(self.peaks >= 0, self.moments, -np.inf)
        is_strongest = ranked.argmax(1)[:, None] == np.arange(ranked.shape[1])
        return np.where(is_strongest, self.peaks, -1)


class StrangerSource:
    """Draws strangers; what does not depend on their ranges is computed once.

    Args:
        conditions: What they have in common with the recording.
        seed: Seed; the same seed gives the same sources and noise under other ranges.

    """

    def __init__(self, conditions: Conditions, seed: int = 0) -> None:
        self.conditions, self.seed = conditions, seed
        self.head = HeadOnDevice(conditions.head)
        values, vectors = spanned_eigh(conditions.noise_cov)
        self._tensors = as_tensors(
            {
                "whitener": whitener(conditions.noise_cov),
                "span": vectors @ vectors.T,
                "colour": vectors * np.sqrt(values),
            }
        )
        self.rank = float(rank_of(conditions.noise_cov))

    def draw(self, ranges: StrangerRanges, snr_db: float, n: int) -> Strangers:
        """Draw `n` strangers with an SNR of whitened data, dB."""
        parts = list(self._blocks(ranges, snr_db, n))
        return Strangers(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _blocks(self, ranges: StrangerRanges, snr_db: float, n: int) -> Iterator[Strangers]:
        for block, first in enumerate(range(0, n, BLOCK)):
            yield self._block(ranges, snr_db, block, min(BLOCK, n - first))

    def _block(self, ranges: StrangerRanges, snr_db: float, block: int, size: int) -> Strangers:
        key = (self.seed, "test", 0, block)
        anatomy = None
        if ranges.anatomy is not None:
            anatomy = ranges.anatomy.draw(self.head.fine_cortex, torch_generator(*key, 1))
        tissues = ranges.tissues.draw(size, torch_generator(*key, 2))
        rng = np.random.default_rng([self.seed, block])
        leadfield = self._leadfields(tissues, anatomy, self._true_positions(ranges, size, rng))
        normals = self.head.normals if anatomy is None else anatomy.normals
        drawn = ranges.sources.draw(self.head, normals, size, 1, 1.0, torch_generator(*key, 3))
        clean = self._tensors["span"] @ render(leadfield, drawn)[0]
        power = summed_power(self._tensors["whitener"] @ clean)
        clean *= scale_to_db(power, self.rank, torch.full((size,), float(snr_db)))[:, None, None]
        colour = self._tensors["colour"]
        white = torch.randn(size, colour.shape[1], 1, generator=torch_generator(*key, 4))
        data = (clean + colour @ white)[..., 0].double().numpy()
        return Strangers(data, drawn.peaks.numpy(), drawn.moments.double().numpy())

    def _true_positions(
        self, ranges: StrangerRanges, size: int, rng: np.random.Generator
    ) -> ScalpPoints:
        """True electrode positions ``(B, C)``."""
        movement = movement_of(ranges.cap, ranges.knowledge, rng)
        nominal = self.conditions.positions
        true = displace_cap(self.conditions.head, nominal, movement, size, 1, rng)[:, 0]
        return true[np.arange(size) % len(true.positions)]  # one pose only, if nothing moves

    def _leadfields(
        self, tissues: Tensor, anatomy: Anatomy | None, true: ScalpPoints
    ) -> LowRankLeadField:
        fields = self.head.lead_fields if anatomy is None else self.head.fine_cortex.lead_fields
        points = as_tensors({"vertices": true.vertices, "weights": true.weights})
        modes = None if anatomy is None else anatomy.source_modes
        return fields.leadfields(tissues, points["vertices"], points["weights"], modes)
