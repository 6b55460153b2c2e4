"""Reads the file of a recording: supported formats, and conversion of others."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.runtime.recording_checks import SIGNALS
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording

#: Formats that are read in addition to FIF.
FORMATS = (".edf", ".bdf", ".gdf", ".vhdr", ".set")
#: Prefix of a recording that is the folder of a BIDS data set, for ``deepesi apply``.
DATASET = "bids:"
#: Formats that are folders: maker, reader in MNE-Python, and its packages.
FOLDERS = {
    ".mff": ("EGI", "read_raw_egi", "mffpy"),
    ".ds": ("CTF", "read_raw_ctf", None),
    ".mefd": ("MEF3", "read_raw_mef", "pymef"),
}


def check_file(path: Path) -> None:
    """Refuse a path that is not a file, and name a solution.

    Folders are not read; MNE-Python converts them to FIF in two lines.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is a folder.

    """
    if path.is_file():
        return
    if not path.exists():
        text = f"there is no recording {path}."
        if path.parts[0].startswith(DATASET):
            text += " Only 'deepesi apply' takes a whole data set; give one recording of it."
        raise FileNotFoundError(text)
    suffix = path.suffix.lower()
    if suffix not in FOLDERS:
        raise ValueError(f"{path} is a folder; give the recording in it.")
    maker, reader, package = FOLDERS[suffix]
    needs = "" if package is None else f" (it needs: pip install {package})"
    raise ValueError(
        f"{path} is a folder, the format of {maker}, and deepesi reads MNE's .fif and "
        f"{', '.join(FORMATS)}. Read it with MNE-Python{needs} and save it: "
        f"mne.io.{reader}({str(path)!r}).save({path.with_suffix('').name + '_raw.fif'!r})."
    )


def read_file(path: Path, condition: str | None = None) -> "Recording":
    """One evoked response, the epochs or the raw recording in a file, whose data stay on disk.

    Args:
        path: The file.
        condition: Name, or else number, of an evoked response; name of an event of epochs.

    Raises:
        FileNotFoundError: No such file.
        ModuleNotFoundError: A package that reads its format is not installed.
        ValueError: Not a recording; several conditions and none chosen, or no such condition.

    """
    import mne

    check_file(path)
    kind = _kind(path)
    if kind == "evoked":
        with _parsing(path):
            evokeds = mne.read_evokeds(path, proj=False, verbose="error")
        return _choose(path, evokeds, condition)
    if kind == "epochs":
        with _parsing(path):
            epochs = mne.read_epochs(path, proj=False, preload=False, verbose="error")
        return _of_event(epochs, path, condition)
    if kind is None and path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{path} holds no evoked responses, epochs or raw recording. Known are MNE's .fif and "
            f"{', '.join(FORMATS)}; read other formats with MNE-Python and save them as .fif."
        )
    trials = None
    with _parsing(path):
        try:
            raw = mne.io.read_raw(path, preload=False, verbose="error")
        except TypeError:
            if path.suffix.lower() != ".set":
                raise
            trials = mne.read_epochs_eeglab(path, verbose="error")
    if trials is not None:
        return _of_event(trials, path, condition)
    if condition is not None:
        raise ValueError(f"{path} is a raw recording, which has no conditions; leave it out.")
    return raw


def read_info(path: Path) -> "mne.Info":
    """The measurement info of a FIF file, which may hold no data.

    Raises:
        ValueError: Another file, or a damaged one.

    """
    import mne

    with _parsing(path):
        return mne.io.read_info(path, verbose="error")


def _parsing(path: Path) -> AbstractContextManager[None]:
    return parsing(path, "recording", "It is damaged, or its name does not fit its content.")


def _of_event(epochs: "mne.BaseEpochs", path: Path, condition: str | None) -> "mne.BaseEpochs":
    if condition is not None and condition not in epochs.event_id:
        raise ValueError(
            f"{path} holds no epochs {condition!r}; choose one of {sorted(epochs.event_id)}."
        )
    return epochs if condition is None else epochs[condition]


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
    with _parsing(path):
        file, tree, _ = fiff_open(path, verbose="error")
    with file:
        found = [k for k, b in blocks.items() if any(dir_tree_find(tree, one) for one in b)]
    return found[0] if found else None


def _choose(path: Path, evokeds: "list[mne.Evoked]", condition: str | None) -> "mne.Evoked":
    """The average of a condition: by its name or else by its number."""
    averages = {i: evoked for i, evoked in enumerate(evokeds) if evoked.kind in SIGNALS}
    names = [f"{number}: {evoked.comment!r}" for number, evoked in averages.items()]
    if not averages:
        kinds = sorted({evoked.kind.replace("_", " ") for evoked in evokeds})
        raise ValueError(
            f"{path} holds no average, only {', '.join(kinds)}, which has no topography of a "
            "source. Give the average."
        )
    if condition is None:
        if len(averages) > 1:
            raise ValueError(
                f"{path} holds {len(averages)} conditions; choose one with --condition, by name or "
                f"number: {', '.join(names)}."
            )
        return next(iter(averages.values()))
    named = [evoked for evoked in averages.values() if evoked.comment == condition]
    if len(named) == 1:
        return named[0]
    if not named and condition.isdecimal() and int(condition) in averages:
        return averages[int(condition)]
    if not named and condition.isdecimal() and int(condition) < len(evokeds):
        raise ValueError(
            f"{path}: number {condition} is a "
            f"{evokeds[int(condition)].kind.replace('_', ' ')}, no average. Choose one of: "
            f"{', '.join(names)}."
        )
    raise ValueError(
        f"{path} holds {len(named)} conditions named {condition!r}; choose one by another name or "
        f"number: {', '.join(names)}."
    )
