"""Which EEG and MEG channels of a recording are localized."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from deepesi.physics.channel_names import match_channels
from deepesi.physics.sensors import KINDS, SensorArray

if TYPE_CHECKING:
    import mne

#: Kinds of sensors by the names of MNE-Python for channels to pick.
PICKS = {"eeg": ("eeg",), "meg": ("mag", "grad"), "mag": ("mag",), "grad": ("grad",)}


def usable_channels(info: "mne.Info", kinds: Collection[str] = tuple(KINDS)) -> dict[str, str]:
    """Kind of every EEG and MEG channel that is not marked bad, by its name.

    Args:
        info: Measurement info.
        kinds: Kinds to select, keys of `deepesi.physics.sensors.KINDS`.

    """
    all_kinds = zip(info["ch_names"], info.get_channel_types(), strict=True)
    return {name: kind for name, kind in all_kinds if kind in kinds and name not in info["bads"]}


def channels_to_localize(
    info: "mne.Info", forward: "mne.Forward | None", picks: str | Sequence[str] | None = None
) -> dict[str, str]:
    """Kind of every channel that is localized, by its name.

    These are the good channels of the kinds for which there is a lead field. On a packaged head
    this is EEG. MEG of a recording with both is used there only if it was picked, because the head
    is not that of the recording. A forward solution without any channel of the recording is refused
    later, by `deepesi.physics.io.forward_head.forward_head`; here all good channels remain.

    Args:
        info: Measurement info.
        forward: The forward solution of the recording; None: a packaged head.
        picks: Kinds that the user picked, one or more of `PICKS`; None: all.

    Raises:
        ValueError: An unknown name to pick, no good channel of a picked kind, or the forward
            solution lacks a kind that was picked.

    """
    recorded = usable_channels(info)
    if picks is not None:
        picked = _picked_kinds(recorded, [picks] if isinstance(picks, str) else list(picks))
        recorded = {name: kind for name, kind in recorded.items() if kind in picked}
    kinds = set(recorded.values())
    if forward is not None:
        rows = match_channels(list(recorded), forward["sol"]["row_names"])
        pairs = zip(recorded.values(), rows, strict=True)
        shared = {kind for kind, row in pairs if row is not None}
        if picks is not None and shared and shared < kinds:
            lacks, has = " and no ".join(sorted(kinds - shared)), sorted(shared)
            raise ValueError(
                f"picks: the forward solution has no {lacks} channels of the recording, only "
                f"{', '.join(has)}. Leave the others out (--picks {' '.join(has)}), or compute the "
                "forward solution for them."
            )
        kinds = shared or kinds
    elif "eeg" in kinds and picks is None:
        kinds = {"eeg"}
    return {name: kind for name, kind in recorded.items() if kind in kinds}


def _picked_kinds(recorded: dict[str, str], picks: list[str]) -> set[str]:
    """Kinds that were picked."""
    unknown = sorted(set(picks) - PICKS.keys())
    if unknown or not picks:
        raise ValueError(f"picks: got {unknown or 'none'}, expected some of {', '.join(PICKS)}.")
    for name in picks:
        if not set(PICKS[name]) & set(recorded.values()):
            raise ValueError(
                f"picks: the recording has no good {name} channels, only "
                f"{', '.join(sorted(set(recorded.values()))) or 'none of EEG and MEG'}. Pick "
                f"another kind of {', '.join(PICKS)}, or correct the channel types."
            )
    return {kind for name in picks for kind in PICKS[name]}


def unused_channels(info: "mne.Info", sensors: SensorArray) -> str:
    """Number of good channels of every kind that the sensors lack, in words; empty if none."""
    kinds = Counter(usable_channels(info).values())
    return ", ".join(
        f"{number} {KINDS[kind].title} channels"
        for kind, number in kinds.items()
        if kind not in sensors.kinds
    )
