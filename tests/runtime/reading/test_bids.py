"""Side files of BIDS are read and compared with the recording."""

import json
import shutil
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.runtime.reading.bids import bids_side_files
from deepesi.runtime.reading.bids_inheritance import is_in_bids
from deepesi.runtime.reading.recording import ReadingOptions, read_recording, read_setup
from tests.conftest import make_covariance, make_evoked

mne_bids = pytest.importorskip("mne_bids")
pytest.importorskip("pybv")
pytest.importorskip("edfio")


def read(path, options=ReadingOptions()):  # noqa: B008 (frozen)
    """A recording, and the lines that say what was read."""
    said = []
    return read_recording(path, options, said.append), said


def make_raw(bads=("Fp1",), seconds=12) -> mne.io.RawArray:
    """32 channels of noise and an eye channel, with digitized positions and five annotations."""
    info = make_evoked().info
    rng = np.random.default_rng(5)
    raw = mne.io.RawArray(rng.normal(scale=4e-6, size=(32, 250 * seconds)), info, verbose="error")
    raw.set_montage(mne.channels.make_standard_montage("biosemi32"))
    eyes = mne.create_info(["EOG"], 250.0, "eog")
    raw.add_channels(
        [mne.io.RawArray(rng.normal(scale=1e-5, size=(1, raw.n_times)), eyes, verbose="error")],
        force_update_info=True,
    )
    raw.info["bads"] = list(bads)
    raw.info["line_freq"] = 50
    raw.set_annotations(
        mne.Annotations(
            [2.0, 4.0, 6.0, 8.0, 10.0],
            [0.0, 0.0, 0.0, 1.0, 0.0],
            ["seen", "heard", "seen", "BAD_x", "heard"],
        )
    )
    return raw


def write_bids(root: Path, raw: mne.io.RawArray, file_format="BrainVision", subject="01") -> Path:
    """A recording as MNE-BIDS writes it; its path."""
    place = mne_bids.BIDSPath(subject=subject, task="x", datatype="eeg", root=root)
    written = mne_bids.write_raw_bids(
        raw, place, allow_preload=True, format=file_format, overwrite=True, verbose="error"
    )
    return Path(written.fpath)


@pytest.fixture
def recording(tmp_path) -> Path:
    return write_bids(tmp_path / "data", make_raw())


def beside(path: Path, kind: str) -> Path:
    """The side file of a kind."""
    (found,) = path.parent.glob(f"*{kind}")
    return found


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8-sig")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("file_format", ["BrainVision", "EDF"])
def test_side_files_are_what_the_recording_was(tmp_path, file_format):
    """Bad channels, types, positions and events come back from beside a file that keeps none."""
    raw = make_raw()
    path = write_bids(tmp_path, raw, file_format)
    for name in ("EOG", "Fp1"):
        assert name in mne.io.read_raw(path, verbose="error").ch_names
    found, said = read(path, ReadingOptions())
    assert found.info["bads"] == ["Fp1"]
    assert found.get_channel_types() == raw.get_channel_types()
    expected, got = (np.array([c["loc"][:3] for c in r.info["chs"][:32]]) for r in (raw, found))
    assert np.allclose(got, expected, atol=1e-5)
    assert found.annotations.description.tolist() == ["seen", "heard", "seen", "BAD_x", "heard"]
    assert np.allclose(found.annotations.onset, [2, 4, 6, 8, 10])
    text = "\n".join(said)
    assert "BIDS: sub-01_task-x_channels.tsv read; bad by it: Fp1" in text
    assert "electrodes.tsv (CapTrak and its landmarks)" in text
    assert "sub-01_task-x_events.tsv read; 5 events" in text


