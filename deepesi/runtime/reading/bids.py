"""Side files of a recording in BIDS: bad channels, types, units, positions and events.

The Brain Imaging Data Structure (BIDS) stores them in ``channels.tsv``, ``electrodes.tsv``,
``coordsystem.json``, ``events.tsv`` and ``eeg.json``, at any level of the data set. A contradiction
is an error or is reported.

Source: Pernet et al. 2019, doi:10.1038/s41597-019-0104-8 (EEG-BIDS). Difference to
`mne_bids.read_raw_bids`: works on evoked responses, epochs and set-ups too, refuses contradictory
files, and uses the anatomical landmarks of ``coordsystem.json``.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.runtime.reading.bids_channels import set_channels
from deepesi.runtime.reading.bids_electrodes import set_positions
from deepesi.runtime.reading.bids_events import set_events
from deepesi.runtime.reading.bids_facts import check_facts
from deepesi.runtime.reading.bids_files import read_side_files
from deepesi.runtime.reading.bids_inheritance import find_side_files, is_in_bids
from deepesi.runtime.reading.file_units import FileUnit

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording


def bids_side_files(
    path: Path,
    recording: "Recording | mne.Info",
    with_positions: bool = True,
    units: dict[str, FileUnit] | None = None,
    exclude: Collection[str] = (),
) -> list[str]:
    """Apply the side files of a recording in BIDS, in place, and report the files read.

    Channels marked bad in ``channels.tsv`` or in the file itself are bad. A raw recording takes the
    events of ``events.tsv`` as annotations and keeps its own stretches ``BAD...`` and boundaries.

    Args:
        path: File of the recording; outside of a BIDS folder it has no side files.
        recording: The recording from this file; or its measurement info, for a set-up without data.
        with_positions: False if positions come from elsewhere: ``electrodes.tsv`` is not read.
        units: Units in the file; missing ones are filled in here from ``channels.tsv``.
        exclude: Channels that the user excludes; they are not removed here.

    Returns:
        Lines that report the files read and their changes.

    Raises:
        ValueError: A side file is damaged, or contradicts the recording.

    """
    import mne

    if not is_in_bids(path):
        return []
    files = find_side_files(path, with_positions)
    if not isinstance(recording, mne.io.BaseRaw):
        files = files._replace(events=None)
    if files.electrodes is None:
        files = files._replace(coordsystem=None)
    side = read_side_files(files)
    info = recording if isinstance(recording, mne.Info) else recording.info
    notes: list[str] = []
    if side.channels is not None:
        notes += set_channels(info, side.channels, {} if units is None else units, exclude)
    elif others := [name for name in files.unused if name.endswith("channels.tsv")]:
        notes.append(f"no channels.tsv applies to {path.name}; of other recordings: {others[:3]}")
    if side.facts is not None:
        notes += check_facts(recording, info, side.facts, side.channels is not None, exclude)
    if side.electrodes is not None:
        notes += set_positions(info, side.electrodes, side.coordsystem, exclude)
    elif not with_positions and (
        others := [name for name in files.unused if name.endswith("electrodes.tsv")]
    ):
        notes.append(f"{', '.join(others)} not read: positions are those of --montage")
    if side.events is not None:
        notes += set_events(recording, side.events)
    return [f"BIDS: {line}" for line in notes]
