"""Electrodes that the channel names of clinics and amplifiers mean.

``EEG FP1-REF``, ``Fp1-LE``, ``Fp1.`` and ``fp1`` are all the electrode Fp1, and T3 is T7. A name
of two electrodes, ``Fp1-F7``, is the difference between them (a bipolar derivation), no electrode.

Source: ACNS Guideline 2 (Acharya et al. 2016, doi:10.1097/WNP.0000000000000316) for T7, T8, P7, P8
in place of T3, T4, T5, T6.
"""

import functools
import re
from collections.abc import Sequence

#: Names of the older 10-20 system, and the newer names.
OLD_NAMES = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
#: References in clinical names, longest first: ears, mastoids, their means, an average.
REFERENCES = (
    "AVERAGE",
    "A1A22",
    "M1M22",
    "A1A2",
    "M1M2",
    "REF1",
    "REF2",
    "VREF",
    "CLE",
    "LER",
    "REF",
    "AVG",
    "AVE",
    "CAR",
    "A12",
    "M12",
    "ORG",
    "A1",
    "A2",
    "M1",
    "M2",
    "LE",
    "LM",
    "AA",
    "AR",
    "AV",
)
_PREFIX = re.compile(r"^(?:EEG|POL)[\s_:.-]*", re.IGNORECASE)
_SEPARATED = re.compile(r"([^\s\-–_:/]+)\s*[\s\-–_:/]\s*(.+)")
_GLUED = re.compile(rf"(.+?)({'|'.join(REFERENCES)})", re.IGNORECASE)


@functools.cache
def _ten_five() -> dict[str, str]:
    """Electrodes of the 10-05 system by their names in lower case."""
    from mne.channels import make_standard_montage

    return {name.lower(): name for name in make_standard_montage("fsaverage_1005").ch_names}


def electrode_names() -> list[str]:
    """Electrodes of the 10-05 system, in lower case."""
    return list(_ten_five())


def _is_electrode(name: str) -> bool:
    name = name.lower()
    return OLD_NAMES.get(name, name) in _ten_five()


def _split(name: str) -> tuple[str, str | None]:
    """Electrode and reference, as far as a name contains them."""
    text = _PREFIX.sub("", name.strip()).rstrip(". ")
    separated = _SEPARATED.fullmatch(text)
    if separated is not None:
        electrode = separated[1].rstrip(".")
        other = re.sub(r"-\d+$", "", _PREFIX.sub("", separated[2]))  # MNE numbers equal names
        if other.isdecimal() and _is_electrode(electrode):
            return electrode, None
        return electrode, other.rstrip(". ")
    glued = _GLUED.fullmatch(text)
    if glued is not None and not _is_electrode(text) and _is_electrode(glued[1]):
        return glued[1], glued[2]
    return text, None


def _as_reference(other: str) -> str | None:
    """A reference in capital letters without signs; None if it is no reference."""
    plain = re.sub(r"[^A-Z0-9]", "", other.upper())
    return plain if plain in REFERENCES else None


def _common_electrode(ch_names: Sequence[str]) -> str | None:
    """The electrode that several channels, and no others, were recorded against."""
    parts = map(_split, ch_names)
    others = [other for name, other in parts if other is not None and _is_electrode(name)]
    against = {other.lower() for other in others}
    if len(others) < 2 or len(against) != 1 or not _is_electrode(others[0]):
        return None
    return against.pop()


def plain_names(ch_names: Sequence[str]) -> list[str]:
    """Names in lower case without ``EEG``, blanks, trailing dots and reference.

    Where all channels that name one were recorded against the same electrode (``F3-Cz``,
    ``F4-Cz``, ...), it is their reference. Other names with two parts stay as they are.
    """
    common = _common_electrode(ch_names)
    plain = []
    for name in ch_names:
        electrode, other = _split(name)
        known = other is None or _as_reference(other) is not None or other.lower() == common
        plain.append((electrode if known else name.strip()).lower())
    return plain


