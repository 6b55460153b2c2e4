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
    with pytest.raises(ValueError, match=r"1 gap\(s\), the longest of 100 s.*file of its own"):
        check_uninterrupted(path)
    with pytest.raises(ValueError, match="interrupted by 1 gap"):
        read_recording(path, ReadingOptions(montage="10-20-19"))


def test_a_record_without_its_time_hides_no_gap(tmp_path):
    path = tmp_path / "x.edf"
    for gap in (0, 100):
        write(path, b"EDF+D", gap)
        content = path.read_bytes()
        at = content.index(b"+%d\x14\x14" % (6 + gap))
        path.write_bytes(content[:at] + bytes(6) + content[at + 6 :])
        if gap:
            with pytest.raises(ValueError, match="interrupted by 1 gap"):
                check_uninterrupted(path)
        else:
            check_uninterrupted(path)
