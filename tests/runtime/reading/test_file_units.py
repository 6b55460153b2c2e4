"""Units that the headers of files name."""

from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.runtime.reading.recording import ReadingOptions, read_recording


@pytest.mark.parametrize(
    ("unit", "volts"),
    [
        (b"uV", 1e-6),
        (b"\xb5V", 1e-6),
        (b"\xc2\xb5V", 1e-6),
        (b"\xce\xbcV", 1e-6),
        (b"mV", 1e-3),
        (b"nV", 1e-9),
    ],
)
def test_units_of_edf_are_known_in_any_code(unit: bytes, volts: float, tmp_path: Path) -> None:
    names = ["Fp1", "Fp2", "Cz"]
    data = 2e-5 * np.random.default_rng(0).normal(size=(3, 1000))
    path = tmp_path / "x.edf"
    raw = mne.io.RawArray(data, mne.create_info(names, 250.0, "eeg"), verbose="error")
    mne.export.export_raw(path, raw, verbose="error")
    content = bytearray(path.read_bytes())
    n_channels = int(content[252:256])
    for row in range(len(names)):
        start = 256 + 96 * n_channels + 8 * row
        assert content[start : start + 8].strip() == b"uV"
        content[start : start + 8] = unit.ljust(8)
    path.write_bytes(content)
    read = read_recording(path, ReadingOptions()).get_data(names)
    np.testing.assert_allclose(read, data * volts / 1e-6, atol=1e-8 * volts / 1e-6)
