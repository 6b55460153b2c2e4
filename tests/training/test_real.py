"""Streams of real recordings, on generated files."""

import tracemalloc
import warnings
from itertools import islice, pairwise

import mne
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deepesi.physics.noise import rank_of
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.training.mixed import MixedRecordings
from deepesi.training.real import N_OPEN, VISIT, RealRecordings, _Epoch, _Shuffle
from deepesi.training.real_files import channel_noise, find_files, read_header
from tests.training.recordings import save_raws, simulated_raw


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    """Two recordings of 32 and one of 16 channels."""
    folder = tmp_path_factory.mktemp("real")
    save_raws(folder, toy, 2, seconds=8)
    simulated_raw(toy, 9, 8, montage="biosemi16").save(folder / "small_raw.fif", verbose="error")
    return folder


@pytest.fixture
def stream(toy, folder):
    def make(files=folder, **settings):
        return RealRecordings(files, toy, **({"batch_size": 4, "n_times": 10} | settings))

    return make


def windows(stream, n):
    """Origin and first sample of every window of `n` batches."""
    batches = [stream.batch(step) for step in range(n)]
    return [(b.origin, int(start)) for b in batches for start in b.starts]


def test_every_window_once_per_epoch_over_all_files(stream):
    real = stream()
    seen = windows(real, real.n_batches)
    # 8 s at 100 Hz: the first 80 %, less a margin of 1 s, in windows of 10 samples.
    assert len(seen) == len(set(seen)) == 3 * 54
    assert len({origin for origin, _ in seen[:12]}) == 3  # files take turns
    again = windows(real, 2 * real.n_batches)
    assert again[: len(seen)] == seen
    assert sorted(again[len(seen) :]) == sorted(seen)
    assert again[len(seen) :] != seen
    assert windows(stream(seed=1), real.n_batches) != seen


def test_any_step_at_once(stream):
    """A resumed run gets the batches of an uninterrupted one."""
    first, second = stream(), stream()
    for step in range(7):
        first.batch(step)
    for step in (7, 3, 100):
        one, other = first.batch(step), second.batch(step)
        assert torch.equal(one.data, other.data)
        assert (one.origin, one.key) == (other.origin, (0, "train", 0, step))


def test_every_recording_has_its_own_setup(stream, toy):
    batches = {stream().batch(step).data.shape[1]: stream().batch(step) for step in range(3)}
    assert batches.keys() == {16, 32}
    for n_channels, batch in batches.items():
        assert len(batch.head.sensors) == n_channels
        assert batch.head.sensors.is_referenced(batch.data[0].double().numpy())
        assert rank_of(batch.head.noise_cov) == n_channels - 1
        # The noise of the channels is 1 µV, of the recording 10 µV.
        assert 0.8e-6 < batch.head.noise_level < 4e-6
        assert 3e-6 < float(batch.data.std()) < 1.5e-5


def test_windows_are_those_of_the_file(stream, folder):
    batch = stream(folder / "rec0_raw.fif").batch(0)
    raw = mne.io.read_raw(folder / "rec0_raw.fif", verbose="error")
    start = int(batch.starts[1])
    first, last = max(start - 50, 0), min(start + 60, 540)
    data = raw.get_data("eeg", first, last)
    data -= data.mean(1, keepdims=True)
    data -= data.mean(0)
    expected = data[:, start - first : start - first + 10]
    assert np.allclose(batch.data[1], expected, atol=1e-5 * np.abs(expected).max())


def test_rank_follows_the_recording(stream, toy, tmp_path):
    """Two interpolated channels take two dimensions."""
    raw = simulated_raw(toy, 0, 8)
    raw.info["bads"] = raw.ch_names[:2]
    raw.interpolate_bads(verbose="error")
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    batch = stream(tmp_path).batch(0)
    assert batch.data.shape[1] == 32
    assert rank_of(batch.head.noise_cov) == 29


def test_noise_of_channels():
    """Exact for white noise, and what neighbours share is not noise."""
    projector = np.eye(8) - 1 / 8
    assert np.allclose(channel_noise(4 * np.eye(8)), 4 * np.eye(8))
    assert np.allclose(channel_noise(4 * projector), 4 * projector)
    shared = np.eye(8) + 100 * np.outer(np.arange(8), np.arange(8))
    assert np.trace(channel_noise(shared)) < 10


