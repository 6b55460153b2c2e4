"""Which side files apply to a recording, what they say of it, and the formats they lie beside."""

import json
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.runtime.reading.bids_inheritance import find_side_files
from deepesi.runtime.reading.recording import ReadingOptions
from tests.runtime.reading.test_bids import beside, edit, make_raw, read, write_bids

mne_bids = pytest.importorskip("mne_bids")
pytest.importorskip("pybv")
pytest.importorskip("edfio")

EEG = "sub-01/eeg/sub-01_task-x"
RUN = "sub-01/ses-a/eeg/sub-01_ses-a_task-x"
DERIVED = "derivatives/p/sub-01/eeg/sub-01_task-x"


@pytest.mark.parametrize(
    ("recording", "there", "applies"),
    [
        (f"{EEG}_eeg.edf", [f"{EEG}_acq-hi_channels.tsv"], None),  # of another acquisition
        (f"{EEG}_eeg.edf", [f"{EEG}_run-01_channels.tsv"], None),
        (f"{EEG}_eeg.edf", [f"{EEG}_desc-clean_channels.tsv"], None),
        (f"{EEG}_eeg.edf", ["sub-01/eeg/sub-01_task-y_channels.tsv"], None),
        (f"{EEG}_eeg.edf", ["sub-01/meg/sub-01_task-x_channels.tsv"], None),
        (f"{EEG}_eeg.edf", ["channels.tsv"], 0),
        (f"{EEG}_eeg.edf", ["channels.tsv", "task-x_channels.tsv"], 1),
        (f"{EEG}_eeg.edf", ["task-x_channels.tsv", "sub-01/sub-01_channels.tsv"], 1),
        (
            f"{EEG}_eeg.edf",
            ["sub-01/sub-01_task-x_channels.tsv", "sub-01/eeg/sub-01_channels.tsv"],
            1,
        ),  # the nearest
        (f"{EEG}_split-01_eeg.fif", [f"{EEG}_channels.tsv"], 0),
        (f"{RUN}_run-1_eeg.set", [f"{RUN}_run-2_channels.tsv"], None),
        (f"{RUN}_run-1_eeg.set", [f"{RUN}_run-2_channels.tsv", f"{RUN}_channels.tsv"], 1),
        (
            f"{RUN}_run-1_eeg.set",
            ["sub-01/sub-01_task-x_channels.tsv", "sub-01/ses-a/sub-01_ses-a_channels.tsv"],
            1,
        ),
        (f"{RUN}_run-1_eeg.set", [f"{RUN.replace('ses-a', 'ses-b')}_run-1_channels.tsv"], None),
        (f"{DERIVED}_desc-clean_ave.fif", [f"{EEG}_channels.tsv"], None),  # of the raw data set
        (f"{DERIVED}_desc-clean_ave.fif", [f"{DERIVED}_channels.tsv"], 0),
    ],
)
def test_the_file_of_this_recording_applies(tmp_path, recording, there, applies):
    for name in [recording, *there]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_side_files(tmp_path / recording).channels
    assert found == (None if applies is None else tmp_path / there[applies])


def test_the_frame_is_that_of_the_space(tmp_path):
    folder = tmp_path / "sub-01" / "eeg"
    folder.mkdir(parents=True)
    for name in ("CapTrak_electrodes.tsv", "EEGLAB_coordsystem.json", "CapTrak_coordsystem.json"):
        (folder / f"sub-01_space-{name}").touch()
    recording = folder / "sub-01_task-x_eeg.edf"
    found = find_side_files(recording)
    assert found.coordsystem == folder / "sub-01_space-CapTrak_coordsystem.json"
    found.coordsystem.unlink()
    assert find_side_files(recording).coordsystem is None  # that of EEGLAB is of other positions
    (folder / "sub-01_space-CTF_electrodes.tsv").touch()
    with pytest.raises(ValueError, match=r"several electrodes.tsv apply.*or give --montage"):
        find_side_files(recording)
    assert find_side_files(recording, with_positions=False).electrodes is None