def test_prepare_reads_them_too(eloreta, recording, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_covariance(make_evoked().info).save("x-cov.fif", verbose="error")
    info = read_setup(recording, ReadingOptions())
    assert info["bads"] == ["Fp1"]
    main(["prepare", str(eloreta), str(recording), "--noise-cov", "x-cov.fif", "--out", "h.npz"])
    assert "bad by it: Fp1" in capsys.readouterr().out
    names = np.load("h.npz")["ch_names"].tolist()
    assert names == [c for c in make_evoked().ch_names if c != "Fp1"]


def test_bad_channels_beside_the_file_change_the_map(eloreta, tmp_path, monkeypatch, capsys):
    """A dead electrode that only channels.tsv calls bad would pull the peak to itself."""
    monkeypatch.chdir(tmp_path)
    raw = make_raw(bads=["O1"])
    times = raw.times
    raw._data[raw.ch_names.index("O1")] += (
        6e-5 * np.sin(30 * times) * (times > 5)
    )  # after the noise
    path = write_bids(tmp_path / "data", raw)
    shutil.copytree(path.parent, "outside")
    common = ["--noise-from", "0", "4", "--out"]
    main(["apply", str(eloreta), str(path), *common, "in/x"])
    printed = capsys.readouterr().out
    assert "31 EEG channels" in printed
    assert "excluded as bad: ['O1']" in printed
    raw.drop_channels(["O1", "EOG"]).save("without_raw.fif", verbose="error")
    main(["apply", str(eloreta), "without_raw.fif", *common, "without/x"])
    within, without = (
        mne.read_source_estimate(f"{name}/x-0000").data for name in ("in", "without")
    )
    assert np.abs(within - without).max() < 1e-2 * np.abs(without).max()  # 16 bits
    main(
        [
            "apply",
            str(eloreta),
            f"outside/{path.name}",
            "--montage",
            "biosemi32",
            "--exclude",
            "EOG",
            *common,
            "out/x",
        ]
    )
    ignored = mne.read_source_estimate("out/x-0000").data  # nor does it know of the bad stretch
    within = within[:, : ignored.shape[1]]
    assert np.corrcoef(np.abs(within).ravel(), np.abs(ignored).ravel())[0, 1] < 0.9


def test_a_derivative_of_an_average(recording, tmp_path):
    """Evoked responses of a derivative take bad channels and positions; events are none of it."""
    folder = tmp_path / "data" / "derivatives" / "clean" / "sub-01" / "eeg"
    folder.mkdir(parents=True)
    evoked = make_evoked()
    evoked.save(folder / "sub-01_task-x_desc-clean_ave.fif", verbose="error")
    (folder / "sub-01_task-x_desc-clean_channels.tsv").write_text(
        "name\ttype\tunits\tstatus\n"
        + "".join(f"{c}\tEEG\tV\tgood\n" for c in evoked.ch_names[:-1])
        + f"{evoked.ch_names[-1]}\tEEG\tV\tbad\n"
    )
    found, said = read(folder / "sub-01_task-x_desc-clean_ave.fif", ReadingOptions())
    assert found.info["bads"] == [evoked.ch_names[-1]]
    assert said == [
        f"BIDS: sub-01_task-x_desc-clean_channels.tsv read; bad by it: {evoked.ch_names[-1]}"
    ]


def test_inherited_files_apply(recording, tmp_path):
    """One channels.tsv for all subjects, at the top of the data set."""
    shutil.move(beside(recording, "_channels.tsv"), tmp_path / "data" / "task-x_channels.tsv")
    found, said = read(recording, ReadingOptions())
    assert found.info["bads"] == ["Fp1"]
    assert "BIDS: task-x_channels.tsv read; bad by it: Fp1" in said


def test_bad_by_the_file_stays_bad(tmp_path):
    evoked = make_evoked()
    evoked.info["bads"] = ["Cz"]
    folder = tmp_path / "sub-1" / "eeg"
    folder.mkdir(parents=True)
    evoked.save(folder / "sub-1_ave.fif", verbose="error")
    lines = [f"{c}\tEEG\t{'bad' if c == 'Pz' else 'good'}\n" for c in evoked.ch_names]
    (folder / "sub-1_channels.tsv").write_text("name\ttype\tstatus\n" + "".join(lines))
    found, said = read(folder / "sub-1_ave.fif", ReadingOptions())
    assert sorted(found.info["bads"]) == ["Cz", "Pz"]
    assert "BIDS: good by sub-1_channels.tsv and bad by the file, excluded: Cz" in said


def test_units_of_a_file_that_names_none(tmp_path):
    """An EDF without units is read as volts; channels.tsv knows better."""
    raw = make_raw()
    path = write_bids(tmp_path, raw, "EDF")
    content = bytearray(path.read_bytes())
    n_signals = int(content[252:256])
    first = 256 + n_signals * (16 + 80)
    content[first : first + 8 * 32] = b" " * 8 * 32
    path.write_bytes(content)
    assert mne.io.read_raw(path, verbose="error").get_data().std() > 1  # volts
    found, said = read(path, ReadingOptions())
    assert found.get_data("eeg").std() == pytest.approx(4e-6, rel=0.05)
    assert any(line.startswith("BIDS: units of 32 EEG channels from") for line in said)


def test_a_neutral_unit_is_said(recording):
    edit(beside(recording, "_channels.tsv"), "µV", "V")
    _, said = read(recording, ReadingOptions())
    assert any(
        "32 EEG channels another unit than the file, which is used: Fp1 (V, not µV)" in s
        for s in said
    )


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("_channels.tsv", "Cz\t", "Cy\t", r"lists the channels \['Cy'\], which .* not have.*'Cz'"),
        ("_channels.tsv", "Pz\t", "Cz\t", r"lists \['Cz'\] more than once"),
        ("_channels.tsv", "Cz\tEEG\tµV", "Cz\tEEG\tmV", "'Cz' is mV, that of the recording is µV"),
        ("_channels.tsv", "Cz\tEEG\tµV", "Cz\tEEG\tuS", "'Cz' is in 'uS'. EEG is measured in"),
        ("_channels.tsv", "Cz\tEEG", "Cz\tEGG", "'Cz' has the type 'EGG', which is none of BIDS"),
        ("_channels.tsv", "bad", "awful", "'Fp1' has the status 'awful', expected good, bad or"),
        ("_channels.tsv", "name\t", "title\t", r"lacks the columns \['name'\]; it has \['title'"),
        ("_electrodes.tsv", "Cz\t", "Cy\t", r"has no position for \['Cz'\].*--montage"),
        ("_electrodes.tsv", "x\t", "left\t", r"lacks the columns \['x'\]"),
        (
            "_coordsystem.json",
            '"EEGCoordinateUnits": "m"',
            '"EEGCoordinateUnits": "n/a"',
            "positions are in 'n/a', expected one of m, cm, mm",
        ),
        ("_coordsystem.json", '"EEGCoordinateSystem"', '"CoordinateSystem"', "it lacks .*EEGCoor"),
        ("_coordsystem.json", '"NAS"', '"NZ"', None),
        ("_events.tsv", "onset", "start", r"lacks the columns \['onset'\]"),
        ("_events.tsv", "2.0\t", "two\t", "not a readable table of events"),
    ],
)
def test_contradictions_are_named(recording, kind, old, new, message):
    edit(beside(recording, kind), old, new)
    if message is None:  # CapTrak is the head frame, with or without landmarks
        read_recording(recording, ReadingOptions())
        return
    with pytest.raises(ValueError, match=message):
        read_recording(recording, ReadingOptions())


