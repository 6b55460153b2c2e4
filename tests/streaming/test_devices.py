"""Devices as they are, over LSL: bursts stamped on arrival, clocks that step, namesakes."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.streaming.counts import Counts
from deepesi.streaming.live import LiveInverse
from deepesi.streaming.lsl import at_rate, open_outlet, relay
from deepesi.streaming.source import library, open_source
from deepesi.streaming.watch import Latency, Watch
from tests.conftest import slow

lsl = library()
SFREQ = 250.0


def make_outlet(name, ch_names, stype="EEG", sfreq=SFREQ, source_id=None):
    info = lsl.StreamInfo(name, stype, len(ch_names), sfreq, "float32", source_id or name + stype)
    info.set_channel_names(list(ch_names))
    info.set_channel_units(["microvolts"] * len(ch_names))
    return lsl.StreamOutlet(info)


@pytest.fixture
def device(prepared):
    """Starts devices of which each sends noise at 250 Hz in its own manner, and stops them."""
    ended, threads = threading.Event(), []

    def start(send, block=10):
        name = uuid.uuid4().hex[:8]
        outlet, rng = make_outlet(name, prepared.ch_names), np.random.default_rng(0)

        def work():
            begin, sent = lsl.local_clock(), 0
            while not ended.wait(0.001):
                while (lsl.local_clock() - begin) * SFREQ - sent >= block:
                    sent += block
                    data = rng.normal(scale=5.0, size=(block, len(prepared.ch_names)))
                    send(outlet, data.astype(np.float32), begin + sent / SFREQ, sent)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return name

    yield start
    ended.set()
    for thread in threads:
        thread.join()


def one_by_one(outlet, data, end, sent):
    for row in data:
        outlet.push_sample(row)  # stamped as it is pushed: ten all but equal stamps


@pytest.mark.slow
def test_bursts_stamped_on_arrival_from_the_command_line(
    eloreta, prepared, device, tmp_path, capsys
):
    """No sample is lost, and all but those of the settling filter are estimated."""
    prepared.save(tmp_path / "head.npz")
    name = device(one_by_one)
    main(
        [
            "stream",
            str(eloreta),
            name,
            "--prepared",
            str(tmp_path / "head.npz"),
            "--seconds",
            "4.5",
            "--outlet",
            name + "r",
            "--type",
            "EEG",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    (printed,) = (line for line in lines if "samples received" in line)
    received, estimated = (int(p.split()[0].replace(",", "")) for p in printed.split(", ")[:2])
    assert ", 0 late, 0 lost, 0 broken, 250 while settling" in printed
    assert received > 800
    assert 0 <= received - 250 - estimated < 260  # at most a second still waits for a decision
    assert "latency from arrival" in printed
    assert "from the fitted time stamps" in printed


@pytest.mark.parametrize("number", [slow(signal.SIGINT), slow(signal.SIGTERM)])
def test_asked_to_stop_it_says_what_became_of_the_samples(
    eloreta, prepared, device, tmp_path, number
):
    prepared.save(tmp_path / "head.npz")
    name = device(one_by_one)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "deepesi",
            "stream",
            str(eloreta),
            name,
            "--outlet",
            name + "r",
            "--prepared",
            str(tmp_path / "head.npz"),
        ],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    first = next(line for line in process.stdout if "; band " in line)
    time.sleep(1)
    process.send_signal(number)
    asked = time.monotonic()
    output = first + process.communicate(timeout=30)[0]
    assert time.monotonic() - asked < 5 * max(1, os.getloadavg()[0] / os.cpu_count())
    assert process.returncode == 128 + number, output
    assert f"stopped by {number.name}" in output
    assert "samples received" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_clock_that_is_set_back_while_it_streams(prepared, parcels, device):
    def send(outlet, data, end, sent):
        outlet.push_chunk(data, end - 3600 * (sent > 2.5 * SFREQ))

    name = device(send)
    lines, found = [], []
    source = open_source(name, prepared.ch_names, {})
    live = LiveInverse(prepared, parcels, SFREQ, say=lines.append)
    outlet = open_outlet(parcels, SFREQ, name + "r")
    relay(lambda: source, live, outlet, 6.5, lambda t, c: found.append(t), say=lines.append)
    times = np.concatenate(found)
    assert len(lines) == 1
    assert "stepped by -3,600" in lines[0]
    assert live.counts.lost == live.counts.late == 0
    assert live.counts.settling == 500
    assert live.counts.estimated == live.counts.received - 500 - live.pending
    assert (np.diff(times) > 0).all()
    assert np.diff(times).max() < 2  # the gap of the settling filter, and no hour


def test_streams_of_one_name(prepared, long_listing, monkeypatch):
    name = uuid.uuid4().hex[:8]
    data = make_outlet(name, prepared.ch_names)
    other = make_outlet(name, ["x", "y", "z"], "Accelerometer", 50.0)
    message = (
        r"there are several streams .*: type 'Accelerometer', source id '\w+Accelerometer', on .+, "
        r"3 channels at 50 Hz .*; type 'EEG', .* 32 channels at 250 Hz .*\). Choose by --type or "
        r"--source"
    )
    with pytest.raises(ValueError, match=message):
        open_source(name, prepared.ch_names, {})
    monkeypatch.undo()  # the long listing: from here on one stream is enough
    assert open_source(name, prepared.ch_names, {}, stype="EEG").sfreq == 250
    assert open_source(name, prepared.ch_names, {}, source_id=name + "EEG").sfreq == 250
    with pytest.raises(FileNotFoundError, match=r"of type 'ECG' \(looked .*type 'EEG', source id"):
        open_source(name, prepared.ch_names, {}, timeout=0.5, stype="ECG")
    del data, other


def stream(eloreta, prepared, tmp_path, name, *more):
    prepared.save(tmp_path / "head.npz")
    known = ["--prepared", str(tmp_path / "head.npz"), "--outlet", uuid.uuid4().hex[:8]]
    main(["stream", str(eloreta), name, *known, *more])


def test_nothing_estimated_is_an_error(eloreta, prepared, device, tmp_path):
    short = ["--seconds", "0.5", "--band", "0.1", "40"]
    with pytest.raises(SystemExit, match=r"nothing was estimated of '\w+'. .*needs 10 s .* longer"):
        stream(eloreta, prepared, tmp_path, device(one_by_one), *short)


@pytest.mark.slow
def test_stamps_that_do_not_advance_are_an_error(eloreta, prepared, device, tmp_path):
    name = device(lambda outlet, data, end, sent: outlet.push_chunk(data, np.full(10, 7.0)))
    with pytest.raises(SystemExit, match="has 250 Hz, but its time stamps advance not at all"):
        stream(eloreta, prepared, tmp_path, name, "--seconds", "20")


def test_a_stream_that_is_back_at_another_rate(prepared, parcels):
    name = uuid.uuid4().hex[:8]
    outlet = make_outlet(name, prepared.ch_names, sfreq=500.0)
    source = open_source(name, prepared.ch_names, {})
    with pytest.raises(ValueError, match="is back with 500 Hz and had 250 Hz. Start again"):
        at_rate(source, SFREQ)
    del outlet


def test_it_is_said_why_nothing_is_estimated(prepared, parcels):
    rng, lines = np.random.default_rng(0), []
    live = LiveInverse(prepared, parcels, SFREQ)
    watch = Watch(live, lines.append)
    for second in range(30):
        data = rng.normal(scale=5e-6, size=(32, 250))
        if second >= 3:
            data[4, ::50] = np.nan
        live.push(data, second + np.arange(250) / SFREQ)
        watch.look(float(second))
    assert len(lines) == 3
    assert lines[0].startswith("nothing was estimated for 7 s, although samples come. The filter")
    live.trouble, before = "samples are NaN", Counts(received=live.counts.received)
    assert live.why_nothing(before) == "No sample came. Start the device."
    for second in range(30, 32):
        live.push(np.full((32, 250), np.nan), second + np.arange(250) / SFREQ)
    after = Counts(**vars(live.counts))
    live.push(np.full((32, 250), np.nan), 32 + np.arange(250) / SFREQ)
    assert live.why_nothing(after) == "samples are NaN or infinite."


def test_offsets_of_electrodes_leave_no_trace(prepared, parcels):
    """1 mV and more, constant, another in every channel: gone from the first sample on."""
    data = np.random.default_rng(0).normal(scale=5e-6, size=(32, 1000))
    offsets = np.random.default_rng(1).normal(scale=1e-3, size=(32, 1))
    times = np.arange(1000) / SFREQ
    _, plain = LiveInverse(prepared, parcels, SFREQ).push(data, times)
    live = LiveInverse(prepared, parcels, SFREQ)
    _, shifted = live.push(data + offsets, times)
    np.testing.assert_allclose(shifted, plain, rtol=1e-4)
    assert live.counts.estimated == 750


def test_latency_says_from_when():
    latency = Latency()
    assert str(latency) == "no estimate yet"
    latency.add(10.010, np.array([10.0, 10.005]), np.array([9.95, 9.96]))
    text = str(latency)
    assert text.startswith("latency from arrival 7.5 ms (median)")
    assert "from the fitted time stamps 55.0 ms (median)" in text
    latency.add(5000.0, np.full(9, 4999.9), np.zeros(9))
    assert "from the fitted time stamps none, as they are of another clock" in str(latency)
