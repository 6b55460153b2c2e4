"""Channels with sampling rates of their own, and equal names, in EDF."""

from pathlib import Path

import numpy as np
import pytest

from deepesi.physics.montage import TEN_TWENTY
from deepesi.runtime.reading.recording import ReadingOptions, read_recording

edfio = pytest.importorskip("edfio")
RATE, SECONDS = 128, 4


def write(path: Path, rates: dict[str, int], names: list[str] | None = None) -> np.ndarray:
    """EDF of noise; returns the values of its first channel, V."""
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(scale=4.0, size=rate * SECONDS) for name, rate in rates.items()}
    signals = [
        edfio.EdfSignal(
            row, rates[name], label=label, physical_dimension="uV", physical_range=(-50, 50)
        )
        for label, (name, row) in zip(names or rates, rows.items(), strict=True)
    ]
    edfio.Edf(signals).write(path)
    return 1e-6 * next(iter(rows.values()))


def read(path: Path, *exclude: str):
    return read_recording(path, ReadingOptions(montage="10-20-19", exclude=exclude))


EEG = dict.fromkeys(TEN_TWENTY, RATE)


def test_a_faster_channel_that_is_excluded_leaves_the_others_as_they_are(tmp_path):
    path = tmp_path / "x.edf"
    first = write(path, EEG | {"ECG": 4 * RATE, "EMG": 2 * RATE, "Temp": 1})
    raw = read(path, "ECG", "EMG", "Temp")
    assert raw.info["sfreq"] == RATE
    assert raw.ch_names == list(TEN_TWENTY)
    np.testing.assert_allclose(raw.get_data([0])[0], first, atol=2e-9)


@pytest.mark.parametrize(
    ("rates", "exclude", "message"),
    [
        (EEG | {"ECG": 512}, (), r"EEG is sampled at 128 Hz, and ECG at 512.*\(--exclude ECG\)"),
        (EEG | {"ECG": 512, "E M": 256}, ("ECG",), r"E M at 256 Hz.*\(--exclude 'E M'\)"),
        (EEG | {"F3": 64}, (), r"F3 at 64 Hz.*all to 128 Hz in pieces.*\(--exclude F3\)"),
        (EEG, TEN_TWENTY, "--exclude names all of its 19 channels"),
        (EEG, ("cz",), r"no channels \['cz'\] to exclude; it has \['Fp1'"),
    ],
)
def test_eeg_that_would_be_resampled_in_pieces_is_refused(tmp_path, rates, exclude, message):
    path = tmp_path / "x.edf"
    write(path, rates)
    with pytest.raises(ValueError, match=message):
        read(path, *exclude)


def test_two_channels_of_one_name(tmp_path):
    path = tmp_path / "x.edf"
    write(path, EEG | {"again": RATE}, [*TEN_TWENTY, "Cz"])
    with pytest.raises(ValueError, match=r"\['Cz-0', 'Cz-1'\] are one electrode.*--exclude"):
        read(path)
    assert read(path, "Cz-1").ch_names == list(TEN_TWENTY)