def test_bad_channels_of_another_run_are_its_own(tmp_path):
    path = write_bids(tmp_path, make_raw())
    table = beside(path, "_channels.tsv")
    table.rename(table.with_name("sub-01_task-x_run-02_channels.tsv"))
    found, said = read(path, ReadingOptions(exclude=("EOG",)))
    assert found.info["bads"] == []
    assert any("no channels.tsv applies to sub-01_task-x_eeg.vhdr; of other" in s for s in said)


@pytest.mark.parametrize(
    ("file_format", "suffix"),
    [("BrainVision", ".vhdr"), ("EDF", ".edf"), ("BDF", ".bdf"), ("EEGLAB", ".set")],
)
def test_every_format_that_mne_bids_writes(tmp_path, file_format, suffix):
    if file_format == "EEGLAB":
        pytest.importorskip("eeglabio")
    raw = make_raw()
    path = write_bids(tmp_path, raw, file_format)
    assert path.suffix == suffix
    found, _ = read(path)
    assert found.info["bads"] == ["Fp1"]
    assert found.get_channel_types() == raw.get_channel_types()
    assert found.annotations.description.tolist() == ["seen", "heard", "seen", "BAD_x", "heard"]
    scale = raw.get_data("eeg").std()
    n_times = min(raw.n_times, found.n_times)
    difference = found.get_data("eeg")[:, :n_times] - raw.get_data("eeg")[:, :n_times]
    assert np.abs(difference).max() < 0.02 * scale


@pytest.mark.parametrize("dated", [True, False])
def test_onsets_count_from_the_first_sample(tmp_path, dated):
    """A FIF recording that was cut begins at a later sample; BIDS counts from the cut."""
    raw = make_raw()
    raw.set_meas_date(1_000_000_000 if dated else None)
    folder = tmp_path / "sub-01" / "meg"
    folder.mkdir(parents=True)
    path = folder / "sub-01_task-x_meg.fif"
    raw.copy().crop(1.0, None).save(path, verbose="error")
    events = "onset\tduration\ttrial_type\n1.0\t0\tseen\n3.0\t0\theard\n"
    path.with_name("sub-01_task-x_events.tsv").write_text(events)
    found, _ = read(path)
    assert found.first_samp == 250
    samples, _ = mne.events_from_annotations(found, {"seen": 1, "heard": 1}, verbose="error")
    assert (samples[:, 0] - found.first_samp).tolist() == [250, 750]
    own = found.annotations[found.annotations.description == "BAD_x"]
    assert own.onset - found.first_time == pytest.approx([7.0])  # it was at 8 s before the cut


@pytest.mark.parametrize(
    ("table", "names", "line"),
    [
        ("onset\tduration\n", [], "0 events"),
        ("onset\tduration\ttrial_type\n", [], "0 events"),
        ("onset\tduration\ttrial_type\tvalue\n1\t0\tseen\t1\n2\tn/a\tseen\t2\n", ["seen"] * 2, "2"),
        ("onset\tduration\tvalue\n1\t0\t7\n", ["7"], "1 events"),
        ("onset\tduration\ttrial_type\tvalue\n1\t0\tn/a\t7\n", ["7"], "1 events"),
        (
            "onset\tduration\ttrial_type\n1\t0\tn/a\n2\t0\tseen\nn/a\t0\tseen\n",
            ["seen"],
            "1 events, 1 more have no name and are excluded",
        ),
        ("onset\tduration\n1\t0\n", [], "0 events, 1 more have no name"),
    ],
)
def test_names_of_events(tmp_path, table, names, line):
    """Names are those of `trial_type` for any value of the trigger."""
    path = write_bids(tmp_path, make_raw())
    beside(path, "_events.tsv").write_text(table)
    found, said = read(path)
    assert [n for n in found.annotations.description if n != "New Segment/"] == names
    assert any(f"events.tsv read; {line}" in s for s in said)


