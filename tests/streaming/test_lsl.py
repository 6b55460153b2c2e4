"""Streams of the Lab Streaming Layer, replayed by MNE-LSL's own player."""

import functools
import threading
import time
import uuid

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.cli.stream import parse_renaming
from deepesi.streaming.live import LiveInverse
from deepesi.streaming.lsl import open_outlet, relay
from deepesi.streaming.source import library, open_source
from tests.conftest import make_evoked, slow

lsl = library()
mne_lsl_player = pytest.importorskip("mne_lsl.player")


@pytest.fixture
def raw():
    rng = np.random.default_rng(0)
    return mne.io.RawArray(
        rng.normal(scale=5e-6, size=(32, 2500)), make_evoked().info, verbose="error"
    )


@pytest.fixture
def play():
    """Starts players of recordings and stops them in the end."""
    players = []

    def start(raw, name=None):
        name = name or uuid.uuid4().hex[:8]
        players.append(mne_lsl_player.PlayerLSL(raw, chunk_size=10, name=name, source_id=name))
        return players[-1].start(), name

    yield start
    for player in players:
        if player.running:
            player.stop()


@pytest.mark.slow
def test_a_replayed_recording_comes_out_as_parcels(prepared, parcels, raw, play):
    """Published as estimated, at the time stamps of the samples; names and positions go with it."""
    _, name = play(raw)
    source = open_source(name, prepared.ch_names, {})
    assert source.sfreq == 250
    live, outlet = (
        LiveInverse(prepared, parcels, source.sfreq),
        open_outlet(parcels, 250.0, name + "r"),
    )
    (info,) = lsl.resolve_streams(timeout=5, name=name + "r")
    inlet = lsl.StreamInlet(info)
    inlet.open_stream(timeout=5)
    info = inlet.get_sinfo()
    assert info.get_channel_names() == list(parcels.names)
    place = info.desc.child("mni_centres_mm").child("parcel")
    assert place.child_value("name") == parcels.names[0]
    received = []
    latency = relay(lambda: source, live, outlet, 4.0, lambda t, c: received.append((t, c)))
    times = np.concatenate([t for t, _ in received])
    time_courses = np.concatenate([c for _, c in received], axis=1)
    assert live.counts.lost == live.counts.late == live.counts.broken == 0
    assert live.counts.estimated == len(times) > 500
    time.sleep(0.3)
    published, stamps = inlet.pull_chunk(timeout=1, max_samples=5000)
    np.testing.assert_allclose(published, time_courses.T[: len(published)], rtol=1e-5)
    np.testing.assert_allclose(stamps, times[: len(stamps)], atol=1e-3)
    assert len(stamps) == len(times)
    assert len(latency.seconds) == len(times)
    assert "latency" in str(latency)


@pytest.mark.slow
def test_a_stream_that_stops_and_returns(prepared, parcels, raw, play):
    player, name = play(raw)
    live, lines, estimates = LiveInverse(prepared, parcels, 250.0), [], []
    running = threading.Event()

    def interrupt():
        running.wait(timeout=60)
        player.stop()
        time.sleep(2.5)
        play(raw, name)

    def keep(times, time_courses):
        estimates.append(times)
        running.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    find = functools.partial(open_source, name, prepared.ch_names, {}, timeout=5.0)
    relay(
        find,
        live,
        open_outlet(parcels, 250.0, name + "r"),
        20.0,
        keep,
        silence=1.0,
        say=lines.append,
    )
    thread.join()
    assert lines[0].startswith("the stream has stopped; waiting")
    assert lines[1] == "the stream is back"
    gaps = np.diff(np.concatenate(estimates))
    assert (gaps > 0).all()
    assert (gaps > 1).sum() == 1
    assert live.counts.lost > 250
    assert live.counts.settling == 500


@pytest.mark.slow
def test_channels_that_are_called_otherwise(prepared, raw, play):
    raw.rename_channels({"Fp1": "EEG 1", "Cz": "EEG 2"})
    raw.reorder_channels(sorted(raw.ch_names))
    _, name = play(raw)
    with pytest.raises(ValueError, match=r"\['Fp1', 'Cz'\] are missing.*--rename OLD=NEW"):
        open_source(name, prepared.ch_names, {})
    with pytest.raises(ValueError, match=r"\['EEG 9'\] to rename are not there"):
        open_source(name, prepared.ch_names, {"EEG 9": "Fp1", "EEG 2": "Cz"})
    with pytest.raises(ValueError, match=r"\['Cz'\] there twice"):
        open_source(name, prepared.ch_names, {"EEG 1": "Cz", "EEG 2": "Cz"})
    source = open_source(name, prepared.ch_names, {"EEG 1": "Fp1", "EEG 2": "Cz"})
    time.sleep(0.5)
    chunk, _ = source.inlet.pull_chunk(timeout=2, max_samples=20)
    # The player goes round and round; where it is, all channels must say alike.
    ours = (
        raw.copy()
        .rename_channels({"EEG 1": "Fp1", "EEG 2": "Cz"})
        .get_data(list(prepared.ch_names))
    )
    data = (source.factors[:, None] * np.asarray(chunk).T[source.rows])[:, :1]
    assert np.abs(ours - data).max(axis=0).min() < 1e-9


