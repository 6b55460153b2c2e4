"""Noise covariance and head of a recording, by options and files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.physics.io.head_mri import read_head_mri
from deepesi.physics.io.rank import RankChoice
from deepesi.runtime.inverse import Inverse
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne


@dataclass(frozen=True)
class SetupOptions:
    """Noise covariance and head of a recording.

    Attributes:
        noise_cov: Noise covariance of single trials, ``-cov.fif``.
        noise_from: Time window of noise, s, in place of `noise_cov`; as in `noise_of`.
        forward: The recording's own ``-fwd.fif``; the packaged head if None.
        head: Packaged head or ``.npz``.
        prepared: ``head.npz`` of `prepare`, in place of all of these.
        subjects_dir: FreeSurfer's folder of the subject of `forward`: MNI positions and parcels.
        n_threads: Threads of one inference, 0 for all cores.
        rank: Dimensions of the noise, as in `RankChoice`.
        trans: ``-trans.fif`` that places the sensors on the packaged or own head.
        picks: Kinds of sensors to use, as in `Inverse.for_recording`.

    """

    noise_cov: Path | None = None
    noise_from: Sequence[float] | None = None
    forward: Path | None = None
    head: str | None = None
    prepared: Path | None = None
    n_threads: int = 0
    subjects_dir: Path | None = None
    rank: RankChoice = None
    trans: Path | None = None
    picks: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.noise_cov is not None and self.noise_from is not None:
            raise ValueError("--noise-cov and --noise-from both set the noise; give one.")
        others = (
            self.noise_cov,
            self.noise_from,
            self.forward,
            self.head,
            self.rank,
            self.trans,
            self.picks,
        )
        if self.prepared is not None and any(other is not None for other in others):
            raise ValueError(
                "--prepared already contains noise and head; leave --noise-cov, --noise-from, "
                "--forward, --head, --rank, --trans and --picks out."
            )
        if self.forward is not None and self.head is not None:
            raise ValueError(
                "--forward and --head both set the head; give --forward for the "
                "recording's own, or --head for one of several subjects."
            )
        if self.forward is not None and self.trans is not None:
            raise ValueError(
                "--forward contains the transform from head to MRI that it was computed with; "
                "leave --trans out, or --forward to use the packaged head."
            )
        if self.subjects_dir is not None and self.forward is None:
            raise ValueError(
                "--subjects-dir needs --forward, the forward solution of the same subject; give "
                "both, or neither."
            )


#: Opens a model by its path or name for a set-up, such as `open_file`.
Opener = Callable[[Path, SetupOptions], Inverse]


def open_file(model: Path, setup: SetupOptions) -> Inverse:
    """Open an exported or packaged file.

    Args:
        model: Path of an exported file, or the name of a packaged one.
        setup: Set-up with the head and the number of threads.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It was not written by deepesi, or was damaged.

    """
    return Inverse.load(model, setup.n_threads, setup.head)


#: Where noise may come from in place of a covariance, for the error of `read_covariance`.
NOISE_FROM = ", or --noise-from FROM TO with epochs or a raw recording"


def read_covariance(path: Path | None, others: str = NOISE_FROM) -> "mne.Covariance":
    """Read a noise covariance of single trials.

    Args:
        path: The file, ``-cov.fif``.
        others: What else the command takes, for the error without a path.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No path, or not a file of a covariance.

    """
    import mne

    if path is None:
        raise ValueError(
            "the noise covariance is missing: the model needs the level of the noise. Give "
            "--noise-cov COV.fif (mne.compute_covariance of the baseline of single "
            f"trials){others}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    with parsing(path, "noise covariance", "Write it again with mne.write_cov."):
        return mne.read_cov(path, verbose="error")


def read_forward(path: Path | None) -> "mne.Forward | None":
    """The recording's own forward solution, if there is one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not a file of a forward solution.

    """
    import mne

    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    with parsing(path, "forward solution", "Write it again with mne.write_forward_solution."):
        return mne.read_forward_solution(path, verbose="error")


def read_transform(path: Path | None) -> "mne.Transform | None":
    """The transform of the user, if there is one."""
    return None if path is None else read_head_mri(path)
