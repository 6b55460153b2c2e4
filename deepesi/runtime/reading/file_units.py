"""Units of recordings: from the file, from BIDS, or from ``--unit``."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import ten_five_name
from deepesi.physics.units import UNITS, parse_unit

if TYPE_CHECKING:
    from deepesi.runtime.recording_type import Recording

#: Formats with a header of units and rates of every channel.
HEADERS = (".edf", ".bdf", ".gdf")
#: Codes of GDF 2 for units of potentials (ISO/IEEE 11073-10101), and for none.
GDF_CODES = {0: "", 512: "", 4256: "V", 4274: "mV", 4275: "uV", 4276: "nV"}
#: Bytes of the headers of EDF, BDF and GDF: first part; per channel before its unit.
FIXED, BEFORE_UNIT, BEFORE_CODE = 256, 16 + 80, 16 + 80 + 6


class FileUnit(NamedTuple):
    """Unit of a channel according to its file.

    Attributes:
        text: Unit as written in the file, ``""`` if missing; None: the format has no units.
        factor: Factor of MNE-Python from the numbers in the file to volts.
        bids_unit: Unit in ``channels.tsv`` of BIDS, if the file has none.

    """

    text: str | None
    factor: float
    bids_unit: str | None = None

    @property
    def volts(self) -> float:
        """Factor from its numbers to volts, if known."""
        if self.bids_unit is not None:
            return parse_unit(self.bids_unit)
        return UNITS.get((self.text or "").lower(), self.factor)

    @property
    def unclear(self) -> bool:
        """Whether the unit is missing or unknown."""
        if self.bids_unit is not None:
            return False
        return self.text is not None and self.text.lower() not in UNITS

    @property
    def certain(self) -> bool:
        """Whether the file gives a unit other than volts, which is often only a default."""
        if self.bids_unit is not None:
            return True
        return self.text is not None and not self.unclear and self.volts != 1.0


#: Default for formats without units.
VOLTS = FileUnit("V", 1.0)


def file_units(recording: "Recording", path: Path) -> dict[str, FileUnit]:
    """Unit of every channel according to the file of a recording."""
    suffix = path.suffix.lower()
    rows: Iterable[FileUnit]
    if suffix in HEADERS:
        extras = recording._raw_extras[0]
        texts = _header_units(path, extras["nchan"], extras.get("number", 1.0))
        kept = [texts[row] for row in extras["sel"]]
        factors = [float(factor) for factor in extras["units"]]
        rows = map(FileUnit, kept, factors)
    elif suffix == ".vhdr":
        stated = zip(
            [recording._orig_units[name] for name in recording.ch_names],
            recording.get_channel_types(),
            strict=True,
        )
        rows = (  # without a unit that MNE-Python knows, a channel becomes "misc"
            FileUnit(text, 1.0 if kind == "misc" else UNITS.get(text.lower(), 1.0))
            for text, kind in stated
        )
    elif suffix == ".set":
        rows = (FileUnit(None, 1e-6) for _ in recording.ch_names)
    else:
        rows = (VOLTS for _ in recording.ch_names)
    return dict(zip(recording.ch_names, rows, strict=True))


def _header_units(path: Path, n_channels: int, version: float) -> list[str]:
    """Units of all channels in the header of EDF, BDF or GDF."""
    if version >= 1.9:
        offset = FIXED + BEFORE_CODE * n_channels
        codes = np.fromfile(path, "<u2", n_channels, offset=offset).tolist()
        return [GDF_CODES.get(code, f"code {code}") for code in codes]
    fields = np.fromfile(path, "S8", n_channels, offset=FIXED + BEFORE_UNIT * n_channels)
    return [_decoded(field).strip(" \0") for field in fields.tolist()]


def _decoded(field: bytes) -> str:
    """Text of a header: ASCII, but some makers write the microvolt sign in another encoding."""
    try:
        return field.decode("utf-8")
    except UnicodeDecodeError:
        return field.decode("latin-1")


def units_to_volts(
    recording: "Recording", path: Path, stated: Mapping[str, FileUnit], unit: str | None
) -> list[str]:
    """Bring the EEG channels of a recording to volts, in place.

    ``unit`` applies to all channels without a unit in the file, or with volts, which may be a
    mistake of the file. A recording on disk is not loaded into memory.

    Args:
        recording: Recording of MNE-Python, without excluded channels.
        path: File of the recording.
        stated: Units according to the file, from `file_units`.
        unit: V, mV, uV or nV; None: as in the file.

    Returns:
        Lines that report each change.

    Raises:
        ValueError: Neither the file nor the user gives a unit, or they differ.

    """
    names = _eeg_by_name(recording, path)
    unclear = [name for name in names if stated[name].unclear]
    if unit is None:
        if unclear:
            raise ValueError(_unclear_units(path, unclear, stated))
        _scale(recording, _to_volts(names, stated))
        return []
    factor = parse_unit(unit)
    other = [name for name in names if stated[name].certain and stated[name].volts != factor]
    if other:
        first = stated[other[0]]
        raise ValueError(
            f"{path}: in the file the unit of {_some(other)} is "
            f"{first.bids_unit or first.text}, but --unit is {unit}. Leave --unit out."
        )
    _scale(recording, _to_volts(names, stated))
    free = [name for name in names if not stated[name].certain]
    _scale(recording, {name: factor / stated[name].factor for name in free})
    return [f"unit of {len(free)} EEG channels: {unit}, from --unit"] if free else []


def _to_volts(names: list[str], stated: Mapping[str, FileUnit]) -> dict[str, float]:
    """Factors of channels with a unit from a side file, or one unknown to MNE-Python."""
    return {
        n: stated[n].volts / stated[n].factor for n in names if stated[n].volts != stated[n].factor
    }


def _eeg_by_name(recording: "Recording", path: Path) -> list[str]:
    """EEG channels, and electrodes that MNE-Python gave another type because of their unit."""
    kinds = dict(zip(recording.ch_names, recording.get_channel_types(), strict=True))
    hidden = {"misc"} if path.suffix.lower() == ".vhdr" else set()
    return [
        name
        for name, kind in kinds.items()
        if kind == "eeg" or (kind in hidden and ten_five_name(name) is not None)
    ]


def _unclear_units(path: Path, names: list[str], stated: Mapping[str, FileUnit]) -> str:
    texts = sorted({text for name in names if (text := stated[name].text) not in ("", "n/a", None)})
    what = f"a unit that is not known ({', '.join(map(repr, texts))})" if texts else "no unit"
    if texts and any(stated[name].text in ("", "n/a") for name in names):
        what = f"no unit, or one that is not known ({', '.join(map(repr, texts))}),"
    return (
        f"{path}: the file names {what} for channels {_some(names)}; give --unit uV (or V, "
        "mV, nV). Channels that are no EEG are excluded with --exclude."
    )


def _some(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _scale(recording: "Recording", factors: Mapping[str, float]) -> None:
    """Multiply channels, on disk or in memory; electrodes of another kind become EEG."""
    import mne

    if not factors:
        return
    kinds = dict(zip(recording.ch_names, recording.get_channel_types(), strict=True))
    hidden = [name for name in factors if kinds[name] != "eeg"]
    recording.set_channel_types(dict.fromkeys(hidden, "eeg"), verbose="error")
    if isinstance(recording, mne.io.BaseRaw) and not recording.preload:
        for name, factor in factors.items():  # like apply_function, when samples are read
            recording._cals[recording.ch_names.index(name)] *= factor
        return
    if isinstance(recording, mne.BaseEpochs):
        recording.load_data()
    for name, factor in factors.items():
        recording.apply_function(functools.partial(_times, factor), [name], verbose="error")


def _times(factor: float, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return factor * values
