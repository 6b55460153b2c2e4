"""Samples in, parcels out: filter, windows, and chunks that are late, lost, broken or reordered."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt, sosfilt_zi

from deepesi.physics.atlas import FARTHEST
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from deepesi.streaming.bandpass import CausalBandpass
from deepesi.streaming.live import LiveInverse
from deepesi.streaming.page import LivePage
from tests.conftest import make_covariance, make_evoked

SFREQ = 250.0


@pytest.fixture
def recording():
    rng = np.random.default_rng(0)
    return rng.normal(scale=5e-6, size=(32, 1000)), 100 + np.arange(1000) / SFREQ


def in_chunks(live, data, times, bounds):
    out = [live.push(data[:, a:b], times[a:b]) for a, b in itertools.pairwise(bounds)]
    return np.concatenate([t for t, _ in out]), np.concatenate([c for _, c in out], axis=1)


def test_every_source_belongs_to_the_nearest_coordinate(parcels, template):
    assert 180 < len(parcels.names) <= 239
    assert len(set(parcels.names)) == len(parcels.names)
    assert {name.split()[-2] for name in parcels.names} == {"L", "R", "Mid"}
    apart = np.linalg.norm(template.source_mni[:, None] - parcels.centres, axis=2)
    inside = parcels.of_source >= 0
    assert inside.mean() > 0.8
    assert apart.min(axis=1)[inside].max() <= FARTHEST
    np.testing.assert_array_equal(apart.argmin(axis=1)[inside], parcels.of_source[inside])
    assert (np.bincount(parcels.of_source[inside], minlength=len(parcels.names)) > 0).all()
    values = np.zeros((1284, 1))
    values[parcels.of_source == 7] = 3.0
    np.testing.assert_allclose(
        parcels.time_courses(values)[:, 0], 3.0 * (np.arange(len(parcels.names)) == 7)
    )


def test_filter_looks_at_the_past_only_and_chunks_leave_no_trace(recording):
    data, _ = recording
    whole = CausalBandpass(1.0, 40.0, SFREQ)(data)
    band = CausalBandpass(1.0, 40.0, SFREQ)
    parts = np.concatenate([band(data[:, a : a + 37]) for a in range(0, 1000, 37)], axis=1)
    np.testing.assert_allclose(parts, whole)
    later = data.copy()
    later[:, 600:] = 0
    np.testing.assert_array_equal(CausalBandpass(1.0, 40.0, SFREQ)(later)[:, :600], whole[:, :600])
    constant = CausalBandpass(1.0, 40.0, SFREQ)(np.full((3, 100), 7.0))
    assert np.abs(constant).max() < 1e-9
    with pytest.raises(ValueError, match=r"needs 0 < low < high < 125 Hz.*got 1 and 200"):
        CausalBandpass(1.0, 200.0, SFREQ)


def test_time_courses_are_those_of_the_filtered_recording(prepared, parcels, recording):
    """Once the filter has settled, the whole recording at once gives the same."""
    data, times = recording
    live = LiveInverse(prepared, parcels, SFREQ)
    stamps, time_courses = in_chunks(live, data, times, [0, 10, 17, 250, 251, 600, 1000])
    np.testing.assert_array_equal(stamps, times[250:])
    sections = butter(2, (1.0, 40.0), "bandpass", fs=SFREQ, output="sos")
    start = sosfilt_zi(sections)[:, None] * data[:, :1]
    filtered = sosfilt(sections, data, axis=1, zi=start)[0][:, 250:]
    expected = parcels.time_courses(np.abs(prepared.estimate(filtered, 1)[0]))
    np.testing.assert_allclose(time_courses, expected, rtol=1e-5)
    assert vars(live.counts) == {
        "received": 1000,
        "estimated": 750,
        "late": 0,
        "lost": 0,
        "broken": 0,
        "settling": 250,
    }


@pytest.mark.parametrize("window", [2, 20])
def test_windows_lie_over_each_other(prepared, parcels, recording, window):
    """However the samples come in, and each a mean of two windows with weights that add to one."""
    data, times = recording
    results = []
    for bounds in ([0, 1000], [0, 3, 255, 256, 300, 777, 1000]):
        live = LiveInverse(prepared, parcels, SFREQ, window=window)
        results.append(in_chunks(live, data, times, bounds))
    # Single precision: how many windows are computed at once decides the order of sums.
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4)
    stamps, time_courses = results[0]
    np.testing.assert_allclose(stamps, times[250 : 250 + len(stamps)])
    assert len(stamps) == 750 - window // 2
    filtered = CausalBandpass(1.0, 40.0, SFREQ)(data)[:, 250:]
    hop = window // 2
    windows = [
        parcels.time_courses(np.abs(prepared.estimate(filtered[:, s : s + window], window)[0]))
        for s in (hop, 2 * hop)
    ]
    falling = np.cos(np.pi * (np.arange(hop) + 0.5) / window) ** 2
    expected = falling * windows[0][:, hop:] + (1 - falling) * windows[1][:, :hop]
    np.testing.assert_allclose(time_courses[:, 2 * hop : 3 * hop], expected, rtol=1e-5)


def test_chunks_out_of_order_lost_and_broken(prepared, parcels, recording):
    data, times = recording
    live = LiveInverse(prepared, parcels, SFREQ)
    live.push(data[:, :400], times[:400])
    live.push(data[:, 410:420], times[410:420])  # 400 to 409 are still on their way
    assert (live.counts.lost, live.counts.estimated) == (10, 150)
    live.push(data[:, 400:410], times[400:410])  # here they are
    assert live.counts.late == 10
    stamps, _ = live.push(data[:, 420:700], times[420:700])
    np.testing.assert_array_equal(stamps, times[660:700])  # settled anew, from 410 on
    broken = data[:, 700:800].copy()
    broken[3, 40] = np.nan
    stamps, _ = live.push(broken, times[700:800])
    assert live.counts.broken == 1
    np.testing.assert_array_equal(stamps, times[700:740])  # nothing across it


def test_time_stamps_may_jitter(prepared, parcels, recording):
    data, times = recording
    shaken = times + np.random.default_rng(0).normal(scale=3e-4, size=1000)
    live = LiveInverse(prepared, parcels, SFREQ)
    live.push(data, shaken)
    assert live.counts.lost == live.counts.late == 0


def test_wrong_units_from_the_start_and_bad_moments_later(prepared, parcels, recording):
    data, times = recording
    with pytest.raises(ValueError, match="look like microvolts"):
        LiveInverse(prepared, parcels, SFREQ).push(1e6 * data, times)
    live = LiveInverse(prepared, parcels, SFREQ)
    live.push(data[:, :500], times[:500])
    stamps, _ = live.push(1e6 * data[:, 500:600], times[500:600])  # someone trips over the cable
    assert len(stamps) == 0
    assert live.counts.broken == 100
    stamps, _ = live.push(data[:, 600:], times[600:])
    np.testing.assert_array_equal(stamps, times[850:])


@pytest.mark.parametrize("window", [0, 3, 22])
def test_windows_that_cannot_be(prepared, parcels, window):
    from dataclasses import replace

    from deepesi.runtime.contract import TrainingRanges

    trained = TrainingRanges((8, 64), (1, 20), 250.0, None)
    contract = replace(prepared.model.contract, trained=trained)
    short = replace(prepared, model=prepared.model._replace(contract=contract))
    with pytest.raises(ValueError, match=rf"a window of {window} samples; .*in training \(20\)"):
        LiveInverse(short, parcels, SFREQ, window=window)


def test_chunks_of_another_shape(prepared, parcels):
    live = LiveInverse(prepared, parcels, SFREQ)
    with pytest.raises(ValueError, match=r"shape \(31, 5\) with 5 time stamps, expected \(32, n\)"):
        live.push(np.zeros((31, 5)), np.arange(5.0))


def test_any_mess_of_chunks_gives_right_samples_or_none(prepared, parcels, recording, request):
    """Shuffled, doubled, dropped, spoilt: what comes out is in order, new, finite, and counted."""
    data, times = recording

    @settings(
        max_examples=request.config.getoption("--fuzz"),
        deadline=None,
        derandomize=True,
        database=None,
    )
    @given(
        st.lists(
            st.tuples(st.integers(0, 19), st.sampled_from(["", "nan", "loud", "flat"])), max_size=30
        )
    )
    def check(chunks):
        live = LiveInverse(prepared, parcels, SFREQ)
        live.filter.settled = live.to_settle = 20
        newest, total = 0.0, 0
        live.push(data[:, :40] + 0.0, times[:40] - 1.0)
        for number, spoilt in chunks:
            part = data[:, 50 * number : 50 * (number + 1)].copy()
            if spoilt == "nan":
                part[number, number] = np.nan
            elif spoilt:
                part *= 1e6 if spoilt == "loud" else 0
            stamps, time_courses = live.push(part, times[50 * number : 50 * (number + 1)])
            assert np.isfinite(time_courses).all()
            assert (np.diff(stamps) > 0).all()
            assert not len(stamps) or stamps[0] > newest
            newest, total = max([newest, *stamps]), total + len(stamps)
        counts = live.counts
        assert counts.received == 40 + 50 * len(chunks)
        done = counts.estimated + counts.late + counts.broken + counts.settling
        assert done == counts.received - live.pending

    check()


def test_page_shows_the_strongest_regions(parcels):
    import json
    from urllib.error import HTTPError
    from urllib.request import urlopen

    with LivePage(parcels) as page:
        assert page.address.startswith("http://127.0.0.1:")
        assert b"<canvas" in urlopen(page.address).read()
        time_courses = np.zeros((len(parcels.names), 30))
        time_courses[5] = 2e-9
        page.show(np.arange(30) / 10, time_courses, "all well")
        results = json.loads(urlopen(page.address + "now").read())
        assert results["state"] == "all well"
        assert results["seconds"] == 0
        assert results["parcels"][0] == {"name": parcels.names[5], "nAm": [2.0]}
        page.show(np.arange(30) / 10 + 4, 2 * time_courses, "all well")
        results = json.loads(urlopen(page.address + "now").read())
        assert results["seconds"] == 4
        assert results["parcels"][0]["nAm"] == [2.0, 4.0]
        with pytest.raises(HTTPError, match="404"):
            urlopen(page.address + "etc/passwd")


def test_parcels_need_positions(prepared):
    from dataclasses import replace

    from deepesi.physics.atlas import seitzman_parcels

    with pytest.raises(ValueError, match="somebody-ico3 has no MNI positions"):
        seitzman_parcels(replace(prepared.space, name="somebody-ico3"))
    assert load_template().space.name == prepared.space.name


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (2e-2, "recording has 0.00.* times the power .*expected at least 0.01"),
        (2e3, "uV|louder|power"),
    ],
)
def test_a_stream_that_its_noise_cannot_be_of(prepared, parcels, recording, factor, message):
    """From the start an error; later, samples that count as broken."""
    data, times = recording
    with pytest.raises(ValueError, match=message):
        LiveInverse(prepared, parcels, SFREQ).push(factor * data, times)
    live = LiveInverse(prepared, parcels, SFREQ)
    live.push(data, times)
    given, _ = live.push(factor * data, times[-1] + 1 / SFREQ + np.arange(1000) / SFREQ)
    assert live.counts.broken > 0
    assert re.search(message, live.trouble)
    assert live.counts.estimated == 750 + len(given)


@pytest.mark.parametrize(("trials", "said"), [(1, 0), (60, 1)])
def test_a_covariance_divided_by_a_number_of_trials_is_reported(eloreta, parcels, trials, said):
    info, lines = make_evoked().info, []
    covariance = make_covariance(info)
    covariance["data"] = covariance["data"] / trials
    live = LiveInverse(
        Inverse.load(eloreta, n_threads=1).for_recording(info, covariance),
        parcels,
        SFREQ,
        say=lines.append,
    )
    data = np.random.default_rng(0).normal(scale=5e-6, size=(32, 2000))
    live.push(data, 100 + np.arange(2000) / SFREQ)
    assert len(lines) == said
    assert all("times the power of noise" in line and "single trials" in line for line in lines)


def test_offsets_and_drifts_of_electrodes_leave_no_trace(prepared, parcels, recording):
    """The filter takes them out, as of a raw recording."""
    data, times = recording
    rng = np.random.default_rng(1)
    offsets = rng.normal(scale=1e-2, size=(32, 1))
    results = [
        LiveInverse(prepared, parcels, SFREQ).push(data + added, times)[1]
        for added in (0.0, offsets)
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-2, atol=1e-4 * results[0].max())


def test_a_stream_is_of_single_trials(eloreta, parcels):
    info = make_evoked().info
    averages = Inverse.load(eloreta).for_recording(info, make_covariance(info), nave=50)
    with pytest.raises(ValueError, match="prepared for averages of 50 trials, a stream is of"):
        LiveInverse(averages, parcels, SFREQ)


@pytest.mark.parametrize("value", [0.0, 3e-5])
def test_channels_that_are_constant_from_the_start(prepared, parcels, recording, value):
    """One of zeros may be the reference, and is reported; others are not connected."""
    data, times = recording
    data[5] = value
    lines = []
    live = LiveInverse(prepared, parcels, SFREQ, say=lines.append)
    if value:
        with pytest.raises(ValueError, match=rf"\['{prepared.ch_names[5]}'\] are constant, as if"):
            in_chunks(live, data, times, [0, 10, 400])
        return
    in_chunks(live, data, times, [0, 10, 400, 1000])
    assert lines == [f"{prepared.ch_names[5]} is constant, taken for the reference"]
    data[6] = 0.0
    with pytest.raises(ValueError, match=r"\['\w+', '\w+'\] are constant"):
        LiveInverse(prepared, parcels, SFREQ).push(data, times)
