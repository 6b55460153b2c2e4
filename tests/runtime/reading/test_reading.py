"""Names, units and formats of recordings of clinics and amplifiers at ``deepesi apply``."""

import re
import struct
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.physics.montage import TEN_TWENTY
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.reading.recording import ReadingOptions, read_recording, read_setup
from tests.conftest import make_covariance, make_evoked

RATE, SECONDS = 128, 10
OLD = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
CLINICAL = [f"EEG {OLD.get(name, name).upper()}-REF" for name in TEN_TWENTY]
MONTAGE = ReadingOptions(montage="10-20-19")


def potentials(n_channels: int = 19) -> np.ndarray:
    """Noise of 4 µV around an offset, V."""
    rng = np.random.default_rng(0)
    return 1e-5 + rng.normal(scale=4e-6, size=(n_channels, RATE * SECONDS))


def write_edf(path: Path, names: list[str], units: list[str], data: np.ndarray) -> Path:
    """EDF or BDF, numbers as given."""
    edfio = pytest.importorskip("edfio")
    kind, signal = (
        (edfio.Edf, edfio.EdfSignal) if path.suffix == ".edf" else (edfio.Bdf, edfio.BdfSignal)
    )
    signals = []
    for name, unit, row in zip(names, units, data, strict=True):
        top = float(f"{1.1 * np.abs(row).max():.4g}")
        signals.append(
            signal(row, RATE, label=name, physical_dimension=unit, physical_range=(-top, top))
        )
    kind(signals).write(path)
    return path


def write_gdf(path: Path, names: list[str], unit: str | int, data: np.ndarray) -> Path:
    """GDF 1.25 (``unit`` in letters) or 2.20 (its code), after the reader of MNE-Python."""
    n, n_samples = data.shape
    fields = [name.encode().ljust(16) for name in names] + [bytes(80)] * n
    if isinstance(unit, str):
        head = b"GDF 1.25" + bytes(160) + b"2020010100000000" + struct.pack("<q", 256 + 256 * n)
        head += bytes(24 + 20) + struct.pack("<qIII", 1, SECONDS, 1, n)
        fields += [unit.encode().ljust(8)] * n
        fields += [struct.pack(f"<{n}d", *[x] * n) for x in (-1000.0, 1000.0)]
        fields += [struct.pack(f"<{n}q", *[x] * n) for x in (-1000, 1000)]
        fields += [bytes(80)] * n
        tail = bytes(32) * n
    else:
        head = b"GDF 2.20" + bytes(66 + 10 + 4 + 64 + 16 + 16)
        head += struct.pack("<H", 1 + n) + bytes(6 + 8 + 6 + 6 + 24)
        head += struct.pack("<qIIHH", 1, SECONDS, 1, n, 0)
        fields += [bytes(6)] * n + [struct.pack("<H", unit)] * n
        fields += [struct.pack(f"<{n}d", *[x] * n) for x in (-1000.0, 1000.0, -1000.0, 1000.0)]
        fields += [bytes(68)] * n + [struct.pack(f"<{3 * n}f", *[0.0] * 3 * n)]
        tail = bytes(4 * 3 * n + 20 * n)
    fields += [struct.pack(f"<{2 * n}i", *[n_samples] * n, *[16] * n)]  # 16: float32
    path.write_bytes(head + b"".join(fields) + tail + data.astype("<f4").tobytes() + bytes(8))
    return path


def read(path: Path, **options) -> mne.io.BaseRaw:
    return read_recording(path, ReadingOptions(montage="10-20-19", **options))


