"""Formats of recordings: supported ones, and conversion of others."""

from pathlib import Path

#: Formats that are read beside FIF.
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
