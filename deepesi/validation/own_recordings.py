"""Cases of a user's own recordings, from ``expectation.yaml``; all is checked before any is run."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.data_check import check_data
from deepesi.physics.io.head_mri import read_head_mri
from deepesi.physics.io.selection import channels_to_localize, usable_channels
from deepesi.physics.noise import rank_of, whitened_power, whitener
from deepesi.physics.template import load_template
from deepesi.runtime.corrections import baselined
from deepesi.runtime.noise_check import check_baseline, check_noise, quietest_average
from deepesi.runtime.noise_estimate import check_noise_level, noise_of
from deepesi.runtime.reading.averaging import average
from deepesi.runtime.reading.formats import FORMATS
from deepesi.runtime.reading.recording import read_recording
from deepesi.runtime.setup import read_covariance, read_forward
from deepesi.runtime.stretches import bad_epochs
from deepesi.runtime.writing.subject_anatomy import subject_anatomy
from deepesi.validation.case import Case, OwnHead
from deepesi.validation.expectation_file import Entry
from deepesi.validation.run import own_case_head, template_case_head

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording

#: Names of files that are recordings, in MNE-Python's and in BIDS' conventions.
RECORDING = re.compile(
    r"(ave|epo|raw|eeg|meg)\.fif(\.gz)?$|(" + "|".join(map(re.escape, FORMATS)) + r")$",
    re.IGNORECASE,
)
#: Endings of these names, which {name} in the path of another file is without.
ENDING = re.compile(r"([-_]?(ave|epo|raw|eeg|meg))?\.(fif(\.gz)?|[a-z]+)$", re.IGNORECASE)
Array = NDArray[np.float64]
Say = Callable[[str], None]


def own_cases(path: Path, entries: Sequence[Entry], say: Say) -> list[Case]:
    """Read and check the recordings of all entries.

    Args:
        path: Folder of recordings, or one recording.
        entries: Entries of the file of expectations.
        say: Called with lines about the recordings, such as those that no entry names.

    Raises:
        FileNotFoundError: There is no such folder or file, or an entry matches no recording.
        ValueError: A recording cannot be read, averaged or put on the packaged head; or its times
            are not within it.

    """
    pairs = _matched(path, entries, say)
    cases = [_case(entry, file, name, say) for entry, file, name in pairs]
    return _named_apart(cases)


def _matched(path: Path, entries: Sequence[Entry], say: Say) -> list[tuple[Entry, Path, str]]:
    """Entry, path and relative path of every recording to run, in the order of the entries."""
    if not path.exists():
        raise FileNotFoundError(f"there is no recording and no folder {path}.")
    folder = path if path.is_dir() else path.parent
    pairs = [(entry, file) for entry in entries for file in _files(folder, entry)]
    if path.is_dir():
        _compare(folder, entries, pairs, say)
    else:
        pairs = [(entry, file) for entry, file in pairs if file.samefile(path)]
        if not pairs:
            raise ValueError(
                f"{path}: no entry of the expectations has this name or a pattern that matches it: "
                f"{', '.join(entry.file for entry in entries)}."
            )
    return [(entry, file, str(file.relative_to(folder))) for entry, file in pairs]


def _files(folder: Path, entry: Entry) -> list[Path]:
    """The recordings that an entry names, by path or by pattern."""
    name = Path(entry.file)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise ValueError(
            f"{entry.where}: file is {entry.file!r}, expected a path or pattern of recordings in "
            f"{folder}, relative to it."
        )
    exact = folder / name
    if exact.is_file():
        return [exact]
    return sorted(p for p in folder.glob(entry.file) if p.is_file() and RECORDING.search(p.name))


def _compare(
    folder: Path, entries: Sequence[Entry], pairs: Sequence[tuple[Entry, Path]], say: Say
) -> None:
    """Refuse entries without a recording; report recordings without an entry."""
    there = sorted(p for p in folder.rglob("*") if RECORDING.search(p.name) and p.is_file())
    names = [str(p.relative_to(folder)) for p in there]
    for entry in entries:
        if all(other is not entry for other, _ in pairs):
            raise FileNotFoundError(
                f"{entry.where}: no recording in {folder} has this name or matches this pattern. "
                f"Recordings there: {', '.join(names[:20]) or 'none'}."
            )
    used = {file for _, file in pairs}
    for file, name in zip(there, names, strict=True):
        if file not in used:
            say(f"{name}: not run, no entry of the expectations names it")


def _named_apart(cases: Sequence[Case]) -> list[Case]:
    """Cases of the same response in several windows get the window in their names.

    Raises:
        ValueError: Two have the same window as well.

    """
    times = Counter(case.condition for case in cases)
    named = [
        replace(case, condition=f"{case.condition}, {_ms(case.window)}")
        if times[case.condition] > 1
        else case
        for case in cases
    ]
    twice = [name for name, n in Counter(case.condition for case in named).items() if n > 1]
    if twice:
        raise ValueError(
            f"{twice[0]}: two entries of the expectations are about this response and window. Put "
            "them into one entry, or make their patterns more narrow."
        )
    return named


def _ms(window: tuple[float, float]) -> str:
    start, stop = (f"{1e3 * time:.0f}" for time in window)
    return f"{start} ms" if start == stop else f"{start} to {stop} ms"


def _case(entry: Entry, path: Path, name: str, say: Say) -> Case:
    """The case of one recording; an error names entry and recording."""
    where = f"{entry.where}, {path}"
    try:
        case = _read(entry, path, name, say)
        _check(case, say)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return case


def _read(entry: Entry, path: Path, name: str, say: Say) -> Case:
    recording = read_recording(path, entry.reading, lambda line: say(f"{name}: {line}"))
    evoked, trials = _averaged(recording, entry)
    baseline = _baseline(entry, evoked)
    evoked, _ = baselined(evoked, entry.baseline or (None, 0.0))  # up to 0, as usual
    response = entry.reading.event or entry.reading.condition
    return Case(
        recording=name,
        condition=name if response is None else f"{name}, {response}",
        evoked=evoked,
        noise_cov=_noise(entry, path, trials, baseline),
        window=_window(entry, evoked.times),
        expectation=entry.expectation,
        own=_own_head(entry, path),
        baseline=baseline,
        trans=None if entry.trans is None else read_head_mri(_beside(path, entry.trans)),
        picks=entry.picks,
    )


def _averaged(recording: "Recording", entry: Entry) -> "tuple[mne.Evoked, mne.BaseEpochs | None]":
    """The average of a recording, and its trials if they are at hand."""
    import mne

    if entry.reading.event is not None:
        return average(recording, entry.reading.event, entry.reading.epoch, entry.baseline)[:2]
    if isinstance(recording, mne.io.BaseRaw):
        raise ValueError(
            "it is a raw recording, of which a response is the average about an event. Name the "
            "event ('event'), or give the average."
        )
    if isinstance(recording, mne.Evoked):
        return recording, None
    bad = bad_epochs(recording)
    good = recording[[number for number in range(len(recording)) if number not in bad]]
    if not len(good):
        raise ValueError("it holds no epochs that are not annotated BAD, so there is no average.")
    return good.average(), good


def _baseline(entry: Entry, evoked: "mne.Evoked") -> tuple[float, float]:
    """Start and end of the baseline, s; by default of all samples before 0.

    Raises:
        ValueError: There is none, or the response is expected in it.

    """
    (first, last), times = entry.window, evoked.times
    before = times[times < -1e-3 / evoked.info["sfreq"]]  # one at 0 may be rounded to below 0
    if entry.baseline is None and (len(before) < 2 or first < 0):
        raise ValueError(
            f"the recording ({_seconds(times)}) has no time before 0, or the response is expected "
            "there, so there is no baseline to compare it with. Give one with 'baseline_s'."
        )
    if entry.baseline is None:
        return float(before[0]), float(before[-1])
    start, stop = entry.baseline
    if first <= stop and last >= start:
        raise ValueError(
            f"the response ({first:g} to {last:g} s) is expected within the baseline ({start:g} to "
            f"{stop:g} s), which is without one. Give another 'baseline_s'."
        )
    return start, stop


def _seconds(times: Array) -> str:
    return f"{times[0]:g} to {times[-1]:g} s"


def _window(entry: Entry, times: Array) -> tuple[float, float]:
    """Window of the response, s; a single time becomes that of the nearest sample.

    Raises:
        ValueError: It is not within the recording.

    """
    start, stop = entry.window
    nearly = 0.5 * (times[1] - times[0])
    if not times[0] - nearly <= start <= stop <= times[-1] + nearly:
        in_ms = times[0] <= 1e-3 * start <= 1e-3 * stop <= times[-1]
        raise ValueError(
            f"the response ({start:g} to {stop:g} s) is not within the recording "
            f"({_seconds(times)}). {'It looks like ms: give' if in_ms else 'Give'} times in s."
        )
    if start == stop:
        nearest = float(times[np.abs(times - start).argmin()])
        return nearest, nearest
    return start, stop


def _noise(
    entry: Entry, path: Path, trials: "mne.BaseEpochs | None", baseline: tuple[float, float]
) -> "mne.Covariance":
    """Noise covariance of single trials: of a file, or from the baseline of the trials."""
    if entry.noise_cov is not None and entry.noise_from is not None:
        raise ValueError("'noise_cov' and 'noise_from_s' both set the noise. Give one of them.")
    if entry.noise_cov is not None:
        return read_covariance(_beside(path, entry.noise_cov))
    if trials is None:
        raise ValueError(
            "it is an average, whose file does not tell the noise of its trials. Give their noise "
            "covariance with 'noise_cov' (mne.compute_covariance of their baselines)."
        )
    window = entry.noise_from or baseline
    channels = channels_to_localize(trials.info, None, entry.picks)
    covariance = noise_of(trials, window, channels)
    check_noise_level(covariance, usable_channels(trials.info))
    return covariance


def _own_head(entry: Entry, path: Path) -> OwnHead | None:
    """The subject's own head, if there is one."""
    if entry.forward is None or entry.subjects_dir is None:
        return None
    forward = read_forward(_beside(path, entry.forward))
    assert forward is not None
    return OwnHead(forward, subject_anatomy(forward, _beside(path, entry.subjects_dir)).mni)


def _beside(recording: Path, name: str) -> Path:
    """A file in the folder of a recording; ``{name}`` is the recording's without its ending."""
    return recording.parent / name.replace("{name}", ENDING.sub("", recording.name))


def _check(case: Case, say: Say) -> None:
    """Refuse what could not be run: electrodes, noise covariance, units, level of the noise."""
    if not case.in_response.any():
        raise ValueError(f"the response ({_ms(case.window)}) holds no sample. Widen it.")
    evoked, head = case.evoked, template_case_head(case, load_template()).head
    data = evoked.get_data(picks=list(head.sensors.names))
    check_data(data, head.sensors)
    rank, white = rank_of(head.noise_cov), whitener(head.noise_cov) @ head.sensors.to_head(data)
    quietest = quietest_average(rank, float(evoked.times[-1] - evoked.times[0]))
    check_noise(whitened_power(white, rank), quietest, evoked.nave)
    at_rest = white[:, case.in_baseline]
    at_rest -= at_rest.mean(axis=1, keepdims=True)
    warning = check_baseline([at_rest], rank, evoked.nave)
    if warning is not None:
        say(f"warning: {case.condition}: {warning}")
    if case.own is not None:
        own_case_head(case)