def test_a_silent_channel_has_no_noise_and_leaves_the_others():
    noise = channel_noise(np.diag([1.0, 2.0, 0.0, 3.0]))
    assert np.allclose(noise, np.diag([1.0, 2.0, 0.0, 3.0]))


def test_parts_of_a_split_recording_are_read_once(stream, toy, tmp_path):
    """Else windows of validation would be trained on, through the name of a later part."""
    raw = simulated_raw(toy, 0, 300)
    raw.save(tmp_path / "x_raw.fif", split_size="2MB", buffer_size_sec=1, verbose="error")
    assert len(list(tmp_path.iterdir())) > 1
    assert [file.path.name for file in stream(tmp_path).files] == ["x_raw.fif"]
    with pytest.raises(ValueError, match=r"x_raw-1.fif is a later part of a split recording"):
        stream([tmp_path / "x_raw-1.fif"])


def test_validation_is_the_end_of_every_recording(stream):
    train, validation = stream(), stream(split="validation")
    first = {
        o: max(s for p, s in windows(train, train.n_batches) if p == o)
        for o, _ in windows(train, 3)
    }
    for origin, start in windows(validation, validation.n_batches):
        assert start >= 640 > first[origin] + 10 + 50  # and a margin between


def test_validation_files_of_their_own(stream, folder):
    own = {"files": [folder / "rec0_raw.fif"], "validation_files": [folder / "rec1_raw.fif"]}
    assert {o for o, _ in windows(stream(**own), 5)} == {str(folder / "rec0_raw.fif")}
    validation = stream(**own, split="validation")
    assert {o for o, _ in windows(validation, 5)} == {str(folder / "rec1_raw.fif")}
    with pytest.raises(
        ValueError, match=r"1 files are used for training and for validation: \['rec1"
    ):
        stream(validation_files=[folder / "rec1_raw.fif"])


def test_evaluated_files_are_refused(stream, folder):
    with pytest.raises(ValueError, match=r"1 files are used here and evaluated later: \['rec1_raw"):
        stream(evaluated=[folder / "rec1_raw.fif"])