@pytest.mark.parametrize("row", ["inf\t0\tseen", "1\t-1\tseen", "1\tnan\tseen"])
def test_events_that_cannot_be(tmp_path, row):
    path = write_bids(tmp_path, make_raw())
    beside(path, "_events.tsv").write_text(f"onset\tduration\ttrial_type\n{row}\n")
    with pytest.raises(ValueError, match="not finite, or a duration is negative"):
        read(path)


def with_facts(path: Path, **facts) -> None:
    sidecar = beside(path, "_eeg.json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text("utf-8-sig")) | facts))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"SamplingFrequency": 500}, "SamplingFrequency is 500 Hz, that of the recording 250 Hz"),
        ({"SamplingFrequency": "fast"}, "SamplingFrequency should be a number"),
        ({"EEGReference": "bipolar montage"}, "EEGReference is 'bipolar montage'. Derivations"),
        ({"EEGReference": "Double Banana"}, "against one reference"),
        ({"EEGReference": "Current source density (CSD)"}, "no map of potentials"),
        ({"EEGReference": "surface Laplacian"}, "no map of potentials"),
    ],
)
def test_facts_that_contradict(tmp_path, facts, message):
    path = write_bids(tmp_path, make_raw())
    with_facts(path, **facts)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        read(path)


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"SamplingFrequency": 250.01, "EEGReference": "average"}, None),
        ({"SamplingFrequency": "n/a", "EEGChannelCount": "n/a", "RecordingDuration": "n/a"}, None),
        ({"EEGReference": "Cz; EOG bipolar", "PowerLineFrequency": 60}, None),
        ({"SoftwareFilters": {"notch": {"Hz": 50}}, "Manufacturer": "x"}, None),
        ({"EEGChannelCount": 30}, "EEGChannelCount is 30, the recording has 32 EEG channels, by"),
        ({"RecordingDuration": 3600}, "RecordingDuration is 3600 s, the recording has 12.0 s"),
    ],
)
def test_facts_that_change_no_map(tmp_path, facts, line):
    path = write_bids(tmp_path, make_raw())
    _, before = read(path)
    with_facts(path, **facts)
    _, said = read(path)
    new = [s for s in said if s not in before]
    assert new == [] if line is None else len(new) == 1 and line in new[0]


def test_a_channel_too_many_without_a_table(tmp_path):
    """An eye channel that a file calls EEG: only the number of channels tells."""
    path = write_bids(tmp_path, make_raw(), "EDF")
    beside(path, "_channels.tsv").unlink()
    with pytest.raises(
        ValueError, match="EEGChannelCount is 32, the recording has 33 .*An eye channel"
    ):
        read(path)
    assert "EOG" not in read(path, ReadingOptions(exclude=("EOG",)))[0].ch_names


def test_facts_of_the_nearest_file_count(tmp_path):
    """And what only a file higher up says counts as well."""
    path = write_bids(tmp_path, make_raw())
    (tmp_path / "task-x_eeg.json").write_text('{"SamplingFrequency": 999, "EEGReference": "Cz"}')
    read(path)
    with_facts(path, EEGReference="Cz")
    (tmp_path / "sub-01" / "sub-01_eeg.json").write_text('{"EEGReference": "bipolar"}')
    read(path)
    beside(path, "_eeg.json").unlink()
    (tmp_path / "task-x_eeg.json").write_text('{"SamplingFrequency": 999}')
    (tmp_path / "sub-01" / "sub-01_eeg.json").unlink()
    with pytest.raises(ValueError, match="task-x_eeg.json: SamplingFrequency is 999 Hz"):
        read(path)


def test_one_reference_for_all(tmp_path):
    """A bipolar chain in `channels.tsv`: each channel against its neighbour."""
    path = write_bids(tmp_path, make_raw())
    table = beside(path, "_channels.tsv")
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    names = [line.split("\t")[0] for line in lines]

    def give(references) -> None:
        new = [
            f"{line}\t{ref}" for line, ref in zip(lines, ["reference", *references], strict=True)
        ]
        table.write_text("\n".join(new))

    give(["Cz"] * 32 + ["HEOG-"])  # the eye channel may have its own
    read(path)
    give(["M1"] + ["Cz"] * 31 + ["n/a"])  # Fp1 is bad
    read(path)
    give([*names[2:], "n/a"])
    with pytest.raises(ValueError, match=r"EEG channels have 31 different references \(.* against"):
        read(path)


