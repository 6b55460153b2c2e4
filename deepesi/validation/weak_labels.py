"""Weak labels: responses of real recordings with the area where they are expected.

The file is that of ``deepesi validate --expect``. What is evaluated with such a file must not be
trained on, so recordings to evaluate are named and refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.template import Template
from deepesi.validation.case import Case
from deepesi.validation.expectation_file import read_expectations
from deepesi.validation.own_recordings import own_cases
from deepesi.validation.run import template_case_head

#: Radius around a landmark without tolerance, mm.
AROUND = 25.0


class WeakCase(NamedTuple):
    """One response with a weak label.

    Attributes:
        name: Name of the response, with its recording.
        head: Template head under the set-up of the recording.
        data: The response in its window ``(C, T)``, V.
        sfreq: Sampling rate, Hz.
        expected_area: Whether activity is expected at a source ``(S,)``.

    """

    name: str
    head: HeadModel
    data: NDArray[np.float64]
    sfreq: float
    expected_area: NDArray[np.bool_]


def weak_cases(
    template: Template,
    path: str | Path,
    expect: str | Path,
    evaluated: str | Path | Sequence[str | Path] = (),
) -> list[WeakCase]:
    """Responses of a folder of recordings with their expected areas.

    Args:
        template: Head of the analyst.
        path: Folder of recordings, or one recording.
        expect: File of expectations, as for ``deepesi validate --expect``.
        evaluated: Recordings that are evaluated later, or folders of them; a relative path starts
            in the folder of the recordings.

    Raises:
        FileNotFoundError: A file is missing, one that is evaluated later included.
        ValueError: A recording is evaluated later; the file or a recording is damaged; no source of
            the head meets an expectation.

    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    later = _later(folder, [evaluated] if isinstance(evaluated, str | Path) else evaluated)
    cases = own_cases(Path(path), read_expectations(Path(expect)), lambda line: None)
    trained = {case.recording: (folder / case.recording).resolve() for case in cases}
    common = sorted(name for name, file in trained.items() if later & {file, *file.parents})
    if common:
        raise ValueError(
            f"weak labels: {common} are evaluated later, so their expectations must not train a "
            "network. Leave them out of the file of expectations for training."
        )
    return [_weak(case, template) for case in cases]


def _later(folder: Path, evaluated: Sequence[str | Path]) -> set[Path]:
    """What is evaluated later, as absolute paths."""
    later = {(folder / name).resolve() for name in evaluated}
    missing = sorted(str(path) for path in later if not path.exists())
    if missing:
        raise FileNotFoundError(
            f"weak labels: there is no {', '.join(missing)}, which is to be evaluated later. "
            "Correct the name; a relative path starts in the folder of the recordings."
        )
    return later


def _weak(case: Case, template: Template) -> WeakCase:
    at = template_case_head(case, template)
    expected_area = np.ones(len(at.mni), dtype=bool)
    for inside in case.expectation.met(at.mni, at.target_distance).values():
        expected_area &= inside
    if at.target_distance is not None and case.expectation.within is None:
        expected_area &= at.target_distance <= AROUND
    if not expected_area.any():
        raise ValueError(
            f"weak labels: no source of {template.name!r} meets the expectation of "
            f"{case.recording} ({case.expectation}). Use a larger tolerance (within_mm)."
        )
    evoked = case.evoked.copy().pick(list(at.head.sensors.names))
    data = evoked.data[:, case.in_response]
    return WeakCase(case.condition, at.head, data, float(evoked.info["sfreq"]), expected_area)
