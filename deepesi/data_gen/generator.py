"""SimulatedRecordings: batches of simulated recordings from perturbed lead fields, with noise."""

import copy
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from deepesi.core.batch import Batch, LowRankLeadField, Scene
from deepesi.core.quantities import scale_to_db
from deepesi.data_gen.anatomy import Anatomy
from deepesi.data_gen.artifacts import Artifact, Recording
from deepesi.data_gen.curriculum import OPEN, Curriculum
from deepesi.data_gen.fine_cortex import check_anatomy
from deepesi.data_gen.heads import HeadOnDevice, check_heads
from deepesi.data_gen.keys import torch_generator, uniform
from deepesi.data_gen.ranges import check_number, check_range
from deepesi.data_gen.setups import RecordingSetup, SetupPool, SetupRanges
from deepesi.data_gen.snapshot import SNAPSHOT_SETUPS, SNAPSHOT_SOURCES
from deepesi.data_gen.sources import Patches, PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.head_inputs import HeadInput
from deepesi.physics.template import Template, load_template


class Parts(NamedTuple):
    """A batch and the terms it is the sum of, for plots and tests."""

    batch: Batch
    clean: Float[Tensor, "B C T"]
    noise: Float[Tensor, "B C T"]
    artifacts: tuple[Float[Tensor, "B C T"], ...]
    patches: Patches
    setup: RecordingSetup
    anatomy: Anatomy | None  # None: that of the true head itself