def without_landmarks(path: Path, frame: str) -> None:
    system = json.loads(path.read_text())
    for key in [key for key in system if key.startswith("AnatomicalLandmark")]:
        del system[key]
    system["EEGCoordinateSystem"] = frame
    path.write_text(json.dumps(system))


def test_positions_in_another_frame(recording, tmp_path):
    """CTF has x to the front and y to the left; a template brain is no head."""
    system = beside(recording, "_coordsystem.json")
    without_landmarks(system, "CTF")
    found, _ = read(recording, ReadingOptions())
    head, _ = read(write_bids(tmp_path / "b", make_raw()), ReadingOptions())
    turned, right = (np.array([c["loc"][:3] for c in r.info["chs"][:32]]) for r in (found, head))
    assert np.allclose(turned, right[:, [1, 0, 2]] * [-1, 1, 1], atol=1e-5)
    without_landmarks(system, "MNI305")
    with pytest.raises(ValueError, match="in the frame 'MNI305' and there are no landmarks"):
        read_recording(recording, ReadingOptions())
    _, said = read(recording, ReadingOptions(montage="biosemi32", exclude=("EOG",)))
    assert any("electrodes.tsv not read: positions are those of --montage" in s for s in said)


def test_landmarks_make_the_head_frame(recording, tmp_path):
    """Electrodes and landmarks turned and shifted together say the same positions, in any frame."""
    turn = mne.transforms.rotation(0.2, -0.3, 1.0)[:3, :3]
    table, system = (beside(recording, k) for k in ("_electrodes.tsv", "_coordsystem.json"))
    before, _ = read(recording, ReadingOptions())
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8-sig").splitlines()]
    for row in rows[1:]:
        if "n/a" not in row[1:4]:
            row[1:4] = map(str, turn @ np.array(row[1:4], dtype=float) + 0.01)
    table.write_text("\n".join("\t".join(row) for row in rows))
    content = json.loads(system.read_text())
    marks = content["AnatomicalLandmarkCoordinates"]
    content["AnatomicalLandmarkCoordinates"] = {
        k: (turn @ np.array(v) + 0.01).tolist() for k, v in marks.items()
    }
    content["EEGCoordinateSystem"] = content["AnatomicalLandmarkCoordinateSystem"] = "Other"
    system.write_text(json.dumps(content))
    after, _ = read(recording, ReadingOptions())
    old, new = (np.array([c["loc"][:3] for c in r.info["chs"][:32]]) for r in (before, after))
    assert np.allclose(old, new, atol=1e-5)


