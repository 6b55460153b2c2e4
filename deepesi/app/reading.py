"""What ``deepesi apply`` takes: evoked responses, epochs or a raw recording of a FIF file."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mne

    from deepesi.export.recordings import Recording


def read_recording(path: Path, condition: str | None) -> "Recording":
    """One evoked response, the epochs or the raw recording that a FIF file holds.

    Evoked responses and epochs that have a pre-stimulus part and no baseline get it subtracted.

    Args:
        path: ``-ave.fif``, ``-epo.fif`` or ``raw.fif``.
        condition: Name or number of an evoked response; name of an event of epochs.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a recording, several conditions and none chosen, or no such condition.

    """
    import mne

    if not path.is_file():
        raise FileNotFoundError(f"there is no recording {path}.")
    kind = _kind(path)
    if kind == "evoked":
        return _baselined(_choose(mne.read_evokeds(path, proj=False, verbose="error"), condition))
    if kind == "epochs":
        epochs = mne.read_epochs(path, proj=False, preload=False, verbose="error")
        if condition is not None and condition not in epochs.event_id:
            raise ValueError(
                f"{path} holds no epochs {condition!r}; choose one of {sorted(epochs.event_id)}."
            )
        return _baselined(epochs if condition is None else epochs[condition])
    if kind == "raw":
        if condition is not None:
            raise ValueError(f"{path} is a raw recording, which has no conditions; leave it out.")
        return mne.io.read_raw_fif(path, preload=False, verbose="error")
    raise ValueError(
        f"{path} holds no evoked responses, epochs or raw recording in the FIF format. Read other "
        "formats with MNE-Python and save them as .fif."
    )


def _kind(path: Path) -> str | None:
    """``"epochs"``, ``"evoked"`` or ``"raw"`` by the blocks of a FIF file; None if it has none."""
    from mne._fiff.constants import FIFF
    from mne._fiff.open import fiff_open
    from mne._fiff.tree import dir_tree_find

    blocks = {
        "epochs": (FIFF.FIFFB_MNE_EPOCHS,),
        "evoked": (FIFF.FIFFB_EVOKED,),
        "raw": (FIFF.FIFFB_RAW_DATA, FIFF.FIFFB_CONTINUOUS_DATA, FIFF.FIFFB_IAS_RAW_DATA),
    }
    if not path.name.endswith((".fif", ".fif.gz")):
        return None
    try:
        file, tree, _ = fiff_open(path, verbose="error")
    except (ValueError, OSError, AttributeError):  # an empty file has no first tag to look at
        return None
    with file:
        found = [k for k, b in blocks.items() if any(dir_tree_find(tree, one) for one in b)]
    return found[0] if found else None


def _choose(evokeds: "list[mne.Evoked]", condition: str | None) -> "mne.Evoked":
    names = [evoked.comment for evoked in evokeds]
    if condition is None:
        if len(evokeds) > 1:
            raise ValueError(f"the recording holds {len(names)} conditions; choose one of {names}.")
        return evokeds[0]
    if condition.isdigit() and int(condition) < len(evokeds):
        return evokeds[int(condition)]
    if names.count(condition) != 1:
        raise ValueError(
            f"the recording holds {names.count(condition)} conditions {condition!r}: {names}."
        )
    return evokeds[names.index(condition)]


def _baselined(recording: "mne.Evoked | mne.BaseEpochs") -> "mne.Evoked | mne.BaseEpochs":
    if recording.baseline is None and recording.times[0] < 0:
        recording.apply_baseline((None, 0), verbose="error")
    return recording
