"""Runs over a whole data set: what is in it, what goes wrong, and what a later run does."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mne
import pytest

from deepesi.cli.main import main
from deepesi.runtime.dataset import worker as dataset_worker
from deepesi.runtime.dataset.items import Selection, find_items
from deepesi.runtime.dataset.worker import locked
from tests.conftest import slow
from tests.runtime.dataset.test_dataset import NOISE, apply, table
from tests.runtime.reading.test_bids import beside, make_raw

mne_bids = pytest.importorskip("mne_bids")
pytest.importorskip("joblib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("filelock")
pytest.importorskip("pybv")


def write(root: Path, raw=None, **entities) -> Path:
    entities = {"subject": "01", "task": "x", **entities}
    place = mne_bids.BIDSPath(datatype="eeg", root=root, **entities)
    written = mne_bids.write_raw_bids(
        raw or make_raw([], seconds=11),
        place,
        allow_preload=True,
        format="BrainVision",
        overwrite=True,
        verbose="error",
    )
    return Path(written.fpath)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def found(root: Path, **labels) -> list[str]:
    return [str(item.name) for item in find_items(root, Selection(**labels), [])]


def test_sessions_runs_and_acquisitions_are_recordings_of_their_own(root):
    for session in ("a", "b"):
        for run in ("01", "02"):
            write(root, session=session, run=run)
    write(root, subject="02", acquisition="hi")
    write(root, subject="02", acquisition="lo")
    assert len(found(root)) == 6
    assert len(found(root, sessions=["a"], runs=["01"])) == 1
    items = find_items(root, Selection(["02"]), [])
    assert [item.entities["acquisition"] for item in items] == ["hi", "lo"]
    apply(*NOISE, "--subject", "02")
    assert [row["acquisition"] for row in table()] == ["hi", "lo"]


def test_what_is_no_recording_of_somebody_is_left_out(root, capsys):
    """Derivatives, an empty room, a subject without EEG, the later parts of a split file."""
    path = write(root)
    other = root / "derivatives" / "p" / "sub-01" / "eeg"
    other.mkdir(parents=True)
    shutil.copy(path, other / "sub-01_task-x_desc-clean_eeg.vhdr")
    (root / "sub-02" / "anat").mkdir(parents=True)
    room = root / "sub-emptyroom" / "eeg"
    room.mkdir(parents=True)
    shutil.copy(path, room / "sub-emptyroom_task-noise_eeg.vhdr")
    parts = root / "sub-03" / "eeg"
    parts.mkdir(parents=True)
    for split in ("01", "02"):
        (parts / f"sub-03_task-x_split-{split}_eeg.fif").touch()
    names = ["sub-01/eeg/sub-01_task-x_desc-deepesi", "sub-03/eeg/sub-03_task-x_desc-deepesi"]
    assert found(root) == names
    shutil.rmtree(root / "sub-03")
    apply(*NOISE)
    assert "no recordings with the suffix 'eeg' of subjects ['02']" in capsys.readouterr().out


def test_every_label_asked_for_is_there(root):
    """One that is mistyped is not left out in silence."""
    write(root)
    with pytest.raises(SystemExit, match=r"no recording of subject \['09'\] with the .* \['01'\]"):
        apply(*NOISE, "--subject", "01", "09")
    with pytest.raises(SystemExit, match=r"no recording .*'subject': \['sub-01'\]"):
        apply(*NOISE, "--subject", "sub-01")
    assert not Path("out").exists()


def test_a_recording_that_is_listed_and_missing(root):
    write(root)
    path = write(root, subject="02")
    for file in path.parent.glob("*_eeg.*"):
        file.unlink()
    assert len(found(root, subjects=["01"])) == 1  # the other one was not asked for
    with pytest.raises(SystemExit, match="1 of 2 recordings failed"):
        apply(*NOISE)
    first, second = table()
    assert (first["status"], second["status"]) == ("localized", "failed")
    assert f"there is no recording {path}" in second["message"]


def test_a_home_folder(root, monkeypatch):
    """`bids:~/data`: shells leave the ~ as it is."""
    write(root)
    monkeypatch.setenv("HOME", str(root.parent))
    main(["apply", "convdip", "bids:~/data", *NOISE, "--out", "out"])
    assert [row["status"] for row in table()] == ["localized"]


@pytest.mark.slow
def test_broken_files_among_twenty(root):
    """Each is in the table with its reason, and the other sixteen are localized."""
    paths = [write(root, subject=f"{number:02d}") for number in range(1, 21)]
    paths[2].write_text("no header")
    paths[6].with_suffix(".eeg").unlink()
    channels, events = beside(paths[10], "channels.tsv"), beside(paths[15], "events.tsv")
    channels.write_text(channels.read_text("utf-8-sig").replace("Cz\tEEG", "Cy\tEEG"))
    events.write_text("what")
    with pytest.raises(SystemExit, match="4 of 20 recordings failed"):
        apply(*NOISE, "--jobs", "2")
    failures = {row["subject"]: row["message"] for row in table() if row["status"] == "failed"}
    assert len(table()) == 20
    assert list(failures) == ["03", "07", "11", "16"]
    for subject, reason in (
        ("03", "not a readable"),
        ("07", "eeg"),
        ("11", "'Cy'"),
        ("16", "lacks the columns"),
    ):
        assert reason in failures[subject]


def test_an_error_that_nobody_expects_is_kept(root, monkeypatch):
    """It stops no other recording and leaves its traceback; mended, all goes on."""
    write(root)
    write(root, subject="02")
    real = dataset_worker.apply

    def faulty(model, path, *rest, **more):
        if "sub-01" in path.name:
            raise KeyError("a fault of ours")
        return real(model, path, *rest, **more)

    monkeypatch.setattr(dataset_worker, "apply", faulty)
    with pytest.raises(SystemExit, match="1 of 2 recordings failed"):
        apply(*NOISE)
    first, second = table()
    assert (first["status"], second["status"]) == ("unexpected", "localized")
    log = Path("out", first["output"] + ".log")
    assert "KeyError('a fault of ours'); please report it with" in first["message"]
    assert log.name in first["message"]
    assert "in faulty" in log.read_text()
    monkeypatch.setattr(dataset_worker, "apply", real)
    apply(*NOISE)
    assert [row["status"] for row in table()] == ["localized", "kept"]
    assert not log.exists()


COMMAND = [sys.executable, "-m", "deepesi", "apply", "convdip", "bids:data", *NOISE, "--out", "out"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_going_on_after_it_was_killed(root):
    """What was complete is kept, what was not is done, and nothing is left half."""
    for number in range(1, 7):
        write(root, subject=f"{number:02d}")
    process = subprocess.Popen(
        COMMAND, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if line.startswith("[2/6]"):
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    apply(*NOISE)
    statuses = [row["status"] for row in table()]
    assert statuses[:2] == ["kept"] * 2
    assert set(statuses[3:]) == {"localized"}
    apply(*NOISE, out="anew")
    for path in Path("anew").rglob("*.stc"):
        assert path.read_bytes() == Path("out", path.relative_to("anew")).read_bytes()
    assert not list(Path("out").rglob("*.partial*"))


@pytest.mark.parametrize("number", [slow(signal.SIGINT), slow(signal.SIGTERM)])
def test_asked_to_stop_it_ends_with_its_workers(root, number):
    for subject in range(1, 9):
        write(root, subject=f"{subject:02d}")
    process = subprocess.Popen(
        [*COMMAND, "--jobs", "2"],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("["):
            break
    process.send_signal(number)
    asked = time.monotonic()
    output, _ = process.communicate(timeout=60)  # its workers hold the pipe
    assert time.monotonic() - asked < 5 * max(1, os.getloadavg()[0] / os.cpu_count())
    assert process.returncode == 128 + number, output
    assert f"stopped by {number.name}" in output


def test_one_process_at_a_time_writes_to_a_folder(root):
    write(root)
    Path("out").mkdir()
    with locked(Path("out/results.tsv").absolute(), wait=False):
        other = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "another process writes to --out out now" in other.stderr
    assert not Path("out/results.tsv").exists()
    apply(*NOISE)
    assert [row["status"] for row in table()] == ["localized"]


def test_a_changed_option_is_another_run(root):
    """All is done anew, nothing of the run before stays."""
    write(root)
    apply(*NOISE)
    before = {p.name for p in Path("out").rglob("*.stc")}
    apply("--event", "seen", "--epoch", "-0.5", "0.5")
    apply(*NOISE, "--exclude", "O1", "Oz")
    (row,) = table()
    assert (row["status"], row["n_channels"]) == ("localized", "30")
    assert {p.name for p in Path("out").rglob("*_desc-deepesi-*.stc")} == before


def test_a_changed_part_of_a_split_file(root):
    """Only the first part is named in the table; the others count, too."""
    folder = root / "sub-01" / "meg"
    folder.mkdir(parents=True)
    raw = make_raw([], seconds=25)
    raw.drop_channels(["EOG"]).save(
        folder / "sub-01_task-x_meg.fif",
        split_size="2MB",
        split_naming="bids",
        overwrite=True,
        verbose="error",
    )
    if not (folder / "sub-01_task-x_split-02_meg.fif").exists():  # too short to be split
        (folder / "sub-01_task-x_meg.fif").rename(folder / "sub-01_task-x_split-01_meg.fif")
        shutil.copy(
            folder / "sub-01_task-x_split-01_meg.fif", folder / "sub-01_task-x_split-02_meg.fif"
        )
    apply(*NOISE, "--suffix", "meg")
    apply(*NOISE, "--suffix", "meg")
    assert [row["status"] for row in table()] == ["kept"]
    os.utime(folder / "sub-01_task-x_split-02_meg.fif", (time.time() + 9, time.time() + 9))
    apply(*NOISE, "--suffix", "meg")
    assert [row["status"] for row in table()] == ["localized"]
    assert mne.io.read_raw(folder / "sub-01_task-x_split-01_meg.fif").times[-1] > 24