def channel_keys(ch_names: Sequence[str]) -> list[str]:
    """Keys that are equal for two names of the same electrode; T3 has that of T7."""
    return [OLD_NAMES.get(name, name) for name in plain_names(ch_names)]


def ten_five_name(name: str) -> str | None:
    """The electrode of the 10-05 system that a channel name means.

    Ears and mastoids (A1, M2) are none of its electrodes.

    Args:
        name: Channel name: ``EEG FP1-REF`` is ``Fp1``; ``T3`` is ``T7``.

    Returns:
        None where it is no name of a single electrode of the system.

    """
    return _ten_five().get(channel_keys([name])[0])


def check_channel_names(ch_names: Sequence[str]) -> None:
    """Refuse channels that cannot be turned into the average reference.

    Raises:
        ValueError: Derivations between two electrodes, channels recorded against different
            references, or two names of one electrode.

    """
    common = _common_electrode(ch_names)
    parts = [(name, *_split(name)) for name in ch_names]
    derived = [
        name
        for name, electrode, other in parts
        if other is not None
        and _as_reference(other) is None
        and other.lower() != common
        and _is_electrode(electrode)
        and _is_electrode(other)
    ]
    if derived:
        raise ValueError(
            f"channel names: {derived} are derivations between two electrodes (bipolar), which "
            "cannot be turned into the average. Give the recording before, with every electrode "
            "against one reference."
        )
    against: dict[str, list[str]] = {}
    for name, electrode, other in parts:
        reference = None if other is None else _as_reference(other)
        if reference is not None and _is_electrode(electrode):
            against.setdefault(reference, []).append(name)
    if len(against) > 1:
        stated = "; ".join(f"{names} against {other}" for other, names in against.items())
        raise ValueError(
            f"channel names: the channels have different references ({stated}), so they cannot be "
            "turned into one average. Give the recording with one reference; if it has one and "
            "only the names differ, rename them."
        )
    check_distinct(ch_names)


def check_distinct(ch_names: Sequence[str]) -> None:
    """Refuse two names of one electrode.

    Raises:
        ValueError: Two names of one electrode, such as T3 and T7, or Fp1 and ``EEG FP1-REF``.

    """
    same: dict[str, list[str]] = {}
    for name, key in zip(ch_names, channel_keys(ch_names), strict=True):
        same.setdefault(key, []).append(name)
    twice = [names for names in same.values() if len(names) > 1]
    if twice:
        raise ValueError(_one_electrode(twice))


def _one_electrode(groups: Sequence[Sequence[str]]) -> str:
    stated = "; ".join(f"{list(names)} are one electrode" for names in groups)
    return f"channel names: {stated}. Keep one of each and exclude the others (--exclude)."


def match_channels(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Index of each wanted channel among known ones, in any spelling of the names.

    Args:
        wanted: Names to look for.
        known: Names to look among.

    Returns:
        For each wanted channel its number in ``known``; None where there is none.

    Raises:
        ValueError: Several known channels are one wanted electrode.

    """
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(channel_keys(known)):
        rows.setdefault(key, []).append(row)
    matches = [rows.get(key, []) for key in channel_keys(wanted)]
    several = [[known[row] for row in same] for same in matches if len(same) > 1]
    if several:
        raise ValueError(_one_electrode(several))
    return [same[0] if same else None for same in matches]


def parse_renaming(pairs: Sequence[str]) -> dict[str, str]:
    """``OLD=NEW`` of ``--rename`` as a mapping.

    Raises:
        ValueError: Without an equals sign or a name, or a name given twice.

    """
    parts = [pair.split("=") for pair in pairs]
    wrong = [
        pair for pair, part in zip(pairs, parts, strict=True) if len(part) != 2 or not all(part)
    ]
    if wrong:
        raise ValueError(f"--rename takes OLD=NEW, got {wrong}.")
    mapping = {part[0]: part[1] for part in parts}
    if len(mapping) < len(parts) or len(set(mapping.values())) < len(parts):
        raise ValueError(f"--rename takes every old and every new name once, got {list(pairs)}.")
    return mapping
