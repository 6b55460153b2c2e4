"""``deepesi apply MODEL bids:ROOT``: a whole data set, in parallel, with one table."""

import csv
import json
import shlex
import shutil
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.runtime.dataset.record import Row, read_record, write_record
from deepesi.utils.memory import bounded_memory
from tests.conftest import make_covariance, make_evoked, slow
from tests.runtime.reading.test_bids import beside, make_raw, write_bids

pytest.importorskip("mne_bids")
pytest.importorskip("joblib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("pybv")

DOCS = Path(__file__).parents[3] / "docs" / "deployment.md"


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Two subjects, and one whose header is damaged; Fp1 of the first is bad."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    for subject, bads in (("01", ["Fp1"]), ("02", []), ("03", [])):
        path = write_bids(root, make_raw(bads), subject=subject)
    path.write_text("no header")
    return root


def table(out="out") -> list[dict[str, str]]:
    with Path(out, "results.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def apply(*more, out="out", head=()):
    main(["apply", "convdip", "bids:data", *more, "--out", out])


NOISE = ("--noise-from", "0", "1.5")


def test_one_failing_recording_stops_no_other(data, capsys):
    message = "1 of 3 recordings failed; reasons are in out/results.tsv"
    with pytest.raises(SystemExit, match=message):
        apply(*NOISE)
    first, second, third = table()
    assert [row["status"] for row in (first, second, third)] == ["localized", "localized", "failed"]
    assert (first["subject"], first["task"], first["run"]) == ("01", "x", "n/a")
    assert (first["n_channels"], first["bads"], first["nave"]) == ("31", "Fp1", "1")
    assert (second["n_channels"], second["bads"]) == ("32", "n/a")
    assert "not a readable recording" in third["message"]
    assert third["x_mm"] == "n/a"
    printed = capsys.readouterr().out
    assert "[1/3] sub-01 task-x: localized, 31 channels, bad: Fp1; strongest at" in printed
    assert "2 localized, 0 kept, 1 failed; wrote out/results.tsv" in printed
    description = json.loads(Path("out/dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "deepesi"
    assert not list(Path("out").glob("sub-03/**/*.stc"))


def test_each_is_what_apply_says_of_it(data, capsys):
    """The same estimate, peak, power and lines as of the one recording."""
    apply(*NOISE, "--subject", "01")
    (row,) = table()
    capsys.readouterr()
    main(
        ["apply", "convdip", str(data / "sub-01/eeg/sub-01_task-x_eeg.vhdr"), *NOISE, "--out", "x"]
    )
    printed = capsys.readouterr().out
    peaks = [line for line in printed.splitlines() if "strongest at" in line]
    mni = f"MNI ({float(row['x_mm']):.0f}, {float(row['y_mm']):.0f}, {float(row['z_mm']):.0f}) mm"
    time = f"strongest at {1e3 * float(row['time_s']):.0f} ms"
    power = f"whitened power {float(row['power']):.1f} times"
    assert any(all(text in line for text in (mni, time, power)) for line in peaks)
    assert float(row["power"]) == pytest.approx(
        max(float(line.split("power ")[1].split()[0]) for line in peaks), abs=0.05
    )
    for number in range(2):
        found = mne.read_source_estimate(f"out/{row['output']}-{number:04d}").data
        expected = mne.read_source_estimate(f"x-{number:04d}").data
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    record = json.loads(Path(f"out/{row['output']}.json").read_text())
    assert [line for line in record["notes"] if "wrote" not in line] == [
        line for line in printed.splitlines() if "wrote" not in line
    ]


def test_a_solver_by_its_name(data):
    common = [*NOISE, "--head", "fsaverage-ico3", "--subject", "01", "02", "--out", "out"]
    main(["apply", "eloreta", "bids:data", *common])
    assert [row["status"] for row in table()] == ["localized"] * 2
    main(["apply", "eloreta", "bids:data", *common])
    assert [row["status"] for row in table()] == ["kept"] * 2
    with pytest.raises(SystemExit, match="there is no file eloretta"):
        main(["apply", "eloretta", "bids:data", *common])


def test_results_do_not_depend_on_the_number_of_jobs(data):
    for out, jobs in (("one", "1"), ("two", "2")):
        with pytest.raises(SystemExit, match="1 of 3"):
            apply(*NOISE, "--jobs", jobs, out=out)
    assert table("one") == table("two")
    files = sorted(p.relative_to("one") for p in Path("one").rglob("*.stc"))
    assert len(files) == 8
    for file in files:
        assert Path("one", file).read_bytes() == Path("two", file).read_bytes()


def test_what_is_complete_is_kept(data, capsys):
    """Until input, options or files change; an interrupted recording is done anew."""

    def statuses(*more) -> list[str]:
        apply(*NOISE, "--subject", "01", "02", *more)
        return [row["status"] for row in table()]

    assert statuses() == ["localized", "localized"]
    before = table()
    assert statuses() == ["kept", "kept"]
    assert [{**row, "status": ""} for row in table()] == [{**row, "status": ""} for row in before]
    Path("out", before[1]["output"] + "-0001-lh.stc").unlink()
    assert statuses() == ["kept", "localized"]
    Path("out", before[1]["output"] + ".json").unlink()  # written last: it was interrupted
    assert statuses() == ["kept", "localized"]
    channels = beside(data / "sub-01/eeg/x", "channels.tsv")
    channels.write_text(channels.read_text(encoding="utf-8-sig").replace("bad", "good"))
    assert statuses() == ["localized", "kept"]
    assert table()[0]["n_channels"] == "32"
    assert statuses("--window", "0", "5") == ["localized", "localized"]
    assert "0 localized, 2 kept, 0 failed" in capsys.readouterr().out


def test_averages_about_events(data):
    """Every event is averaged as in MNE-Python, with the noise of the part before it."""
    apply("--subject", "02", "--event", "seen", "heard", "--epoch", "-0.4", "0.4")
    heard, seen = sorted(table(), key=lambda row: row["event"])
    assert (heard["nave"], seen["nave"]) == ("2", "2")
    assert seen["output"].endswith("sub-02_task-x_desc-deepesiseen")
    assert Path("out", seen["output"] + ".png").is_file()
    record = json.loads(Path("out", seen["output"] + ".json").read_text())
    assert "2 of 2 events 'seen' averaged, -0.4 to 0.4 s" in record["notes"]
    assert "baseline -400 to 0 ms" in "\n".join(record["notes"])


def test_trials_in_bad_stretches_are_left_out(data, capsys):
    events = beside(data / "sub-02/eeg/x", "events.tsv")
    events.write_text(events.read_text(encoding="utf-8-sig").replace("8.0\t", "5.9\t"))
    path = str(data / "sub-02/eeg/sub-02_task-x_eeg.vhdr")
    with pytest.raises(SystemExit, match="--noise-from -0.6 0 s holds 1 epoch, .* at least 2"):
        main(["apply", "convdip", path, "--event", "seen", "--epoch", "-0.6", "0.4", "--out", "x"])
    line = "1 of 2 events 'seen' averaged, -0.6 to 0.4 s; excluded: 1 BAD_x"
    assert line in capsys.readouterr().out


def test_own_covariances_by_their_entities(data):
    make_covariance(make_evoked().info).save("c-01-cov.fif", verbose="error")
    with pytest.raises(SystemExit, match="1 of 2 recordings failed"):
        apply("--subject", "01", "02", "--noise-cov", "c-{subject}-cov.fif")
    first, second = table()
    assert first["status"] == "localized"
    assert f"there is no file {data.parent}/c-02-cov.fif" in second["message"]
    with pytest.raises(SystemExit, match="1 of 1 recordings failed"):
        apply("--subject", "01", "--noise-cov", "c-{who}-cov.fif")
    assert "braces stand for an entity of the recording: {subject}" in table()[0]["message"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--subject", "09"],
            r"no recording with the suffix 'eeg' and {'subject': \['09'\]}. The "
            r"data set has {'subject': \['01', '02', '03'\]",
        ),
        (["--task", "y"], r"'task': \['x'\]"),
        (["--suffix", "ave"], r"data: no recordings sub-\*/eeg/\*_ave.\* in it. Give the top"),
        (["--jobs", "0"], "--jobs must be 1 or more, got 0"),
        (["--event", "a/b", "a-b"], "several recordings or events would be written to sub-01"),
        (["--epoch", "-1", "1"], "give --event NAME, too"),
    ],
)
def test_what_a_data_set_does_not_have(data, more, message):
    with pytest.raises(SystemExit, match=message):
        apply(*NOISE, *more)
    assert not Path("out").exists()


def test_folders_that_are_no_derivative(data):
    with pytest.raises(SystemExit, match="--out data is the data set itself"):
        apply(*NOISE, out="data")
    write_bids(Path("other"), make_raw())
    with pytest.raises(SystemExit, match="--out other is another data set"):
        apply(*NOISE, out="other")
    with pytest.raises(SystemExit, match="there is no folder nowhere"):
        main(["apply", "convdip", "bids:nowhere", *NOISE, "--out", "out"])
    with pytest.raises(SystemExit, match="the noise is missing: give --noise-from FROM TO"):
        apply()
    assert not Path("out").exists()


def test_without_the_extra(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "mne_bids", None)
    with pytest.raises(SystemExit, match=r"'mne_bids' to localize the .*deepesi\[bids\]"):
        apply(*NOISE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--subject", "01"], "--subject: for a whole data set, 'deepesi apply MODEL bids:ROOT'"),
        (["--run", "1", "--jobs", "2"], "--run, --jobs: for a whole data set"),
        (["--event", "seen", "heard"], "--event seen heard: give one event of one recording"),
        (["--event", "felt"], r"has no events 'felt'; it has \['BAD_x', 'heard', 'seen'\]"),
        (["--event", "seen", "--epoch", "0.1", "0.5"], "must begin before the event"),
        (["--event", "seen", "--epoch", "-9", "9"], "no trial of the 2 events 'seen' is good"),
    ],
)
def test_options_of_one_recording(data, more, message):
    path = str(data / "sub-01/eeg/sub-01_task-x_eeg.vhdr")
    with pytest.raises(SystemExit, match=message):
        main(["apply", "convdip", path, *more, "--out", "x"])


def test_a_record_of_other_files_or_another_version_is_none(tmp_path):
    prefix = tmp_path / "sub-01_desc-deepesi"
    row = Row("01", None, "x", None, None, None, "localized", n_channels=32)
    (tmp_path / "sub-01_desc-deepesi-lh.stc").write_bytes(b"12")
    (tmp_path / "sub-01_desc-deepesiseen-lh.stc").write_bytes(b"of another event")
    write_record(prefix, "key", row, [])
    assert read_record(prefix, "key") == row
    assert read_record(prefix, "other") is None
    (tmp_path / "sub-01_desc-deepesi-lh.stc").write_bytes(b"1")
    assert read_record(prefix, "key") is None
    (tmp_path / "sub-01_desc-deepesi.json").write_text('{"key": "key", "row": {"colour": 1}}')
    assert read_record(prefix, "key") is None


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
def test_jobs_share_the_memory():
    import resource

    bounds = []
    for n_processes in (1, 4):
        with bounded_memory(n_processes):
            bounds.append(resource.getrlimit(resource.RLIMIT_DATA)[0])
    assert bounds[0] == pytest.approx(4 * bounds[1], rel=1e-6)


def documented() -> list[str]:
    """The commands for data sets in the documentation."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    return [
        line.split("  #")[0].strip()
        for line in lines
        if line.startswith("deepesi apply") and "bids:" in line
    ]


@pytest.mark.parametrize("command", [c if "--dask" in c else slow(c) for c in documented()])
def test_documented_commands(data, command, monkeypatch):
    """The documented commands run; the address of the cluster is that of one started here."""
    shutil.rmtree(data / "sub-03")
    for subject in ("01", "02"):
        make_covariance(make_evoked().info).save(f"sub-{subject}-cov.fif", verbose="error")
    arguments = shlex.split(command)[1:]
    if "--dask" not in arguments:
        main(arguments)
    else:
        distributed = pytest.importorskip("distributed")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as cluster:
            arguments[arguments.index("--dask") + 1] = cluster.scheduler_address
            main(arguments)
    assert {row["status"] for row in table()} == {"localized"}
