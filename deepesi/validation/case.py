"""What is validated on: a response with its noise, where it should be, and the heads to try."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.validation.expectation import Expectation

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OwnHead:
    """A subject's own head: a forward solution and how its sources relate to MNI space.

    Attributes:
        forward: On a cortical surface.
        source_mni: Its sources ``(S, 3)``, MNI305 mm, in the order of the forward solution.
        target_distance: From every source to the target ``(S,)``, mm, per condition name; where a
            condition has none, distances are to the landmark of its expectation.
        target: The targets in words, per condition name.

    """

    forward: "mne.Forward"
    source_mni: Array
    target_distance: dict[str, Array] = field(default_factory=dict)
    target: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One response.

    Attributes:
        recording: Which data set.
        condition: Name of the response.
        evoked: With a pre-stimulus baseline, subtracted.
        noise_cov: Of single trials.
        window: Where the response is expected, s.
        expectation: Where it should come from.
        own: The subject's own head, if there is one.

    """

    recording: str
    condition: str
    evoked: "mne.Evoked"
    noise_cov: "mne.Covariance"
    window: tuple[float, float]
    expectation: Expectation
    own: OwnHead | None = None


@dataclass(frozen=True)
class CaseHead:
    """A head under the set-up of a case, with the distances to its target.

    Attributes:
        name: ``"template"`` or ``"own"``.
        head: The head.
        mni: Sources ``(S, 3)``, MNI305 mm.
        target_distance: ``(S,)``, mm.
        target: What the distance is to, in words.

    """

    name: str
    head: HeadModel
    mni: Array
    target_distance: Array
    target: str


def require_files(folder: Path, roles: dict[str, str], origin: str) -> dict[str, Path]:
    """Paths of files below a folder, all there.

    Args:
        folder: Where.
        roles: What a file is for, to its path below the folder.
        origin: Which data set it should be, for errors.

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
