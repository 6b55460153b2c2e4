"""The type of a recording: evoked response, epochs or raw recording of MNE-Python."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import mne

    Recording: TypeAlias = mne.Evoked | mne.BaseEpochs | mne.io.BaseRaw
