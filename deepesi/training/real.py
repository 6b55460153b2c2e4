"""RealRecordings: batches of windows of real recordings, without targets."""

import math
import os
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from deepesi.core.contracts import as_tensors
from deepesi.core.unlabelled import Unlabelled
from deepesi.data_gen.curriculum import OPEN
from deepesi.data_gen.keys import key_entropy
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput, prepare
from deepesi.physics.template import Template
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.training.real_files import Interval, OpenFile, RealFile, find_files, read_header

#: Errors of a file that is skipped: it is damaged or missing, or has no usable EEG.
BROKEN = (ValueError, OSError)
#: Number of files that are open at the same time and take turns.
N_OPEN = 4
#: Batches of one file between two changes of the open files.
VISIT = 16
#: Batches tried before a run stops because none can be read.
MAX_UNREADABLE = 64


class _Setup(NamedTuple):
    file: OpenFile
    head: HeadModel
    inputs: dict[str, torch.Tensor]


class RealRecordings(IterableDataset[Unlabelled]):
    """Endless stream of windows of real recordings, in batches of one recording each.

    Every recording keeps its own set-up: montage, noise covariance and rank. Windows do not
    overlap and lie within good stretches. In one epoch each is used at most once, unless a file
    cannot be read; the last windows of a file may form a smaller batch. `N_OPEN` files take turns,
    `VISIT` batches each, in an order that is drawn anew for every epoch. `batch` returns the batch
    of any step, so that runs can resume, and workers of a `torch.utils.data.DataLoader` take turns
    at the steps. Each rank has an order of its own. Both hold as long as the files stay the same; a
    run with other files is not resumed.

    Memory does not grow with the length of the recordings: the windows of a batch, the set-ups of
    `N_OPEN` files, 24 bytes per file stretch and 24 bytes per `VISIT` batches of an epoch.

    Files that cannot be read are skipped with a warning, at the start or during the run: the batch
    comes from another file then. `broken` counts the lost batches by file.

    Args:
        files: Files, folders, or data sets in BIDS.
        nominal_head: Head of the analyst.
        declarations: Head inputs to prepare.
        heads: Not used; simulated recordings have it.
        batch_size: Windows per batch.
        n_times: Samples per window.
        sfreq: Sampling rate of the files to use, Hz; needed if they have several.
        noise: Start and end, s, of a stretch without activity of interest, as ``--noise-from``
            such as the time before 0 of epochs. None: the part of every channel that the others do
            not predict.
        montage: Standard positions of the channels; None: those in the files.
        unit: Unit of the data, if the files have none.
        validation_files: Files for validation. None: the last fifth of every recording.
        evaluated: Files that are evaluated later and must not be among `files`.
        seed: First part of the random key.
        split: ``"train"`` or ``"validation"``.
        device: Device of the batches.
        rank: Rank of this process in distributed training.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: No file is usable; sampling rates differ; a file is evaluated or used for both
            splits; a size is not positive.

    """

    curriculum = OPEN

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        nominal_head: Template,
        declarations: Sequence[HeadInput] = (),
        heads: Sequence[Template] = (),
        batch_size: int = 64,
        n_times: int = 20,
        sfreq: float | None = None,
        noise: Interval | None = None,
        montage: str | None = None,
        unit: str | None = None,
        validation_files: str | Path | Sequence[str | Path] | None = None,
        evaluated: str | Path | Sequence[str | Path] = (),
        seed: int = 0,
        split: str = "train",
        device: torch.device | str = "cpu",
        rank: int = 0,
    ) -> None:
        if batch_size < 1 or n_times < 1:
            raise ValueError(
                f"RealRecordings: batch_size and n_times must be 1 or more, got {batch_size} and "
                f"{n_times}."
            )
        self.nominal_head, self.declarations = nominal_head, tuple(declarations)
        self.batch_size, self.n_times, self.noise = batch_size, n_times, noise
        self.options = ReadingOptions(montage=montage, unit=unit)
        self.seed, self.split, self.device, self.rank = seed, split, device, rank
        if not files:
            raise ValueError(
                "RealRecordings: no recordings are given. Name files or folders, as in "
                "data.files=[FOLDER]."
            )
        paths, own = find_files(files), validation_files is not None
        if own:
            others = find_files(validation_files or ())
            _refuse_common(paths, others, "for training and for validation")
            paths = paths if split == "train" else others
        _refuse_common(paths, find_files(evaluated), "here and evaluated later")
        self.limits: list[str] = []
        opened = self._of_one_rate(self._readable(paths), sfreq)
        parts = [file if own else file.part(split) for file in opened]
        self.files = [file for file in parts if file.n_windows(n_times)]
        short = [file.path.name for file in parts if not file.n_windows(n_times)]
        if short:
            self.limits.append(
                f"{len(short)} of {len(parts)} recordings have no good stretch of {n_times} "
                f"samples for {split} and are not used: {', '.join(short[:5])}."
            )
        if not self.files:
            raise ValueError(
                f"RealRecordings: none of {len(parts)} recordings holds a good stretch of "
                f"{n_times} samples for {split}. Use a smaller n_times."
            )
        self.sfreq = self.files[0].sfreq
        windows = np.array([file.n_windows(n_times) for file in self.files])
        self._n_blocks: NDArray[np.int64] = -(-windows // batch_size)
        self.broken: Counter[str] = Counter()
        self._open: OrderedDict[int, _Setup] = OrderedDict()
        self._epoch: tuple[tuple[int, int], _Epoch] | None = None

    def _readable(self, paths: Sequence[Path]) -> list[RealFile]:
        """Headers of the files; `limits` lists those that cannot be read."""
        files, skipped = [], {}
        for path in paths:
            try:
                files.append(read_header(path, self.options))
            except BROKEN as error:
                skipped[path] = str(error)
        reasons = "; ".join(f"{path.name}: {text:.200}" for path, text in [*skipped.items()][:5])
        text = f"{len(skipped)} of {len(paths)} files are skipped: {reasons}"
        if not files:
            raise ValueError(f"RealRecordings: no file is usable. {text}")
        if skipped:
            self.limits.append(text)
        return files

    def _of_one_rate(self, files: list[RealFile], sfreq: float | None) -> list[RealFile]:
        """The files of one sampling rate."""
        rates = Counter(file.sfreq for file in files)
        counts = ", ".join(f"{n} at {rate:g} Hz" for rate, n in rates.most_common())
        if sfreq is None and len(rates) > 1:
            raise ValueError(
                f"RealRecordings: the files have different sampling rates: {counts}. Choose one "
                "(data.sfreq=...), or resample the others with MNE-Python."
            )
        if sfreq is not None and sfreq not in rates:
            raise ValueError(f"RealRecordings: no file at {sfreq:g} Hz; there are {counts}.")
        if sfreq is not None and len(rates) > 1:
            self.limits.append(f"Only the files at {sfreq:g} Hz are used, of {counts}.")
        return [file for file in files if sfreq in (None, file.sfreq)]

    def __iter__(self) -> Iterator[Unlabelled]:
        """Batches of all steps; a worker of a loader takes every n-th step."""
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.batch(step, self.rank) for step in count(first, stride))

    def __getstate__(self) -> dict[str, Any]:
        """State for a spawned worker: open files stay in this process."""
        return self.__dict__ | {"_open": OrderedDict()}

    @property
    def n_batches(self) -> int:
        """Number of batches of an epoch."""
        return int(sum(self._n_blocks))

    @property
    def recordings(self) -> dict[str, int]:
        """Windows of every file by its path in the common folder; the order depends on these."""
        folder = os.path.commonpath([file.path.parent for file in self.files])
        return {
            file.path.relative_to(folder).as_posix(): file.n_windows(self.n_times)
            for file in self.files
        }

    def batch(self, step: int, rank: int = 0) -> Unlabelled:
        """The batch of one step and rank, from another file if its own cannot be read.

        Raises:
            ValueError: `MAX_UNREADABLE` batches in a row cannot be read.

        """
        last: Exception | None = None
        for offset in range(MAX_UNREADABLE):
            # The next epoch begins with other files, as fewer batches may be left in this one.
            number, block = self._block(step + offset * VISIT, rank)
            try:
                return self._read(number, block, (self.seed, self.split, rank, step))
            except BROKEN as error:
                self._count_broken(number, error)
                last = error
        raise ValueError(
            f"RealRecordings: {MAX_UNREADABLE} batches in a row could not be read, last of "
            f"{self.files[number].path} ({last}). Lost batches by file: "
            f"{dict(self.broken.most_common(5))}."
        ) from last

    def _count_broken(self, number: int, error: Exception) -> None:
        path = str(self.files[number].path)
        self._open.pop(number, None)
        self.broken[path] += 1
        if self.broken[path] == 1:
            warnings.warn(
                f"real recordings: {path} is skipped where it cannot be read ({error}). "
                f"{len(self.broken)} of {len(self.files)} files are broken.",
                stacklevel=2,
            )

    def _block(self, step: int, rank: int) -> tuple[int, int]:
        """File and number of the block of windows of a step."""
        epoch, position = divmod(step, self.n_batches)
        if self._epoch is None or self._epoch[0] != (epoch, rank):
            entropy = [*key_entropy(self.seed, self.split, rank, epoch), 5]
            self._epoch = (epoch, rank), _Epoch.draw(self._n_blocks, np.random.default_rng(entropy))
        return self._epoch[1].block(position)

    def _read(self, number: int, block: int, key: tuple[int, str, int, int]) -> Unlabelled:
        setup, file = self._setup(number), self.files[number]
        n_windows = file.n_windows(self.n_times)
        entropy = key_entropy(self.seed, self.split, key[2], key[3] // self.n_batches)
        rows = range(block * self.batch_size, min((block + 1) * self.batch_size, n_windows))
        order = _Shuffle.draw(n_windows, [*entropy, 6, number])
        starts = [file.start(order[row], self.n_times) for row in rows]
        data = np.stack([setup.file.window(start, self.n_times) for start in starts])
        if not np.isfinite(data).all():
            raise ValueError(f"{file.path}: windows hold NaN or infinite values.")
        referenced = setup.head.sensors.reference(data, axis=1)
        return Unlabelled(
            data=torch.as_tensor(referenced, dtype=torch.float32, device=self.device),
            head=setup.head,
            inputs=setup.inputs,
            sfreq=file.sfreq,
            origin=str(file.path),
            starts=torch.tensor(starts),
            key=key,
        )

    def _setup(self, number: int) -> _Setup:
        """An open file and its prepared head; the `N_OPEN` last used ones are kept."""
        if number not in self._open:
            file = OpenFile(self.files[number], self.options, self.noise)
            head = file.head(self.nominal_head)
            inputs = as_tensors(prepare(self.declarations, head), self.device)
            self._open[number] = _Setup(file, head, inputs)
            while len(self._open) > N_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


class _Epoch(NamedTuple):
    """Order of the blocks of an epoch: visits of files, `N_OPEN` of them interleaved.

    Attributes:
        visits: File, first block and number of blocks of every visit ``(V, 3)``, in order.
        ends: Position after the last block of every group of `N_OPEN` visits.

    """

    visits: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def draw(cls, n_blocks: NDArray[np.int64], rng: np.random.Generator) -> "_Epoch":
        """Order of an epoch over files with this many blocks."""
        n_visits = -(-n_blocks // VISIT)
        file = np.repeat(np.arange(len(n_blocks)), n_visits)
        first = VISIT * (np.arange(len(file)) - np.repeat(n_visits.cumsum() - n_visits, n_visits))
        length = np.minimum(VISIT, n_blocks[file] - first)
        visits = rng.permutation(np.stack([file, first, length], axis=1))
        sizes = np.add.reduceat(visits[:, 2], np.arange(0, len(visits), N_OPEN))
        return cls(visits, sizes.cumsum())

    def block(self, position: int) -> tuple[int, int]:
        """File and block at a position of the epoch."""
        group = int(np.searchsorted(self.ends, position, side="right"))
        inside = position - (int(self.ends[group - 1]) if group else 0)
        visits = self.visits[group * N_OPEN : (group + 1) * N_OPEN]
        turns = [(k, row) for k in range(VISIT) for row in range(len(visits)) if k < visits[row, 2]]
        k, row = turns[inside]
        return int(visits[row, 0]), int(visits[row, 1]) + k


@dataclass(frozen=True)
class _Shuffle:
    """Random order of ``n`` numbers that is not stored: ``k -> (factor k + offset) mod n``."""

    n: int
    factor: int
    offset: int

    @classmethod
    def draw(cls, n: int, entropy: list[int]) -> "_Shuffle":
        """A random order; the factor has no divisor in common with ``n``."""
        rng = np.random.default_rng(entropy)
        offset, drawn = int(rng.integers(n)), (int(rng.integers(1, max(n, 2))) for _ in count())
        return cls(n, next(factor for factor in drawn if math.gcd(factor, n) == 1), offset)

    def __getitem__(self, number: int) -> int:
        return (self.factor * number + self.offset) % self.n


def _refuse_common(paths: Sequence[Path], others: Sequence[Path], text: str) -> None:
    common = sorted({p.resolve() for p in paths} & {p.resolve() for p in others})
    if common:
        raise ValueError(
            f"RealRecordings: {len(common)} files are used {text}: "
            f"{[path.name for path in common[:5]]}. Give every file one purpose."
        )
