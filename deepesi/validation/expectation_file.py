"""``expectation.yaml``: what is expected of a user's own recordings, checked as it is read."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.utils.nearest import nearest
from deepesi.validation.expectation import Expectation

#: Tolerance about coordinates, mm, unless the file gives one: 6 % of the cortex is that near.
WITHIN = 30.0
Pair = tuple[float, float]


@dataclass(frozen=True)
class Entry:
    """One entry of the file.

    Attributes:
        where: Number and file of the entry, for errors.
        file: Path or pattern of its recordings, relative to the folder of recordings.
        expectation: Expected location.
        reading: Options for reading the recordings.
        window: Start and end of the response, s; the same for a single time.
        noise_cov: Path of the noise covariance of single trials, relative to the folder of its
            recording.
        noise_from: Start and end of the noise in every trial or in a raw recording, s.
        baseline: Start and end of the baseline, s; None: up to 0.
        trans: Path of a transform, as `noise_cov`.
        forward: Path of the subject's forward solution, as `noise_cov`.
        subjects_dir: Path of FreeSurfer's folder of this subject, as `noise_cov`.
        picks: Kinds of sensors, as in `deepesi.validation.case.Case`.

    """

    where: str
    file: str
    expectation: Expectation
    reading: ReadingOptions
    window: Pair
    noise_cov: str | None
    noise_from: Pair | None
    baseline: Pair | None
    trans: str | None
    forward: str | None
    subjects_dir: str | None
    picks: tuple[str, ...] | None


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML has no types
    """Refuses a key that is given twice, of which PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("expected text (in quotes, if YAML takes it for something else)")
    return str(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("expected a number (YAML takes 1e-3 for text: write 0.001)")
    return float(value)


def _list_of(
    n: int | None, item: Callable[[object], Any], text: str
) -> Callable[[object], tuple[Any, ...]]:
    """Reader of a list of `n` items; None: of any number."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or n not in (None, len(value)):
            raise ValueError(f"expected a list of {text}")
        return tuple(map(item, value))

    return read


def _interval(value: object) -> Pair:
    start, stop = _list_of(2, _number, "start and end, s: [0.08, 0.12]")(value)
    if not start < stop:
        raise ValueError("expected a start that is before the end, s")
    return start, stop


def _names(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("expected old and new names: {A1: Fp1}")
    return {_text(old): _text(new) for old, new in value.items()}


#: Keys of an entry, and their readers. Units are in the names: s and mm.
KEYS: dict[str, Callable[[object], Any]] = {
    "file": _text,
    "condition": _text,
    "event": _text,
    "epoch_s": _interval,
    "window_s": _interval,
    "time_s": _number,
    "baseline_s": _interval,
    "noise_cov": _text,
    "noise_from_s": _interval,
    "hemisphere": _text,
    "lobe": _text,
    "area": _text,
    "mni_mm": _list_of(3, _number, "three coordinates, MNI mm: [42, -25, 55]"),
    "within_mm": _number,
    "why": _text,
    "montage": _text,
    "exclude": _list_of(None, _text, "names of channels"),
    "rename": _names,
    "unit": _text,
    "nave": _number,
    "trans": _text,
    "forward": _text,
    "subjects_dir": _text,
    "picks": _list_of(None, _text, "kinds of sensors: [meg] or [eeg, meg]"),
}
EXAMPLE = """recordings:
  - file: left-ave.fif
    noise_cov: left-cov.fif
    window_s: [0.08, 0.12]
    hemisphere: right
    lobe: occipital"""


def read_expectations(path: Path) -> list[Entry]:
    """Read the file.

    Args:
        path: YAML file with a list ``recordings`` of mappings with `KEYS`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not YAML, an unknown or a missing key, a value of another kind or unit, or an
            entry that expects nothing.

    """
    if not path.is_file():
        raise FileNotFoundError(f"--expect: there is no file {path}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe one)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--expect: {path} is not readable as YAML: {error}") from error
    known = isinstance(content, Mapping) and list(content) == ["recordings"]
    entries = content["recordings"] if known else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f"--expect: {path} has no list 'recordings', or something beside it. Expected:\n"
            f"{EXAMPLE}"
        )
    return [_entry(f"{path}, entry {i}", entry) for i, entry in enumerate(entries, 1)]


def _entry(where: str, content: object) -> Entry:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} is {content!r}, expected keys and values. Expected:\n{EXAMPLE}")
    if "file" in content:
        where += f" ({content['file']})"
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}. {nearest(str(unknown[0]), KEYS)}")
    values = {key: _value(where, key, value) for key, value in content.items()}
    if "file" not in values:
        raise ValueError(f"{where}: 'file' is missing, the path or pattern of a recording.")
    if ("window_s" in values) == ("time_s" in values):
        raise ValueError(
            f"{where}: when the response is expected is given by one of 'window_s' (start and end, "
            "s) and 'time_s'. Give one of them."
        )
    if ("forward" in values) != ("subjects_dir" in values):
        raise ValueError(
            f"{where}: 'forward' and 'subjects_dir' belong together: the forward solution of a "
            "subject, and FreeSurfer's folder that leads to MNI coordinates. Give both, or neither."
        )
    try:
        return _checked(where, values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _value(where: str, key: str, value: object) -> Any:
    try:
        return KEYS[key](value)
    except ValueError as error:
        raise ValueError(f"{where}: {key} is {value!r}, {error}.") from None


def _checked(where: str, values: Mapping[str, Any]) -> Entry:
    """The entry of typed values; `Expectation` and `ReadingOptions` check them."""
    default = WITHIN if "mni_mm" in values else None
    expectation = Expectation(
        values.get("hemisphere"),
        values.get("area"),
        values.get("lobe"),
        values.get("why", ""),
        values.get("mni_mm"),
        values.get("within_mm", default),
    )
    options = {"condition", "montage", "exclude", "rename", "unit", "nave", "event"} & set(values)
    reading = ReadingOptions(**{key: values[key] for key in options})
    if "epoch_s" in values:
        reading = replace(reading, epoch=values["epoch_s"])
    return Entry(
        where,
        values["file"],
        expectation,
        reading,
        values.get("window_s") or (values["time_s"], values["time_s"]),
        values.get("noise_cov"),
        values.get("noise_from_s"),
        values.get("baseline_s"),
        values.get("trans"),
        values.get("forward"),
        values.get("subjects_dir"),
        values.get("picks"),
    )