@pytest.fixture(scope="module")
def eloreta(toy_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "e.onnx"
    main(
        ["export", "eloreta", "--head", str(toy_path), "--montage", "biosemi16", "--out", str(path)]
    )
    return path


@pytest.fixture
def run(eloreta, toy_path, tmp_path, monkeypatch):
    """Runs ``deepesi apply`` or ``prepare`` on a recording and returns what it estimated first."""
    monkeypatch.chdir(tmp_path)

    def command(recording, *more, out="out"):
        main(["apply", str(eloreta), str(recording), "--head", str(toy_path), "--out", out, *more])
        return mne.read_source_estimate(f"{out}-0000").data

    return command


def test_clinical_names_give_the_estimate_of_plain_ones(run, tmp_path, capsys):
    data = 1e6 * potentials()
    write_edf(tmp_path / "plain.edf", list(TEN_TWENTY), ["uV"] * 19, data)
    write_edf(tmp_path / "clinical.edf", CLINICAL, ["uV"] * 19, data)
    more = ["--montage", "10-20-19", "--noise-from", "0", "5"]
    expected = run("plain.edf", *more)
    assert "renamed" not in capsys.readouterr().out
    assert np.array_equal(run("clinical.edf", *more), expected)
    said = capsys.readouterr().out
    assert said.startswith("channels renamed: EEG FP1-REF -> Fp1, EEG FP2-REF -> Fp2, ")
    assert "EEG T3-REF -> T7" in said.splitlines()[0]


@pytest.mark.parametrize("names", [CLINICAL, list(TEN_TWENTY)])
def test_a_covariance_has_either_names(run, tmp_path, names):
    write_edf(tmp_path / "x.edf", CLINICAL, ["uV"] * 19, 1e6 * potentials())
    rng = np.random.default_rng(1)
    mixed = 4e-6 * (np.eye(19) + 0.1 * rng.normal(size=(19, 19)))
    for file, order in (("a-cov.fif", range(19)), ("b-cov.fif", rng.permutation(19))):
        covariance = (mixed @ mixed.T)[np.ix_(order, order)]
        named = names if file.startswith("b") else TEN_TWENTY
        mne.Covariance(covariance, [named[i] for i in order], [], [], 1000).save(file)
    a, b = (
        run("x.edf", "--montage", "10-20-19", "--noise-cov", cov)
        for cov in ("a-cov.fif", "b-cov.fif")
    )
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(a).max())


def test_names_of_a_users_own(run, tmp_path, capsys):
    names = ["links vorn", *TEN_TWENTY[1:]]
    write_edf(tmp_path / "x.edf", names, ["uV"] * 19, 1e6 * potentials())
    more = ["--montage", "10-20-19", "--noise-from", "0", "5"]
    with pytest.raises(SystemExit, match=r"--exclude 'links vorn'.*--rename OLD=NEW"):
        run("x.edf", *more)
    run("x.edf", *more, "--rename", "links vorn=Fp1")
    assert "channels renamed: links vorn -> Fp1\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"--rename: the recording has no channels \['Fp9'\]"):
        run("x.edf", *more, "--rename", "Fp9=Fp1")
    with pytest.raises(SystemExit, match=r"several channels would be called \['Cz'\]"):
        run("x.edf", *more, "--rename", "Fz=Cz")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Fp1-F7", "F7-T3", *TEN_TWENTY[2:]], r"\['Fp1-F7', 'F7-T3'\] are derivations"),
        (["T3", *TEN_TWENTY[1:]], r"\['T3', 'T7'\] are one electrode"),
        (["EEG EKG-REF", *TEN_TWENTY[1:]], r"--exclude 'EEG EKG-REF'"),
    ],
)
@pytest.mark.parametrize("read", [read_recording, read_setup])
def test_channels_that_are_no_single_electrodes(tmp_path, names, message, read):
    path = write_edf(tmp_path / "x.edf", names, ["uV"] * 19, 1e6 * potentials())
    with pytest.raises(ValueError, match=message):
        read(path, MONTAGE)


def test_derivations_by_name_have_no_average_in_python_either(eloreta, toy_path):
    evoked = make_evoked("biosemi16")
    evoked.rename_channels({"Fp1": "Fp1-F7"})
    inverse = Inverse.load(eloreta, head=toy_path)
    with pytest.raises(
        ValueError, match=r"\['Fp1-F7'\] are derivations .* Give the recording before"
    ):
        inverse.for_recording(evoked.info, make_covariance(evoked.info))


def test_names_may_differ_in_python(eloreta, toy_path):
    """Recording, covariance and the recording that was prepared for: each with its own names."""
    evoked = make_evoked("biosemi16")
    clinical = evoked.copy().rename_channels(lambda name: f"EEG {OLD.get(name, name).upper()}-REF")
    reordered = clinical.copy().reorder_channels(clinical.ch_names[::-1])
    inverse = Inverse.load(eloreta, head=toy_path)
    plain = inverse.for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    mixed = inverse.for_recording(evoked.info, make_covariance(clinical.info), nave=4)
    expected = plain.apply(evoked).stc.data
    assert np.array_equal(mixed.apply(reordered).stc.data, expected)
    assert plain.out_of_distribution(reordered) == plain.out_of_distribution(evoked)