@pytest.mark.slow
def test_workers_neither_hang_nor_repeat(stream):
    real = stream()
    loader = DataLoader(real, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    batches = list(islice(iter(loader), 6))
    assert [b.key[3] for b in batches] == [0, 1, 2, 3, 4, 5]
    for step, batch in enumerate(batches):
        assert torch.equal(batch.data, real.batch(step).data)


def test_epochs_with_a_noise_window(stream, toy, tmp_path):
    raw = simulated_raw(toy, 0, 20)
    events = np.array([[100 * k, 0, 1] for k in range(1, 19)])
    epochs = mne.Epochs(raw, events, tmin=-0.3, tmax=0.49, baseline=None, verbose="error")
    epochs.save(tmp_path / "x-epo.fif", verbose="error")
    batch = stream(tmp_path, noise=(-0.3, 0.0), n_times=20).batch(0)
    assert batch.data.shape == (4, 32, 20)
    assert 5e-6 < batch.head.noise_level < 2e-5  # activity before time 0 is noise, too
    number, first = divmod(int(batch.starts[0]), 80)
    data = epochs[number].get_data(verbose="error")[0]
    data -= data[:, max(first - 50, 0) : first + 70].mean(1, keepdims=True)
    data -= data.mean(0)
    assert np.allclose(batch.data[0], data[:, first : first + 20], atol=1e-9)


def test_bad_epochs_are_left_out(stream, toy, tmp_path):
    raw = simulated_raw(toy, 0, 8)
    raw.set_annotations(mne.Annotations([2.0], [0.5], ["BAD_movement"]))
    events = np.array([[100 * k, 0, 1] for k in range(8)])
    epochs = mne.Epochs(
        raw, events, tmax=0.99, tmin=0, baseline=None, reject_by_annotation=False, verbose="error"
    )
    epochs.save(tmp_path / "x-epo.fif", verbose="error")
    file = read_header(tmp_path / "x-epo.fif", ReadingOptions())
    assert file.spans[:, 0].tolist() == [0, 100, 300, 400, 500, 600, 700]


def test_bad_stretches_are_left_out(stream, toy, tmp_path):
    raw = simulated_raw(toy, 0, 8)
    raw.set_annotations(mne.Annotations([1.0], [2.0], ["BAD_movement"]))
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    real = stream(tmp_path)
    starts = [start for _, start in windows(real, real.n_batches)]
    assert starts
    assert not [start for start in starts if 90 < start < 300]


def test_a_file_that_breaks_in_the_middle(stream, toy, tmp_path):
    """Skipped where it is damaged, named and counted; the run goes on."""
    paths = save_raws(tmp_path, toy, 2, seconds=8)
    real = stream(tmp_path)
    size = paths[0].stat().st_size
    real.batch(0)
    with paths[0].open("r+b") as file:
        file.truncate(size // 2)
    with pytest.warns(UserWarning, match="rec0_raw.fif is skipped where .*1 of 2 files are broken"):
        batches = [real.batch(step) for step in range(real.n_batches)]
    assert len(batches) == real.n_batches
    assert real.broken.keys() == {str(paths[0])}
    assert real.broken[str(paths[0])] > 0
    again = stream(tmp_path)  # resumed: the same batches are lost and replaced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(again.batch(9).data, batches[9].data)


def test_all_files_gone(stream, toy, tmp_path):
    (path,) = save_raws(tmp_path, toy, 1, seconds=8)
    real = stream(tmp_path)
    path.unlink()
    with (
        pytest.warns(UserWarning, match="rec0_raw.fif is skipped"),
        pytest.raises(
            ValueError, match="64 batches in a row could not be read.*{.*rec0_raw.fif': 64"
        ),
    ):
        real.batch(0)


def test_damaged_files_at_the_start_are_listed(stream, folder, tmp_path):
    for name in ("rec0_raw.fif", "rec1_raw.fif"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "cut_raw.fif").write_bytes((folder / "rec0_raw.fif").read_bytes()[:500])
    raw = mne.io.RawArray(np.zeros((2, 500)), mne.create_info(2, 100.0, "ecg"), verbose="error")
    raw.save(tmp_path / "heart_raw.fif", verbose="error")
    real = stream(tmp_path)
    (note,) = real.limits
    assert note.startswith("2 of 4 files are skipped")
    assert "cut_raw.fif" in note
    assert "heart_raw.fif: recording: it has no EEG channels, only ecg" in note
    assert len(real.files) == 2


def test_channel_types_are_grouped_or_refused(stream, toy, tmp_path):
    """EEG is used, without the other channels of its file; files of other types are counted."""
    eeg = simulated_raw(toy, 0, 8)
    eeg.set_channel_types(dict.fromkeys(eeg.ch_names[:2], "eog"), verbose="error")
    eeg.save(tmp_path / "eeg_raw.fif", verbose="error")
    for number, kind in enumerate(("mag", "mag", "seeg")):
        info = mne.create_info([f"{kind}{k}" for k in range(9)], 100.0, kind)
        raw = mne.io.RawArray(np.ones((9, 500)), info, verbose="error")
        raw.save(tmp_path / f"{kind}{number}_raw.fif", verbose="error")
    real = stream(tmp_path)
    assert real.batch(0).data.shape == (4, 30, 10)
    (note,) = real.limits
    assert note.startswith("3 of 4 files are skipped")
    for name, kind in (("mag0", "mag"), ("mag1", "mag"), ("seeg2", "seeg")):
        assert f"{name}_raw.fif: recording: it has no EEG channels, only {kind}" in note
    (tmp_path / "eeg_raw.fif").unlink()
    with pytest.raises(ValueError, match=r"no file is usable. 3 of 3 files are skipped.*only mag"):
        stream(tmp_path)


def test_folder_without_eeg(stream, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "a-cov.fif").write_text("none")
    with pytest.raises(
        ValueError, match=r"holds no EEG: .*1 .txt.*Expected files that end in .fif"
    ):
        stream(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no .*nowhere"):
        stream(tmp_path / "nowhere")


def test_averages_only(stream, toy, tmp_path):
    raw = simulated_raw(toy, 0, 2)
    mne.EvokedArray(raw.get_data(), raw.info, nave=9).save(tmp_path / "mean.fif", verbose="error")
    with pytest.raises(ValueError, match=r"no file is usable.*1 of 1.*average, whose noise"):
        stream(tmp_path)


def test_sampling_rates_are_grouped_or_refused(stream, toy, tmp_path):
    save_raws(tmp_path, toy, 2, seconds=8)
    simulated_raw(toy, 3, 8, 200.0).save(tmp_path / "fast_raw.fif", verbose="error")
    with pytest.raises(ValueError, match="different sampling rates: 2 at 100 Hz, 1 at 200 Hz"):
        stream(tmp_path)
    fast = stream(tmp_path, sfreq=200.0)
    assert [file.path.name for file in fast.files] == ["fast_raw.fif"]
    assert fast.limits == ["Only the files at 200 Hz are used, of 2 at 100 Hz, 1 at 200 Hz."]
    with pytest.raises(ValueError, match="no file at 500 Hz; there are 2 at 100 Hz, 1 at 200 Hz"):
        stream(tmp_path, sfreq=500.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": []}, "no recordings are given. Name files or folders"),
        ({"batch_size": 0}, "batch_size and n_times must be 1 or more, got 0 and 10"),
        ({"n_times": 700}, "none of 3 recordings holds a good stretch of 700 samples for train"),
    ],
)
def test_sizes(stream, settings, message):
    with pytest.raises(ValueError, match=message):
        stream(**settings)


def test_a_data_set_in_bids(stream, toy, tmp_path):
    import mne_bids

    raw = simulated_raw(toy, 0, 8)
    raw.info["line_freq"] = 50
    path = mne_bids.BIDSPath(subject="01", task="rest", datatype="eeg", root=tmp_path)
    mne_bids.write_raw_bids(raw, path, format="BrainVision", allow_preload=True, verbose="error")
    assert [path.name for path in find_files(tmp_path)] == ["sub-01_task-rest_eeg.vhdr"]
    assert stream(tmp_path).batch(0).data.shape == (4, 32, 10)


def test_memory_does_not_grow_with_the_recordings(stream, toy, tmp_path):
    """Ten times the data, the same peak."""

    def peak(seconds):
        raw = simulated_raw(toy, 0, seconds, montage="biosemi16")
        path = tmp_path / f"{seconds}_raw.fif"
        raw.save(path, verbose="error")
        real = stream(path)
        real.batch(0)
        tracemalloc.start()
        for step in range(20):
            real.batch(step)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(400) < 1.2 * peak(40) < 5e6


def test_order_of_an_epoch():
    """Every block once; no more than `N_OPEN` files at a time; unequal files."""
    n_blocks = np.array([3, 100, 40, 1, 17, 16, 5])
    epoch = _Epoch.draw(n_blocks, np.random.default_rng(0))
    order = [epoch.block(position) for position in range(n_blocks.sum())]
    assert sorted(order) == [(f, b) for f, n in enumerate(n_blocks) for b in range(n)]
    assert len(epoch.visits) == -(-n_blocks // VISIT) @ np.ones(7)
    ends = [0, *epoch.ends]
    for first, last in pairwise(ends):
        assert len({file for file, _ in order[first:last]}) <= N_OPEN


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1000])
def test_shuffle_is_a_permutation(n):
    shuffle = _Shuffle.draw(n, [0])
    assert sorted(shuffle[k] for k in range(n)) == list(range(n))


def test_mixed_with_simulated_batches_at_a_ratio(stream, simulate):
    simulated = simulate(batch_size=6)
    mixed = MixedRecordings(simulated, stream())
    batch = mixed.batch(3)
    assert (len(batch.simulated.data), len(batch.unlabelled.data)) == (6, 4)
    assert torch.equal(batch.simulated.data, simulated.batch(3).data)
    assert (mixed.split, mixed.batch_size, batch.key) == ("train", 6, (0, "train", 0, 3))


def test_targets_of_another_simulated_domain_are_taken_away(simulate):
    other = MixedRecordings(simulate(), simulate(seed=1)).batch(0).unlabelled
    assert not hasattr(other, "sources")
    assert not hasattr(other, "scene")
    assert torch.equal(other.data, simulate(seed=1).batch(0).data)
