"""The page of `deepesi demo` reads files as MNE-Python does; run in Node.js."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.physics.channel_names import channel_keys, check_channel_names
from deepesi.runtime import demo
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.packaged import model_path
from deepesi.runtime.reading.recording import ReadingOptions, read_recording
from deepesi.runtime.recordings import recording_rows, segments
from deepesi.viz.demo import SCRIPTS, Example, scripts, settings
from tests.conftest import make_covariance, make_evoked

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")

#: Reads files named in JSON on its standard input, as the page does, and writes JSON.
DRIVER = """
const { readFileSync } = require("fs"), { gunzipSync } = require("zlib");
const { basename } = require("path");
const { demo, files } = JSON.parse(readFileSync(0, "utf8"));
const matrix = ({ values }) =>
  new Float64Array(Uint8Array.from(gunzipSync(Buffer.from(values, "base64"))).buffer);
const recordings = recordingsFor(demo, matrix(demo.reference), matrix(demo.whitener));
(async () => {
  const answers = [];
  for (const { path, from } of files)
    try {
      const name = basename(path), file = new File([readFileSync(path)], name);
      const found = await recordings.open(file);
      answers.push(found.map(one => {
        const { data, ...others } = recordings.prepare(one, name, from);
        return { ...others, data: data.map(row => [...row]) };
      }));
    } catch (error) {
      answers.push(error.constructor === Error ? error.message : error.stack);
    }
  process.stdout.write(JSON.stringify(answers));
})();
"""


@pytest.fixture(scope="module")
def inverse():
    info = make_evoked().info
    return Inverse.load("convdip").for_recording(info, make_covariance(info), nave=1)


@pytest.fixture(scope="module")
def read(inverse) -> Callable:
    """Read files on a page for single trials."""
    return reader(inverse, 1.0)


def reader(inverse, nave: float) -> Callable:
    """Read files in one process: lists of recordings, or refusals in words."""
    example = Example("noise", np.arange(2.0), np.zeros((32, 2)))
    page = settings(demo.demo_of(model_path("convdip"), inverse, [example], (0.0, np.inf), nave))
    readers = scripts().split("// Page of `deepesi demo`")[0]

    def run(*files: Path | tuple[Path, float]) -> list:
        jobs = [f if isinstance(f, tuple) else (f, 0.0) for f in files]
        content = {"demo": page, "files": [{"path": str(p), "from": s} for p, s in jobs]}
        done = subprocess.run(
            [NODE, "-e", readers + DRIVER],
            input=json.dumps(content),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def by_python(path: Path, inverse) -> tuple[np.ndarray, np.ndarray]:
    """Times and data ``(C, T)`` of what `deepesi apply` gives to the network, in any reference."""
    recording = read_recording(path, ReadingOptions())
    ready = inverse.correct(recording)
    (segment,) = segments(ready, recording_names(recording, inverse), 60.0)
    times = segment.tmin + np.arange(segment.own.shape[1]) / recording.info["sfreq"]
    return times, segment.own


def recording_names(recording, inverse) -> tuple[str, ...]:
    return tuple(recording.ch_names[row] for row in recording_rows(recording, inverse.ch_names))


def check_same(found: dict, times: np.ndarray, data: np.ndarray) -> None:
    values = np.array(found["data"])
    assert values.shape == data.shape
    assert np.allclose(found["times"], times, atol=1e-6)
    assert np.abs(values - data).max() < 1e-6 * np.abs(data).max()  # files are in float32


def raw_of(data: np.ndarray, names: Sequence[str], first: int = 0, **of_info) -> mne.io.RawArray:
    info = mne.create_info(list(names), 250.0, "eeg")
    info.set_montage("biosemi32", on_missing="ignore")
    raw = mne.io.RawArray(data, info, first_samp=first, verbose="error")
    for key, value in of_info.items():
        with raw.info._unlock():
            raw.info[key] = value
    return raw


@pytest.fixture
def noise(inverse) -> np.ndarray:
    """EEG ``(32, 500)``, V, with offsets."""
    rng = np.random.default_rng(1)
    return rng.normal(scale=4e-6, size=(32, 500)) + rng.normal(scale=2e-5, size=(32, 1))


def test_averages(read, inverse, tmp_path):
    """All averages of a file, in two precisions, zipped or not; standard errors are left out."""
    evoked = make_evoked(n_times=60)
    evoked.nave = 1
    evoked.shift_time(-0.1)
    offset = evoked.copy()
    offset.data += np.linspace(0, 2e-4, 32)[:, None]
    done = evoked.copy().apply_baseline((-0.1, 0.0), verbose="error")
    error = evoked.copy()
    error.kind, error.data, error.comment = "standard_error", np.abs(evoked.data), "error"
    for number, one in enumerate((evoked, offset, done)):
        one.comment = f"condition {number}: µV"
    mne.write_evokeds(tmp_path / "x-ave.fif", [evoked, error, offset, done], verbose="error")
    offset.save(tmp_path / "y-ave.fif.gz", verbose="error")
    error.save(tmp_path / "error-ave.fif", verbose="error")
    several, zipped, refused = read(
        tmp_path / "x-ave.fif", tmp_path / "y-ave.fif.gz", tmp_path / "error-ave.fif"
    )
    assert [one["name"] for one in several] == [
        f"x-ave.fif, condition {number}: µV" for number in range(3)
    ]
    assert several[0]["said"] == ['"error" is no average, left out']
    assert "the mean before 0 ms was subtracted" in several[1]["said"][0]
    assert several[2]["said"] == []
    written = mne.read_evokeds(tmp_path / "x-ave.fif", verbose="error")
    for found, row in zip([*several, *zipped], [0, 2, 3, 2], strict=True):
        one = written[row]
        ready = inverse.correct(one).recording
        check_same(found, ready.times, ready.data)
    assert "it holds no average, only error of another kind" in refused


@pytest.mark.parametrize("kind", ["short", "int", "single", "double"])
def test_raw_fif(kind, read, inverse, noise, tmp_path):
    """Every kind of number; offsets are subtracted as in Python."""
    raw = raw_of(noise, inverse.ch_names, first=700)
    for channel in raw.info["chs"]:
        channel["cal"] = 1e-9  # the step of whole numbers
    raw.save(tmp_path / "x-raw.fif", fmt=kind, verbose="error")
    ((found,),) = read(tmp_path / "x-raw.fif")
    times, data = by_python(tmp_path / "x-raw.fif", inverse)
    check_same(found, times, data)
    assert found["said"] == ["0.00 to 2.00 of 2.0 s", "offsets of channels were subtracted"]


@pytest.mark.parametrize("dated", [True, False])
def test_bad_stretches_and_channels(dated, read, inverse, noise, tmp_path):
    """A part begins and ends where the recording is good; channels of no use are left out."""
    names = [*inverse.ch_names, "X1", "a rather long name: of it"]
    raw = raw_of(np.vstack([noise, noise[:2]]), names, first=1000, bads=[names[-1]])
    if dated:
        raw.set_meas_date(1_000_000_000)
    shift = raw.first_time if dated else 0.0
    marks = mne.Annotations(
        np.array([0.0, 0.8, 1.2, 1.6]) + shift,
        [0.2, 0.1, 0.0, 0.3],
        ["bad start", "BAD eyes", "EDGE boundary", "stimulus"],
        orig_time=raw.info["meas_date"],
    )
    raw.set_annotations(marks)
    raw.save(tmp_path / "x-raw.fif", verbose="error")
    path = tmp_path / "x-raw.fif"
    (start,), (middle,), (end,), none = read(path, (path, 0.85), (path, 1.0), (path, 2.5))
    options = ReadingOptions(exclude=("X1",))  # by itself the page leaves it out
    stretches = inverse.correct(read_recording(path, options)).stretches
    spans = [(s.start, s.stop) for s in stretches]
    assert spans == [(50, 200), (225, 300), (300, 500)]
    for found, (begin, stop) in zip((start, middle), spans, strict=False):
        assert np.allclose(found["times"], np.arange(begin, stop) / 250)
        own = noise[:, begin:stop] - noise[:, begin:stop].mean(1, keepdims=True)
        assert np.allclose(found["data"], own, atol=1e-11)
    assert np.allclose(end["times"], np.arange(250, 300) / 250)
    assert start["name"] == "x-raw.fif (left out: X1)"
    assert "what is annotated bad start, BAD eyes is left out" in start["said"]
    assert "bad, left out: a rather long name: of it" in start["said"]
    assert none.startswith("from 2.5 s on it has no good sample: it ends at 2.0 s")


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
def test_edf_and_bdf(suffix, read, inverse, noise, tmp_path):
    """Two widths of numbers, units, annotations, and names as clinics write them."""
    import edfio

    signal = edfio.EdfSignal if suffix == "edf" else edfio.BdfSignal
    writer = edfio.Edf if suffix == "edf" else edfio.Bdf
    notes = [edfio.EdfAnnotation(1.2, 0.4, "BAD µ"), edfio.EdfAnnotation(0.5, None, "go")]
    signals = [
        signal(
            values * (1e3 if number % 2 else 1e6),
            250,
            label=f"EEG {name}-REF",
            physical_dimension="mV" if number % 2 else "uV",
        )
        for number, (name, values) in enumerate(zip(inverse.ch_names, noise, strict=True))
    ]
    signals.append(signal(noise[0], 10 * 25, label="ECG", physical_dimension="bpm"))
    writer(signals, annotations=notes).write(tmp_path / f"x.{suffix}")
    ((found,),) = read(tmp_path / f"x.{suffix}")
    raw = mne.io.read_raw(tmp_path / f"x.{suffix}", preload=True, verbose="error")
    assert len(found["times"]) == 300
    own = raw.get_data()[:32, :300]
    check_same(found, raw.times[:300], own - own.mean(1, keepdims=True))
    assert found["name"] == f"x.{suffix} (left out: ECG)"
    assert found["said"][0] == "2 annotations"
    assert "what is annotated BAD µ is left out" in found["said"]


def test_files_of_electrodes_in_other_order(read, inverse, noise, tmp_path):
    """Channels come in the order of the network, in any spelling."""
    names = [f"EEG {name.upper()}-LE" for name in inverse.ch_names[::-1]]
    raw_of(noise[::-1], names).save(tmp_path / "x-raw.fif", verbose="error")
    ((found,),) = read(tmp_path / "x-raw.fif")
    check_same(found, np.arange(500) / 250, noise - noise.mean(1, keepdims=True))


def damage(path: Path, out: Path, place: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    out.write_bytes(data)
    return out


def test_refusals_of_fif(read, inverse, noise, tmp_path):
    """The page refuses the same files as `deepesi apply`, with similar messages."""

    def saved(name: str, raw, **options) -> Path:
        raw.save(tmp_path / name, verbose="error", **options)
        return tmp_path / name

    names = list(inverse.ch_names)
    bipolar = [f"{a}-{b}" for a, b in zip(names, names[1:] + names[:1], strict=True)]
    mixed = [f"EEG {n}-{'A1' if k % 2 else 'A2'}" for k, n in enumerate(names)]
    epochs = mne.EpochsArray(noise.reshape(32, 5, 100).swapaxes(0, 1), raw_of(noise, names).info)
    epochs.save(tmp_path / "x-epo.fif", verbose="error")
    evoked = make_evoked()
    evoked.nave = 7
    evoked.save(tmp_path / "seven-ave.fif")
    imaginary = mne.EvokedArray(noise + 0j, raw_of(noise, names).info)
    imaginary.save(tmp_path / "complex-ave.fif", verbose="error")
    later = make_evoked()
    later.nave = 1
    later.data += np.linspace(0, 6e-4, 32)[:, None]
    later.save(tmp_path / "later-ave.fif")
    eog = raw_of(noise, names).set_channel_types(dict.fromkeys(names, "eog"), verbose="error")
    two = raw_of(noise, names)
    mne.set_bipolar_reference(two, "Fz", "Cz", copy=False, verbose="error")
    flat, loud = noise.copy(), noise.copy()
    flat[:2] = 3e-6
    loud[3] *= 1e6
    whole = saved("good-raw.fif", raw_of(noise, names))
    cases = {
        saved("missing-raw.fif", raw_of(noise[2:], names[2:])): r"channels Fp1, AF3 are missing",
        saved("bad-raw.fif", raw_of(noise, names, bads=["Fz"])): r"Fz are missing \(marked bad: Fz",
        saved("bipolar-raw.fif", raw_of(noise, bipolar)): r"Fp1-AF3.* are derivations between two",
        saved("coil-raw.fif", two): r"channels Fz-Cz are bipolar derivations",
        saved("mixed-raw.fif", raw_of(noise, mixed)): r"different references \(A2, A1\)",
        saved("eog-raw.fif", eog): r"no EEG channels, only 32 of other kinds",
        saved("micro-raw.fif", raw_of(1e6 * noise, names)): r"look like microvolts",
        saved("flat-raw.fif", raw_of(flat, names)): r"channels Fp1, AF3 are constant",
        saved("loud-raw.fif", raw_of(loud, names)): r"channels F3 are much larger than the others",
        tmp_path / "complex-ave.fif": r"values are complex",
        tmp_path / "x-epo.fif": r"it holds epochs\. Average them",
        tmp_path / "seven-ave.fif": r"is an average of 7 trials, .* for an average of 1 trial:",
        tmp_path / "later-ave.fif": r"no time before 0 to subtract",
        damage(whole, tmp_path / "a-raw.fif", 0, b"GIF89a"): r"does not begin as FIF files do",
    }
    (tmp_path / "short-raw.fif").write_bytes(whole.read_bytes()[:-5000])
    (tmp_path / "x.vhdr").write_text("Brain Vision")
    cases[tmp_path / "short-raw.fif"] = r"the file ends within a value\. It is damaged"
    cases[tmp_path / "x.vhdr"] = r"ends in none of \.fif"
    check_refused(read, cases)


def test_a_raw_recording_on_a_page_for_an_average(inverse, noise, tmp_path):
    raw_of(noise, inverse.ch_names).save(tmp_path / "x-raw.fif", verbose="error")
    message = r"it is a raw recording, the page is for an average of 7 trials: its noise"
    check_refused(reader(inverse, 7.0), {tmp_path / "x-raw.fif": message})


def check_refused(read, cases: dict[Path, str]) -> None:
    for (path, message), said in zip(cases.items(), read(*cases), strict=True):
        assert isinstance(said, str), path.name
        assert re.search(message, said), f"{path.name}: {said}"


def test_refusals_of_edf(read, inverse, noise, tmp_path):
    import edfio

    def written(name: str, unit: str = "uV", rates: Sequence[int] = (250,) * 32) -> Path:
        signals = [
            edfio.EdfSignal(1e6 * v[: 2 * rate], rate, label=n, physical_dimension=unit)
            for n, v, rate in zip(inverse.ch_names, noise, rates, strict=True)
        ]
        edfio.Edf(signals).write(tmp_path / name)
        return tmp_path / name

    good = written("good.edf")
    header = 256 * 33
    (tmp_path / "ends.edf").write_bytes(good.read_bytes()[: header + 40])
    (tmp_path / "tiny.edf").write_bytes(b"0" * 100)
    place = 256 + 32 * (16 + 80 + 8)  # the first physical minimum
    cases = {
        written("none.edf", ""): r"names no unit for Fp1, expected V",
        written("other.edf", "kg"): r'the unit "kg" for Fp1.*apply --unit uV',
        written("rates.edf", rates=[250] * 31 + [125]): r"sampling rates \(250, 125 Hz\)",
        tmp_path / "ends.edf": r"ends before the first record",
        tmp_path / "tiny.edf": r"shorter than a header.*no EDF file",
        damage(good, tmp_path / "n.edf", 252, b"x   "): r"number of channels is no number",
        damage(good, tmp_path / "p.edf", place, b"abc     "): r"physical limit is no number",
    }
    check_refused(read, cases)
    (tmp_path / "cut.edf").write_bytes(good.read_bytes()[: header + 32 * 250 * 2 + 10])
    ((found,),) = read(tmp_path / "cut.edf")
    assert len(found["times"]) == 250
    assert found["said"][0] == "the file ends after 1 of 2 records"


def test_spellings_are_those_of_python(inverse, tmp_path):
    """Keys, derivations and references of names, for all that the tests of Python know."""
    from deepesi.viz.demo import spellings

    groups = [
        [
            "EEG FP1-REF",
            "Fp2-LE",
            "Cz.",
            "t3",
            "T7",
            "POL O1",
            "EEG-Pz",
            "F7LE",
            "A1",
            "E12",
            "Oz ",
        ],
        ["F3-Cz", "F4-Cz", "P3-Cz", "ECG"],
        ["Fp1-F7", "F7-T3", "T3-T5", "Fz-A1"],
        ["EEG Fp1-A1A2", "EEG Fp2-(A1+A2)/2", "EEG F3–M1", "Fz_Cz", "X Y", "EEG 001", "F3 Ref"],
        ["EEG Fp1-EEG F3", "Fp2-F4-0", "Fp2-F4-1", "VEOG", "EMG1-EMG2"],
    ]
    script = scripts().split("// Reads CSV")[0] + (
        "const { keys, derivations, referencesOf } = channelNames(input.lists);"
        "const answers = names => [keys(names), derivations(names), referencesOf(names)];"
        "process.stdout.write(JSON.stringify(input.groups.map(answers)));"
    )
    given = json.dumps({"lists": spellings(), "groups": groups})
    done = subprocess.run(
        [NODE, "-e", f"const input = {given};\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    for names, (keys, derived, references) in zip(groups, json.loads(done.stdout), strict=True):
        assert keys == channel_keys(names)
        said = refusal_of(names)
        assert ("bipolar" in said) == bool(derived)
        if not derived:
            assert ("different ref" in said) == (len(references) > 1)


def refusal_of(names: Sequence[str]) -> str:
    """Error of Python for some names; empty if they are accepted."""
    try:
        check_channel_names(names)
    except ValueError as error:
        return str(error)
    return ""


def test_every_script_is_in_the_page():
    folder = Path(demo.__file__).parents[1] / "viz" / "web" / "demo"
    assert set(SCRIPTS) == {path.name for path in folder.glob("*.js")}