def test_a_prepared_head_has_other_names(run, eloreta, toy_path, tmp_path, capsys):
    data = 1e6 * potentials()
    write_edf(tmp_path / "plain.edf", list(TEN_TWENTY), ["uV"] * 19, data)
    write_edf(tmp_path / "clinical.edf", CLINICAL, ["uV"] * 19, data)
    make_covariance(mne.create_info(list(TEN_TWENTY), 100.0, "eeg")).save("x-cov.fif")
    main(
        [
            "prepare",
            str(eloreta),
            "clinical.edf",
            "--head",
            str(toy_path),
            "--montage",
            "colin27_1020",
            "--rename",
            "EEG FP1-REF=Fp1",
            "--unit",
            "uV",
            "--noise-cov",
            "x-cov.fif",
            "--out",
            "p.npz",
        ]
    )
    said = capsys.readouterr().out
    assert said.startswith("channels renamed: EEG FP1-REF -> Fp1, ")
    assert "wrote p.npz: 19 channels" in said
    found = []
    for name in ("plain.edf", "clinical.edf"):
        main(["apply", str(eloreta), name, "--prepared", "p.npz", "--out", name])
        found.append(mne.read_source_estimate(f"{name}-0000").data)
    assert np.array_equal(*found)
    assert "channels renamed: EEG FP1-REF -> Fp1, " in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".edf", ".bdf"])
@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("", r"names no unit for channels Fp1, Fp2, .* and 9 more; give --unit uV"),
        ("uVrms", r"names a unit that is not known \('uVrms'\) for channels"),
        ("%", r"not known \('%'\)"),
    ],
)
def test_a_file_that_names_no_unit(tmp_path, suffix, unit, said):
    data = 1e6 * potentials()
    path = write_edf(tmp_path / f"x{suffix}", list(TEN_TWENTY), [unit] * 19, data)
    with pytest.raises(ValueError, match=said):
        read(path)
    with pytest.raises(ValueError, match=said):
        read_setup(path, MONTAGE)
    raw = read(path, unit="uV")
    np.testing.assert_allclose(raw.get_data(), potentials(), atol=2e-9)
    assert not raw.preload  # and stays where it is
    np.testing.assert_allclose(raw.get_data(start=300, stop=400), raw.load_data()[:, 300:400][0])


def test_only_channels_whose_unit_is_not_known_take_that_of_the_command(tmp_path):
    factors = np.where(np.arange(19) < 4, 1e6, 1e3)[:, None]
    units = ["", "uVrms", "uV", "uV", *["mV"] * 15]
    path = write_edf(tmp_path / "x.edf", list(TEN_TWENTY), units, factors * potentials())
    with pytest.raises(ValueError, match=r"no unit, or one .* \('uVrms'\), for channels Fp1, Fp2;"):
        read(path)
    said: list[str] = []
    with pytest.raises(ValueError, match="the unit of F3, .* is mV|the unit of Fz, .* is mV"):
        read(path, unit="uV")
    raw = read_recording(
        path, ReadingOptions(unit="uV", exclude=tuple(TEN_TWENTY[4:])), said.append
    )
    np.testing.assert_allclose(raw.get_data(), potentials()[:4], atol=2e-9)
    assert said == ["unit of 2 EEG channels: uV, from --unit"]


def test_channels_that_are_left_out_need_no_unit(tmp_path):
    units = [*["uV"] * 18, ""]
    names = [*TEN_TWENTY[:18], "PHOTIC"]
    path = write_edf(tmp_path / "x.edf", names, units, 1e6 * potentials())
    assert read(path, exclude=("PHOTIC",)).ch_names == list(TEN_TWENTY[:18])


@pytest.mark.parametrize(
    ("unit", "scale", "known"),
    [
        ("uV", 1e6, True),
        (4275, 1e6, True),
        (4274, 1e3, True),
        (4256, 1.0, True),
        ("mV", 1e3, True),
        ("", 1e6, False),
        (0, 1e6, False),
        (512, 1e6, False),
        (4276, 1e9, True),
    ],
)
def test_units_of_gdf(tmp_path, unit, scale, known):
    path = write_gdf(tmp_path / "x.gdf", list(TEN_TWENTY), unit, scale * potentials())
    if not known:
        with pytest.raises(ValueError, match="give --unit uV"):
            read(path)
    raw = read(path, **({} if known else {"unit": "uV" if scale == 1e6 else "mV"}))
    np.testing.assert_allclose(raw.get_data(), potentials(), rtol=1e-5)