@pytest.mark.parametrize(
    ("units", "unit", "factor"),
    [
        slow("microvolts", None, 1e-6),
        slow("uV", None, 1e-6),
        ("V", None, 1.0),
        ("none", "mV", 1e-3),
    ],
)
def test_units_are_those_the_stream_names(prepared, units, unit, factor):
    name = uuid.uuid4().hex[:8]
    info = lsl.StreamInfo(name, "EEG", 33, 250.0, "float32", name)
    info.set_channel_names([*prepared.ch_names[::-1], "TRIGGER"])
    info.set_channel_units([units] * 33)
    outlet = lsl.StreamOutlet(info)
    source = open_source(name, prepared.ch_names, {}, unit)
    assert source.rows == list(range(31, -1, -1))
    assert (source.factors == factor).all()
    assert source.ignored == ["TRIGGER"]
    if unit is not None:
        with pytest.raises(ValueError, match=r"its unit is 'none'; known are .*Say it with --unit"):
            open_source(name, prepared.ch_names, {})
    del outlet


@pytest.mark.slow  # one by one: test_source.py
def test_streams_that_do_not_fit(prepared, long_listing):
    with pytest.raises(FileNotFoundError, match="there is no stream 'nobody'"):
        open_source("nobody", prepared.ch_names, {}, timeout=0.5)
    name = uuid.uuid4().hex[:8]
    info = lsl.StreamInfo(name, "EEG", 32, 0.0, "float32", name)
    info.set_channel_names(list(prepared.ch_names))
    info.set_channel_units(["V"] * 32)
    outlet = lsl.StreamOutlet(info)
    with pytest.raises(ValueError, match="has no regular rate"):
        open_source(name, prepared.ch_names, {})
    other = lsl.StreamOutlet(lsl.StreamInfo(name, "EEG", 1, 250.0, "float32", name + "b"))
    with pytest.raises(ValueError, match=r"there are several streams"):
        open_source(name, prepared.ch_names, {})
    del outlet, other


def test_a_renaming_without_its_new_name():
    with pytest.raises(ValueError, match=r"--rename takes OLD=NEW, got \['a'\]"):
        parse_renaming(["a", "b=c"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seconds", "-1"], "--seconds -1: expected a duration above 0 s"),
        (["--band", "40", "1"], r"the band 40 to 1 Hz must begin above 0 .*--band LOW HIGH"),
        (["--samples", "3"], "a window of 3 samples; it must be 1 or even"),
        (["--unit", "foo"], "--unit takes V, mV, uV or nV, got 'foo'"),
        (["--page", "70000"], "--page 70000: expected a port"),
        (["--power", "."], r"--power \. is a folder"),
        (["--prepared", "none.npz"], "there is no file none.npz"),
    ],
)
def test_options_are_checked_before_a_stream_is_looked_for(
    eloreta, prepared, tmp_path, more, message
):
    prepared.save(tmp_path / "head.npz")
    common = ["stream", str(eloreta), "none", "--prepared", str(tmp_path / "head.npz")]
    with pytest.raises(SystemExit, match=message):
        main([*common, *more])


@pytest.mark.slow  # of bursts: test_devices.py
def test_from_the_command_line(eloreta, prepared, raw, play, tmp_path, capsys):
    prepared.save(tmp_path / "head.npz")
    _, name = play(raw)
    main(
        [
            "stream",
            str(eloreta),
            name,
            "--prepared",
            str(tmp_path / "head.npz"),
            "--seconds",
            "2.5",
            "--outlet",
            name + "r",
            "--page",
            "0",
            "--band",
            "5",
            "40",
            "--power",
            str(tmp_path / "power.csv"),
        ]
    )
    printed = capsys.readouterr().out
    assert f"head.npz: {prepared.origin}" in printed
    assert f"{name}: 32 channels at 250 Hz, beside them none; band 5 to 40 Hz" in printed
    assert "page at http://127.0.0.1:" in printed
    assert ", 0 lost, 0 broken" in printed
    assert "latency" in printed
    assert "strongest from 5 to 40 Hz: " in printed
    assert len((tmp_path / "power.csv").read_text().splitlines()) == 1 + 237
    with pytest.raises(SystemExit, match=r"half the sampling rate; got 1 and 200 Hz"):
        main(
            [
                "stream",
                str(eloreta),
                name,
                "--prepared",
                str(tmp_path / "head.npz"),
                "--band",
                "1",
                "200",
            ]
        )
