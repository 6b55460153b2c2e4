"""Renames channels of a recording, by the user's names and by montages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deepesi.physics.channel_names import match_channels
from deepesi.physics.montage import head_montage, montage_names

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording


def rename_channels(recording: "Recording | mne.Info", renaming: Mapping[str, str]) -> None:
    """Rename channels of a recording or its measurement info, in place.

    Raises:
        ValueError: No such channel, or two would have one name.

    """
    import mne

    absent = [old for old in renaming if old not in recording.ch_names]
    if absent:
        raise ValueError(
            f"--rename: the recording has no channels {absent}; it has {recording.ch_names}."
        )
    names = [renaming.get(name, name) for name in recording.ch_names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"--rename: several channels would be called {twice}. Leave one of each out "
            "(--exclude)."
        )
    if isinstance(recording, mne.Info):
        mne.rename_channels(recording, dict(renaming), verbose="error")
    else:
        recording.rename_channels(dict(renaming), verbose="error")


def name_channels(
    recording: "Recording | mne.Info", renaming: Mapping[str, str], montage: str | None
) -> list[str]:
    """Give channels their names and, of a standard montage, their positions; in place.

    With a montage its EEG channels get the names that the montage has for them.

    Args:
        recording: A recording or its measurement info.
        renaming: Old to new names, of ``--rename``.
        montage: Name as in `deepesi.physics.montage.standard_montage`; None: the recording's own.

    Returns:
        Lines that report renamed channels.

    Raises:
        ValueError: As in `rename_channels` and `deepesi.physics.montage.montage_names`.

    """
    before = list(recording.ch_names)
    if renaming:
        rename_channels(recording, renaming)
    if montage is not None:
        eeg = _eeg_channels(recording)
        plain = dict(zip(eeg, montage_names(eeg, montage), strict=True))
        rename_channels(recording, {old: new for old, new in plain.items() if old != new})
        recording.set_montage(head_montage(list(plain.values()), montage), verbose="error")
    changed = zip(before, recording.ch_names, strict=True)
    pairs = [f"{old} -> {new}" for old, new in changed if old != new]
    return [f"channels renamed: {', '.join(pairs)}"] if pairs else []


def adopt_names(recording: "Recording", ch_names: Sequence[str]) -> list[str]:
    """Rename the EEG channels of a recording to the names of a prepared model, in place.

    Channels that the model does not know keep their names.

    Returns:
        Lines that report renamed channels.

    Raises:
        ValueError: Several channels match one channel of the model.

    """
    eeg = _eeg_channels(recording)
    rows = match_channels(ch_names, eeg)
    found = {eeg[row]: name for name, row in zip(ch_names, rows, strict=True) if row is not None}
    return name_channels(recording, {old: new for old, new in found.items() if old != new}, None)


def _eeg_channels(recording: "Recording | mne.Info") -> list[str]:
    import mne

    info = recording if isinstance(recording, mne.Info) else recording.info
    return [info.ch_names[i] for i in mne.pick_types(info, meg=False, eeg=True, exclude=())]