@pytest.mark.parametrize("unit", ["V", "mV", "uV", "µV", "n/a"])
@pytest.mark.parametrize("status", ["bad", "n/a", None])
def test_units_and_states(tmp_path, unit, status):
    """What the file says counts; an explicit contradiction is an error, never another map."""
    path = write_bids(tmp_path, make_raw([]))
    table = beside(path, "_channels.tsv")
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8-sig").splitlines()]
    at = lines[0].index("status"), lines[0].index("units")
    for line in lines[1:]:
        line[at[1]] = unit
        line[at[0]] = "good"
    lines[1][at[0]] = status or "good"
    if status is None:
        lines = [line[: at[0]] + line[at[0] + 1 :] for line in lines]
    table.write_text("\n".join("\t".join(line) for line in lines))
    if unit == "mV":
        with pytest.raises(ValueError, match="is mV, that of the recording is µV"):
            read(path)
        return
    found, _ = read(path)
    assert found.info["bads"] == (["Fp1"] if status == "bad" else [])
    assert found.get_data("eeg").std() == pytest.approx(4e-6, rel=0.05)


@pytest.mark.parametrize(("unit", "factor"), [("m", 1), ("cm", 100), ("mm", 1000)])
@pytest.mark.parametrize(("frame", "turned"), [("CapTrak", False), ("EEGLAB", True)])
def test_lengths_and_frames(tmp_path, unit, factor, frame, turned):
    path = write_bids(tmp_path, make_raw())
    before, _ = read(path)
    table, system = (beside(path, kind) for kind in ("_electrodes.tsv", "_coordsystem.json"))
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8-sig").splitlines()]
    for row in rows[1:]:
        if "n/a" not in row[1:4]:
            x, y, z = (factor * float(value) for value in row[1:4])
            row[1:4] = map(str, (y, -x, z) if turned else (x, y, z))
    table.write_text("\n".join("\t".join(row) for row in rows))
    system.write_text(json.dumps({"EEGCoordinateSystem": frame, "EEGCoordinateUnits": unit}))
    after, _ = read(path)
    old, new = (np.array([c["loc"][:3] for c in r.info["chs"][:32]]) for r in (before, after))
    assert np.allclose(old, new, atol=1e-4)


@pytest.mark.parametrize("frame", ["Other", "MNI152Lin", "n/a"])
def test_frames_that_are_no_head(tmp_path, frame):
    path = write_bids(tmp_path, make_raw())
    beside(path, "_coordsystem.json").write_text(
        json.dumps({"EEGCoordinateSystem": frame, "EEGCoordinateUnits": "m"})
    )
    with pytest.raises(ValueError, match=rf"in the frame '{frame}' and there are no landmarks"):
        read(path)


def test_a_position_that_is_unknown(tmp_path):
    """A missing position is an error for a good channel, not for a bad one."""
    path = write_bids(tmp_path, make_raw([]))
    table = beside(path, "_electrodes.tsv")
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    lines[1] = "\t".join(["Fp1", "n/a", "n/a", "n/a", *lines[1].split("\t")[4:]])
    table.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"no position for \['Fp1'\]"):
        read(path)
    edit(beside(path, "_channels.tsv"), "Fp1\tEEG", "Fp1\tMISC")
    read(path)


def test_types_other_than_eeg(tmp_path):
    path = write_bids(tmp_path, make_raw())
    table = beside(path, "_channels.tsv")
    for name, kind in (("O1", "MISC"), ("O2", "TRIG"), ("Oz", "veog")):
        edit(table, f"{name}\tEEG", f"{name}\t{kind}")
    found, said = read(path)
    kinds = dict(zip(found.ch_names, found.get_channel_types(), strict=True))
    assert (kinds["O1"], kinds["O2"], kinds["Oz"]) == ("misc", "stim", "eog")
    assert any("O1 is misc by sub-01_task-x_channels.tsv" in s for s in said)