def test_electrodes_without_their_frame(recording):
    beside(recording, "_coordsystem.json").unlink()
    with pytest.raises(ValueError, match=r"there is no coordsystem.json.*--montage"):
        read_recording(recording, ReadingOptions())


def test_several_tables_of_electrodes(recording):
    electrodes = beside(recording, "_electrodes.tsv")
    other = electrodes.name.replace("space-CapTrak", "space-CTF")
    shutil.copy(electrodes, electrodes.with_name(other))
    with pytest.raises(ValueError, match=r"several electrodes.tsv apply.*space-CTF.*--montage"):
        read_recording(recording, ReadingOptions())


def test_events_outside_of_the_recording(recording):
    events = beside(recording, "_events.tsv")
    edit(events, "2.0\t", "200.0\t")
    _, said = read(recording, ReadingOptions())
    assert any("4 events, 1 more lie outside the recording and are excluded" in s for s in said)
    lines = events.read_text(encoding="utf-8-sig").splitlines()
    shifted = [line.replace(line.split("\t")[0], "500.0", 1) for line in lines[1:]]
    events.write_text("\n".join([lines[0], *shifted]))
    with pytest.raises(ValueError, match="all its 5 events lie outside the recording of 12.0 s"):
        read_recording(recording, ReadingOptions())


def test_side_files_need_no_package(recording, monkeypatch):
    """A bad channel must not depend on an extra being installed."""
    monkeypatch.setitem(sys.modules, "mne_bids", None)
    found, _ = read(recording)
    assert found.info["bads"] == ["Fp1"]
    for kind in (
        "_channels.tsv",
        "_electrodes.tsv",
        "_coordsystem.json",
        "_events.tsv",
        "_eeg.json",
    ):
        beside(recording, kind).unlink()
    _, said = read(recording)
    assert said == []


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("sub-01/eeg/sub-01_task-x_eeg.edf", True),
        ("sub-01/ses-a/eeg/sub-01_ses-a_task-x_run-1_eeg.vhdr", True),
        ("sub-01/meg/sub-01_task-x_meg.fif", True),
        ("derivatives/p/sub-01/eeg/sub-01_task-x_desc-clean_eeg.fif", True),
        ("sub-01/eeg/sub-02_task-x_eeg.edf", False),
        ("eeg/recording.edf", False),
        ("sub-01/sub-01_task-x_eeg.edf", False),
    ],
)
def test_where_bids_puts_recordings(path, inside):
    assert is_in_bids(Path("/data") / path) is inside


def test_nothing_beside_a_file_of_its_own(tmp_path):
    evoked = make_evoked()
    assert bids_side_files(tmp_path / "x-ave.fif", evoked) == []