def test_brainvision_hides_electrodes_of_an_unknown_unit(tmp_path):
    """MNE-Python takes them for channels of another kind, so they would be missing silently."""
    pytest.importorskip("pybv")
    info = mne.create_info(list(TEN_TWENTY), float(RATE), "eeg")
    raw = mne.io.RawArray(potentials(), info, verbose="error")
    path = tmp_path / "x.vhdr"
    mne.export.export_raw(path, raw, verbose="error")
    np.testing.assert_allclose(read(path).get_data(), potentials(), atol=2e-8)
    header = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"(Ch[12]=[^,]*,[^,]*,[^,]*),µV", r"\1,uVrms", header), encoding="utf-8")
    with pytest.raises(ValueError, match="names no unit for channels Fp1, Fp2; give"):
        read(path)
    np.testing.assert_allclose(read(path, unit="uV").get_data(), potentials(), atol=2e-8)
    for micro in ("\u00b5V", "\u03bcV"):  # two code points of the same sign
        path.write_text(header.replace("\u00b5V", micro), encoding="utf-8")
        np.testing.assert_allclose(read(path).get_data(), potentials(), atol=2e-8)


def test_numbers_that_are_no_volts_whatever_the_file_says(run, tmp_path):
    info = mne.create_info(list(TEN_TWENTY), float(RATE), "eeg")
    raw = mne.io.RawArray(1e6 * potentials(), info, verbose="error")
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    more = ["--montage", "10-20-19", "--noise-from", "0", "5"]
    with pytest.raises(SystemExit, match=r"recording: .*--noise-from .* microvolts \(--unit uV\)"):
        run("x_raw.fif", *more)
    raw.apply_function(lambda x: 1e-6 * x).save(tmp_path / "y_raw.fif", verbose="error")
    a, b = run("x_raw.fif", *more, "--unit", "uV"), run("y_raw.fif", *more)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max())
    with pytest.raises(SystemExit, match="--unit takes V, mV, uV or nV, got 'T'"):
        run("x_raw.fif", *more, "--unit", "T")


def test_units_of_evoked_responses_and_epochs(tmp_path):
    evoked = make_evoked("biosemi16")
    wrong = evoked.copy().apply_function(lambda x: 1e3 * x)
    wrong.save(tmp_path / "x-ave.fif", verbose="error")
    found = read_recording(tmp_path / "x-ave.fif", ReadingOptions(unit="mV"))
    np.testing.assert_allclose(found.data, evoked.data, rtol=1e-5)
    epochs = mne.EpochsArray(wrong.data[None], wrong.info, verbose="error")
    epochs.save(tmp_path / "x-epo.fif", fmt="double", verbose="error")
    found = read_recording(tmp_path / "x-epo.fif", ReadingOptions(unit="mV"))
    np.testing.assert_allclose(found.get_data()[0], evoked.data, rtol=1e-5)


