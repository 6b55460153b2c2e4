"""EDF+ of an interrupted recording: MNE-Python reads it as if it had no gaps."""

from pathlib import Path

import numpy as np
import pytest

from deepesi.physics.montage import TEN_TWENTY
from deepesi.runtime.reading.edf_gaps import check_uninterrupted
from deepesi.runtime.reading.recording import ReadingOptions, read_recording

edfio = pytest.importorskip("edfio")
RATE, SECONDS = 128, 12


def write(path: Path, kind: bytes, gap: int = 0) -> None:
    """EDF+ (or BDF+) of noise with records of 1 s, from the seventh on `gap` s later."""
    rng = np.random.default_rng(0)
    signal, container = (
        (edfio.EdfSignal, edfio.Edf) if path.suffix == ".edf" else (edfio.BdfSignal, edfio.Bdf)
    )
    signals = [
        signal(
            rng.normal(scale=4.0, size=RATE * SECONDS), RATE, label=name, physical_dimension="uV"
        )
        for name in TEN_TWENTY
    ]
    mark = edfio.EdfAnnotation(1, None, "stimulus")
    container(signals, annotations=[mark], data_record_duration=1).write(path)
    content = bytearray(path.read_bytes())
    content[192:197] = kind
    for second in range(6, SECONDS) if gap else ():
        old, new = (b"+%d\x14\x14" % s for s in (second, second + gap))
        start = content.index(old + b"\x00")
        content[start : start + len(new)] = new
    path.write_bytes(content)


@pytest.mark.parametrize(("suffix", "kind"), [(".edf", b"EDF+"), (".bdf", b"BDF+")])
def test_gaps_are_refused(tmp_path, suffix, kind):
    if suffix == ".bdf" and not hasattr(edfio, "Bdf"):
        pytest.skip("this version of edfio writes no BDF")
    path = tmp_path / f"x{suffix}"
    for letter, gap in ((b"C", 0), (b"D", 0)):  # some devices say D without any gap
        write(path, kind + letter, gap)
        check_uninterrupted(path)
    write(path, kind + b"D", gap=100)
    with pytest.raises(ValueError, match=r"has 1 gaps, of up to 100 s \(EDF\+D\).*file of its own"):
        check_uninterrupted(path)
    with pytest.raises(ValueError, match="has 1 gaps"):
        read_recording(path, ReadingOptions(montage="10-20-19"))
