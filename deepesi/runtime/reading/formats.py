"""Formats of recordings: which are read, and what to do about the others."""

from pathlib import Path

#: Formats of other makers that are read beside FIF.
FORMATS = (".edf", ".bdf", ".gdf", ".vhdr", ".set")
#: Formats that are folders: their makers, what MNE-Python reads them with, and what that needs.
FOLDERS = {
    ".mff": ("EGI", "read_raw_egi", "mffpy"),
    ".ds": ("CTF", "read_raw_ctf", None),
    ".mefd": ("MEF3", "read_raw_mef", "pymef"),
}


def check_file(path: Path) -> None:
    """Refuse what is no file, with what to do.

    Folders are not read: they hold what FIF holds, and MNE-Python converts them in two lines.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is a folder.

    """
    if path.is_file():
        return
    if not path.exists():
        raise FileNotFoundError(f"there is no recording {path}.")
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