def write_matlab_7_3(path: Path, names: tuple[str, ...], data: np.ndarray) -> None:
    """A recording of EEGLAB as MATLAB 7.3 writes it: HDF5 behind 512 bytes of its own."""
    h5py = pytest.importorskip("h5py")

    def put(group, name, values, kind, **attributes):
        dataset = group.create_dataset(name, data=values)
        dataset.attrs["MATLAB_class"] = np.bytes_(kind)
        for key, value in attributes.items():
            dataset.attrs[key] = value
        return dataset.ref

    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in {
            "nbchan": len(names),
            "trials": 1,
            "pnts": data.shape[1],
            "srate": RATE,
            "xmin": 0,
            "xmax": SECONDS,
        }.items():
            put(file, key, np.array([[float(value)]]), "double")
        put(file, "data", 1e6 * data.T, "single")
        texts = file.create_group("#refs#")
        refs = [
            put(
                texts,
                f"label{i}",
                np.array([[ord(c)] for c in name], np.uint16).T.reshape(-1, 1),
                "char",
                MATLAB_int_decode=np.int32(2),
            )
            for i, name in enumerate(names)
        ]
        group = file.create_group("chanlocs")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        group.create_dataset("labels", data=np.array(refs, h5py.ref_dtype).reshape(-1, 1))
        put(file, "event", np.zeros(2, np.uint64), "double", MATLAB_empty=np.uint8(1))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def test_eeglab_of_matlab_7_3(tmp_path, monkeypatch):
    path = tmp_path / "x.set"
    write_matlab_7_3(path, TEN_TWENTY, potentials())
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pymatreader", None)  # as if it were not installed
        with pytest.raises(ModuleNotFoundError, match=r"x.set: .*pip install 'deepesi\[eeglab\]'"):
            read(path)
    pytest.importorskip("pymatreader")
    np.testing.assert_allclose(read(path).get_data(), potentials(), rtol=1e-5)
    np.testing.assert_allclose(read(path, unit="mV").get_data(), 1e3 * potentials(), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.mff", r"x.mff is a folder, the format of EGI, .*pip install mffpy.*read_raw_egi\("),
        (
            "x.ds",
            r"x.ds is a folder, the format of CTF, .*read_raw_ctf\('x.ds'\).save\('x_raw.fif'",
        ),
        ("sub-01", "sub-01 is a folder; give the recording in it"),
        ("nothing.edf", "there is no recording nothing.edf"),
    ],
)
def test_folders(run, name, message):
    if name != "nothing.edf":
        Path(name).mkdir()
    with pytest.raises(SystemExit, match=message):
        run(name, "--noise-from", "0", "1")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", r"--out \. is a folder; give the beginning .* --out result"),
        ("made", r"--out made is a folder; .* --out made/result"),
        ("made/x.stc", r"--out made/x.stc: give the beginning of .* --out made/x;"),
        ("x-lh.stc", r"--out x-lh.stc: .* --out x;"),
        ("file/x", r"--out file: .*file is a file, so there is no folder"),
    ],
)
def test_prefixes_that_are_none_end_before_anything_is_read(run, out, message):
    Path("made").mkdir()
    Path("file").touch()
    with pytest.raises(SystemExit, match=message):
        run("there is no such recording.fif", out=out)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", r"--out \. is a folder; give the .npz file"),
        ("head", r"--out head: expected a name that ends in .npz"),
        ("file/x.npz", r"file is a file, so there is no folder"),
    ],
)
def test_files_to_write_that_are_none(run, eloreta, out, message):
    Path("file").touch()
    with pytest.raises(SystemExit, match=message):
        main(["prepare", str(eloreta), "no.edf", "--noise-cov", "no-cov.fif", "--out", out])
    with pytest.raises(SystemExit, match="file is a file, so there is no folder"):
        main(["validate", "sample", "--data", ".", "--out", "file/x"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--forward", "f.fif", "--head", "h.npz"], "--forward and --head both set the head"),
        (["--noise-cov", "c.fif", "--noise-from", "0", "1"], "both set the noise"),
        (
            ["--prepared", "p.npz", "--forward", "f.fif"],
            "--prepared already contains noise and head",
        ),
        (
            ["--prepared", "p.npz", "--noise-from", "0", "1"],
            "--prepared already contains noise and head",
        ),
        (["--prepared", "p.npz", "--head", "h.npz"], "--prepared already contains noise and head"),
        (["--head", "h.npz", "--subjects-dir", "s"], "give both, or neither"),
        (["--epoch", "-1", "1"], "--epoch is of an average about an event; give --event NAME, too"),
        (["--jobs", "2"], "--jobs: for a whole data set"),
    ],
)
def test_options_of_which_one_would_be_ignored(eloreta, more, message):
    """They end before anything is read."""
    with pytest.raises(SystemExit, match=message):
        main(["apply", str(eloreta), "no.fif", "--out", "x", *more])
    if more[:1] == ["--forward"]:
        with pytest.raises(SystemExit, match=message):
            main(
                ["prepare", str(eloreta), "no.fif", "--noise-cov", "c.fif", "--out", "x.npz", *more]
            )


def test_a_head_and_a_forward_solution_are_two_heads(eloreta, toy_path):
    evoked = make_evoked("biosemi16")
    inverse = Inverse.load(eloreta, head=toy_path)
    forward = mne.Forward()
    with pytest.raises(ValueError, match=r"toy.npz .* were given. Leave one of them out"):
        inverse.for_recording(evoked, make_covariance(evoked.info), forward)


def test_units_change_nothing_of_a_set_up(eloreta, toy_path, tmp_path, monkeypatch, capsys):
    """Only names and positions are read from a .fif: a line says so, and the file is the same."""
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked("biosemi16")
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    found = []
    for more in ([], ["--unit", "uV"]):
        main(
            [
                "prepare",
                str(eloreta),
                "x-ave.fif",
                "--noise-cov",
                "x-cov.fif",
                "--head",
                str(toy_path),
                "--out",
                "p.npz",
                *more,
            ]
        )
        found.append(np.load("p.npz")["whitener"])
    assert "--unit uV changes nothing: only electrodes are read of x-ave.fif" in (
        capsys.readouterr().out
    )
    assert np.array_equal(*found)