class SimulatedRecordings(IterableDataset[Batch]):
    r"""Endless stream of simulated recordings and their sources, in batches.

    Defaults are those of ``data=snapshot``. Iteration gives the batches of steps 0, 1, 2, ...
    They are complete batches, so use a loader with ``batch_size=None``. Workers of a
    `torch.utils.data.DataLoader` take turns at the steps and the loader restores the order: the
    batches are the same for any number of workers. `batch` returns the batch of any step.

    >>> from torch.utils.data import DataLoader
    >>> recordings = SimulatedRecordings(batch_size=8)
    >>> batch = next(iter(DataLoader(recordings, batch_size=None)))
    >>> tuple(batch.sources.shape)
    (8, 1284, 1)

    Every example has its own tissues, co-registration error and sensor displacement. A batch
    has one recording set-up (head, montage, reference, noise). The SNR over the window is
    ``10 log10(‖V‖² / E‖N‖²)``, with ``E‖N‖² = T tr(cov)`` of the true noise. Artifacts do not
    count. The dipole moments are scaled to give this SNR.

    Memory grows with the batch size ``B`` only. Drawing a batch needs about
    ``4 B (D T + 3 K D + 2 P R + C T (A + 7))`` bytes (sources, patterns, mixed core, potentials
    with ``A`` kinds of artifacts), besides the heads (``4 S²`` bytes of distances each, twice that
    with Euclidean extent or split patches) and the pool of set-ups.

    Args:
        heads: One head or several with the same source space and split, or the name or path of
            a head.
        sources: Distribution of the sources.
        setups: Ranges of the recording set-ups.
        declarations: Head inputs to prepare, for the model and the loss.
        nominal_head: Template head of an analyst without individual anatomy. Default: the first.
        tissues: Ranges of the tissue conductivities and the skull thickness.
        artifacts: Artifacts, each drawn for a share of the examples.
        snr_db: Lowest and highest SNR, dB, uniform. None: moments are not scaled.
        largest_moment: Largest total moment of one source patch, A m. Moments are scaled no
            further than this; the SNR of such an example is lower and is stored in its scene.
        batch_size: Examples per batch.
        n_times: Samples per example, 1 for snapshots. Several values: one of them per batch.
        window_batch_size: Examples per batch of windows, which cost more than single samples.
            Default: `batch_size`.
        sfreq: Sampling rate, Hz.
        seed: First part of the random key.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        pool_size: Number of set-ups in use at a time.
        pool_period: Steps after which all set-ups are drawn anew.
        curriculum: Widening of the ranges during training. Other splits use the full ranges.
        device: Device on which batches are drawn; a loader with workers needs ``"cpu"``.
        rank: Rank of this process in distributed training. No two ranks share a batch.

    Raises:
        FileNotFoundError: There is no such head.
        ValueError: A range is out of order, not in SI units or not covered by the head; the
            montage is unknown; the sampling rate is too low for the time courses.

    """

    def __init__(
        self,
        heads: Template | Sequence[Template] | str | Path = "fsaverage-ico3",
        sources: PatchSources | None = None,
        setups: SetupRanges = SNAPSHOT_SETUPS,
        declarations: Sequence[HeadInput] = (),
        nominal_head: Template | None = None,
        tissues: TissueRanges | None = None,
        artifacts: Sequence[Artifact] = (),
        snr_db: tuple[float, float] | None = (-5.0, 20.0),
        largest_moment: float | None = None,
        batch_size: int = 256,
        n_times: int | Sequence[int] = 1,
        window_batch_size: int | None = None,
        sfreq: float = 250.0,
        seed: int = 0,
        split: str = "train",
        pool_size: int = 8,
        pool_period: int = 512,
        curriculum: Curriculum | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
    ) -> None:
        if isinstance(heads, str | Path):
            heads = load_template(heads)
        heads = [heads] if isinstance(heads, Template) else list(heads)
        sources, tissues = sources or SNAPSHOT_SOURCES, tissues or TissueRanges()
        check_heads(heads, split)
        if snr_db is not None:
            check_range("SimulatedRecordings", "snr_db", snr_db, -100, 300, "dB")
        if largest_moment is not None:
            check_number(
                "SimulatedRecordings", "largest_moment", largest_moment, 1e-12, 1e-4, "A m"
            )
        lengths = [n_times] if isinstance(n_times, int) else list(n_times)
        of_windows = batch_size if window_batch_size is None else window_batch_size
        if not lengths or min(batch_size, of_windows, *lengths) < 1:
            raise ValueError(
                "SimulatedRecordings: batch_size, window_batch_size and n_times must be 1 or more, "
                f"got {batch_size}, {window_batch_size} and {n_times}."
            )
        if max(lengths) > 1:
            sources.kind.check(sfreq)
        for head in heads:  # fail now, not after hours of training
            for montage in setups.montages if head.cap is None else ():
                head.montage_head(montage)
            check_support(head, setups, artifacts)
            for corner in (*tissues.corners, *setups.nominal.corners):
                head.family.coefficients(corner)
        self.sources, self.tissues, self.artifacts = sources, tissues, tuple(artifacts)
        self.snr_db, self.largest_moment = snr_db, largest_moment
        self.batch_size, self.window_batch_size, self.lengths = batch_size, of_windows, lengths
        self.sfreq, self.seed, self.split, self.device = sfreq, seed, split, device
        self.rank = rank
        self.curriculum = curriculum if curriculum is not None and split == "train" else OPEN
        self.limits = limits_of(heads, self.artifacts)
        on_device = [HeadOnDevice(head, device) for head in heads]
        if on_device[0].spacing == 0 and set(sources.shapes) != {"point"}:
            raise ValueError(
                f"SimulatedRecordings: the source space {heads[0].space.name!r} has no mesh, so "
                f"sources of the shapes {list(sources.shapes)} cannot spread. Use "
                "data.sources.shapes=[point], or compute it with its triangles."
            )
        self.pool = SetupPool(
            on_device,
            nominal_head or heads[0],
            setups,
            tissues,
            declarations,
            sfreq,
            pool_size,
            pool_period,
            self.curriculum,
        )

    def widths(self, step: int) -> dict[str, float]:
        """Width of every aspect of the curriculum in the batch of a step, 0 to 1."""
        return self.curriculum.widths(self.pool.first_step(step))

    def length(self, step: int) -> int:
        """Samples per example in the batch of a step, the same on every rank.

        Each round uses every length once, in an order that is drawn anew for the round.
        """
        turn, position = divmod(step, len(self.lengths))
        order = np.random.default_rng([self.seed, turn]).permutation(len(self.lengths))
        return self.lengths[order[position]]

    def at_snr(self, snr_db: float) -> "SimulatedRecordings":
        """The same recordings with the same set-ups, at one SNR, dB."""
        check_range("SimulatedRecordings", "snr_db", (snr_db, snr_db), -100, 300, "dB")
        stream = copy.copy(self)
        stream.snr_db = (snr_db, snr_db)
        return stream

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of all steps; a worker of a loader takes every n-th step."""
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.batch(step, self.rank) for step in count(first, stride))

    def batch(self, step: int, rank: int = 0) -> Batch:
        """Draw the batch of one step and rank; the same arguments give the same batch."""
        return self.parts(step, rank).batch

    def parts(self, step: int, rank: int = 0) -> Parts:
        """Draw the batch of one step and rank, and the terms it is the sum of."""
        key = (self.seed, self.split, rank, step)
        rng = torch_generator(*key, device=self.device)
        setup, widths = self.pool.at(*key), self.widths(step)
        n_times = self.length(step)
        n_examples = self.batch_size if n_times == 1 else self.window_batch_size
        tissues = self.tissues.draw(n_examples, rng, widths["tissues"])
        if not setup.true_head.template.family.varies:
            tissues = torch.full_like(tissues, torch.nan)
        anatomy = self.pool.anatomy_at(*key)
        true_leadfield = setup.draw_leadfields(tissues, anatomy, rng)
        normals = setup.true_head.normals if anatomy is None else anatomy.normals
        patches = self.sources.draw(
            setup.true_head, normals, n_examples, n_times, self.sfreq, rng, widths["sources"]
        )
        clean, sources = render(true_leadfield, patches)
        noise = setup.noise.draw(n_examples, n_times, self.sfreq, rng)
        noise_power = n_times * setup.noise_power
        power = setup.power(clean)
        scale = torch.ones(n_examples, device=rng.device)
        if self.snr_db is not None:
            snr_db = uniform((n_examples,), *self.snr_db, rng)
            scale = scale_to_db(power, noise_power, snr_db)
        if self.largest_moment is not None:
            scale = scale.minimum(self.largest_moment / patches.moments.amax(1))
        snr_db = 10 * torch.log10(scale.square() * power / noise_power)
        artifacts, present = self.draw_artifacts(
            setup, true_leadfield, n_times, noise_power, widths, rng
        )
        clean = scale[:, None, None] * clean
        data = clean + noise
        for potential in artifacts:
            data = data + potential
        moments = scale[:, None] * patches.moments
        scene = Scene(
            patches.peaks,
            patches.extents,
            moments,
            snr_db,
            tissues,
            present,
            setup.true_head.template.name,
            key,
        )
        batch = Batch(
            data=data,
            sources=sources.mul_(scale[:, None, None]),
            head=setup.head,
            inputs=setup.inputs,
            true_leadfield=true_leadfield,
            scene=scene,
        )
        return Parts(batch, clean, noise, artifacts, patches, setup, anatomy)

    def draw_artifacts(
        self,
        setup: RecordingSetup,
        true_leadfield: LowRankLeadField,
        n_times: int,
        noise_power: float,
        widths: dict[str, float],
        rng: torch.Generator,
    ) -> tuple[tuple[Float[Tensor, "B C T"], ...], Bool[Tensor, "B A"]]:
        """Draw the artifacts that this head supports, and which examples have which artifact."""
        head, n_examples = setup.true_head, len(true_leadfield.patterns)
        no_eyes = head.template.family.eye_core.shape[2] == 0
        needed = any(artifact.needs_eyes for artifact in self.artifacts) and not no_eyes
        eyes = setup.lead_fields.eyes(true_leadfield) if needed else None
        recording = Recording(setup.sensor_pos, eyes, n_examples, n_times, self.sfreq)
        drawn = []
        present = torch.zeros(n_examples, len(self.artifacts), dtype=torch.bool, device=rng.device)
        for number, artifact in enumerate(self.artifacts):
            if not (artifact.needs_eyes and no_eyes):
                potential, present[:, number] = artifact.draw(
                    recording, noise_power, widths["artifacts"], rng
                )
                drawn.append(potential)
        return tuple(drawn), present


def check_support(head: Template, setups: SetupRanges, artifacts: Sequence[Artifact]) -> None:
    """Refuse what a head lacks: other anatomies, magnetic fields; and MEG with artifacts.

    Raises:
        ValueError: Any of these.

    """
    if setups.anatomy is not None:
        check_anatomy(head)
    if setups.coils is None and head.known_coils is None:
        return
    if artifacts:
        advice = (
            "data.setups.coils=null."
            if head.known_coils is None
            else "take the EEG channels of the forward solution alone (mne.pick_types_forward)."
        )
        raise ValueError(
            "SimulatedRecordings: artifacts are those of EEG, they cannot be drawn beside MEG. Set "
            f"data.artifacts=[], or {advice}"
        )
    if head.warp_seed is not None and not setups.own_anatomy:
        raise ValueError(
            f"SimulatedRecordings: MEG of the head {head.name!r} needs its own anatomy, because "
            "the coils about it are not placed on the template. Set data.setups.own_anatomy=true, "
            "or data.setups.coils=null."
        )
    _ = head.magnetic  # refused now, not after hours of training


def render(
    true_leadfield: LowRankLeadField, patches: Patches
) -> tuple[Float[Tensor, "B C T"], Float[Tensor, "B D T"]]:
    """Potentials and dipole moments of patches. Projects samples or patches, the fewer of both."""
    sources = patches.patterns.transpose(1, 2) @ patches.time_courses
    if patches.time_courses.shape[2] <= patches.time_courses.shape[1]:
        return true_leadfield.project(sources), sources
    return true_leadfield.project(patches.patterns.transpose(1, 2)) @ patches.time_courses, sources


def limits_of(heads: Sequence[Template], artifacts: Sequence[Artifact]) -> list[str]:
    """Settings that these heads cannot vary, as sentences for the user."""
    notes = []
    for head in heads:
        if not head.family.varies:
            notes.append(
                f"The head {head.name!r} has one lead field only: conductivities and skull "
                "thickness do not vary."
            )
        if head.cap is not None:
            notes.append(
                f"The head {head.name!r} has a lead field for its own {len(head.cap)} sensors "
                "only: they are the only montage and are not displaced."
            )
        eyes = [type(a).__name__ for a in artifacts if a.needs_eyes]
        if eyes and not head.family.eye_core.shape[2]:
            notes.append(f"The head {head.name!r} has no eyes: {', '.join(eyes)} are not drawn.")
    return notes
