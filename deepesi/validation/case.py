"""Validation cases: a response with noise covariance, expected location and heads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.io.selection import channels_to_localize
from deepesi.validation.expectation import Expectation

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OwnHead:
    """Subject head: a forward solution and the MNI positions of the sources.

    Attributes:
        forward: Forward solution on a cortical surface.
        source_mni: Source positions ``(S, 3)``, MNI305 mm, in the order of the forward solution.
        target_distance: Distance of every source to the target ``(S,)``, mm, by condition.
            Conditions without an entry use the landmark of the expectation.
        target: Text that describes the target, by condition.

    """

    forward: "mne.Forward"
    source_mni: Array
    target_distance: dict[str, Array] = field(default_factory=dict)
    target: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One evoked response.

    Attributes:
        recording: Name of the data set.
        condition: Name of the response.
        evoked: Average, with a pre-stimulus baseline that is already subtracted.
        noise_cov: Noise covariance of single trials.
        window: Start and end of the expected response, s.
        expectation: Expected source location.
        own: Subject head, if there is one.
        baseline: Start and end of the baseline, s; None: all samples before 0.
        trans: Transform that places the sensors on the packaged head, as in
            `deepesi.physics.io.heads.place_recording`; None: by names, head points or size.
        picks: Kinds of sensors to use, as in `deepesi.physics.io.selection.channels_to_localize`;
            None: EEG, or MEG if there is no EEG.

    """

    recording: str
    condition: str
    evoked: "mne.Evoked"
    noise_cov: "mne.Covariance"
    window: tuple[float, float]
    expectation: Expectation
    own: OwnHead | None = None
    baseline: tuple[float, float] | None = None
    trans: "mne.Transform | None" = None
    picks: tuple[str, ...] | None = None

    @property
    def kinds(self) -> set[str]:
        """Kinds of sensors in use, keys of `deepesi.physics.sensors.KINDS`."""
        return set(channels_to_localize(self.evoked.info, None, self.picks).values())

    @property
    def in_baseline(self) -> NDArray[np.bool_]:
        """Whether a sample belongs to the baseline ``(T,)``."""
        if self.baseline is None:
            return np.asarray(self.evoked.times < 0)
        return self._within(self.baseline)

    @property
    def in_response(self) -> NDArray[np.bool_]:
        """Whether the response is expected at a sample ``(T,)``."""
        return self._within(self.window)

    def _within(self, window: tuple[float, float]) -> NDArray[np.bool_]:
        times = self.evoked.times
        nearly = 1e-3 / self.evoked.info["sfreq"]  # times of a saved recording are rounded
        return np.asarray((times >= window[0] - nearly) & (times <= window[1] + nearly))


@dataclass(frozen=True)
class CaseHead:
    """A head with the recording set-up of a case, and distances to the target.

    Attributes:
        name: ``"template"`` or ``"own"``.
        head: Nominal head.
        mni: Source positions ``(S, 3)``, MNI305 mm.
        target_distance: Distance of every source to the target ``(S,)``, mm; None: no target.
        target: Text that describes the target; empty without one.
        placement: Text that describes how the electrodes were placed; empty for the own head.

    """

    name: str
    head: HeadModel
    mni: Array
    target_distance: Array | None
    target: str
    placement: str = ""


def require_files(folder: Path, roles: dict[str, str], origin: str) -> dict[str, Path]:
    """Return the paths of required files in a folder.

    Args:
        folder: Folder of the data set.
        roles: Relative paths by role of the file.
        origin: Name of the data set, for errors.

    Raises:
        FileNotFoundError: The folder or a file is missing; the message names them all.

    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--data: there is no folder {folder}. Expected {origin}.")
    missing = [f"{p} ({role})" for role, p in roles.items() if not (folder / p).is_file()]
    if missing:
        raise FileNotFoundError(
            f"--data: {folder} lacks {'; '.join(missing)}. Expected {origin}; copy it again."
        )
    return {role: folder / path for role, path in roles.items()}
