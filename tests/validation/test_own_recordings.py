"""``deepesi validate PATH --expect``: simulated recordings of a user, with known sources."""

import csv
import re
from itertools import product
from pathlib import Path

import mne
import numpy as np
import pytest
import yaml
from nilearn import datasets
from scipy.stats import binom

from deepesi.cli.main import main
from deepesi.evaluation.solvers import load_solver
from deepesi.physics.io.heads import head_on_template, place_recording
from deepesi.physics.lobes import LOBES
from deepesi.runtime.methods import Classical, find_methods
from deepesi.validation.case import Case
from deepesi.validation.expectation import CENTRES, Expectation
from deepesi.validation.expectation_file import EXAMPLE, KEYS, read_expectations
from deepesi.validation.own_recordings import own_cases
from deepesi.validation.run import run
from deepesi.validation.sample import sample_cases
from deepesi.validation.successes import DISTANCE, SET, at_least, tally
from tests.conftest import make_covariance, make_evoked
from tests.documents import ROOT

V1 = CENTRES["calcarine cortex"][1]
FRONTAL = (-40.0, 30.0, 30.0)


def response(template, landmark, montage: str = "biosemi32", snr: float = 30.0, seed: int = 0):
    """An average of noise, and from 0.1 to 0.2 s of the source nearest to a position, MNI mm."""
    evoked = make_evoked(montage, 100, seed)
    evoked.shift_time(-0.2)
    placement = place_recording(evoked.info, template)
    covariance = make_covariance(evoked.info)
    head = head_on_template(evoked.info, covariance, template, placement=placement)
    topography = head.leadfield[:, np.linalg.norm(template.source_mni - landmark, axis=1).argmin()]
    shape = (evoked.times > 0.098) & (evoked.times < 0.2)
    evoked.data += snr * 1e-6 * topography[:, None] / np.abs(topography).max() * shape
    evoked.comment = "flash"
    return evoked, covariance


def scrambled(evoked, seed: int):
    """The same values at other electrodes."""
    order = np.random.default_rng(seed).permutation(len(evoked.data))
    return mne.EvokedArray(evoked.data[order], evoked.info, evoked.times[0], nave=evoked.nave)


def save(folder: Path, name: str, evoked, covariance) -> None:
    evoked.save(folder / f"{name}-ave.fif", overwrite=True, verbose="error")
    covariance.save(folder / f"{name}-cov.fif", overwrite=True, verbose="error")


def write(path: Path, *entries: dict) -> Path:
    path.write_text(yaml.safe_dump({"recordings": list(entries)}))
    return path


def entry(**changes) -> dict:
    """Expectation of a visual response; None removes a key."""
    usual = {
        "file": "*-ave.fif",
        "noise_cov": "{name}-cov.fif",
        "window_s": [0.1, 0.19],
        "lobe": "occipital",
        "hemisphere": "right",
    }
    return {key: value for key, value in (usual | changes).items() if value is not None}


def cases_of(path: Path, expect: Path) -> list[Case]:
    return own_cases(path, read_expectations(expect), lambda line: None)


@pytest.fixture(scope="module")
def folder(template, tmp_path_factory):
    """Two recordings with two sets of channels in their own folders, and one of noise."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, place, montage, snr in (
        ("sub-1/visual", V1, "biosemi32", 30.0),
        ("sub-2/frontal", FRONTAL, "biosemi64", 30.0),
        ("noise", V1, "biosemi32", 0.0),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        save(folder, name, *response(template, place, montage, snr, seed=1))
    return folder


# The command


def rows(path: Path, *keys: str) -> dict[tuple[str, ...], dict[str, str]]:
    with path.open() as file:
        return {tuple(row[key] for key in keys): row for row in csv.DictReader(file)}


def test_hits_distances_and_sets_of_two_channel_sets_and_of_noise(folder, tmp_path, capsys):
    right = entry(file="sub-1/*-ave.fif", mni_mm=list(V1))
    left = entry(file="sub-2/frontal-ave.fif", hemisphere="left", lobe="frontal", why="put <there>")
    noise = entry(file="noise-ave.fif", lobe=None, hemisphere=None, mni_mm=list(V1), within_mm=10)
    expect = write(tmp_path / "expectation.yaml", right, left, noise)
    words = ["--methods", "sloreta", "--out", str(tmp_path / "out")]
    main(["validate", str(folder), "--expect", str(expect), *words])
    printed = capsys.readouterr().out
    found = rows(tmp_path / "out" / "validation.csv", "condition", "method", "statistic")

    def value(name, statistic):
        return float(found[f"{name}-ave.fif", "sLORETA", statistic]["value"])

    assert re.search(r"visual-ave.fif, template head, sLORETA: .* mm to target: success", printed)
    assert re.search(r"frontal-ave.fif, template head, sLORETA: .*\) mm: success", printed)
    assert re.search(r"noise-ave.fif, template head, sLORETA: .*FAILED: response not", printed)
    for name in ("sub-1/visual", "sub-2/frontal"):
        assert value(name, "peak_in_hemisphere") == value(name, "share_in_lobe") == 1
        assert value(name, "p_power") < 0.05
    assert value("sub-1/visual", "peak_distance") < 15
    assert value("sub-1/visual", "peak_in_tolerance") == 1
    assert value("sub-1/visual", "p_distance_chance") < 0.03
    assert 0.03 < value("sub-1/visual", "sources_in_tolerance") < 0.1
    assert np.isnan(value("sub-2/frontal", "peak_distance"))
    assert np.isnan(value("noise", "peak_in_lobe"))
    assert value("noise", "peak_in_tolerance") == 0
    together = rows(tmp_path / "out" / "tally.csv", "method", "quantity")
    assert together["sLORETA", "lobe"]["n"] == together["sLORETA", "lobe"]["observed"][0] == "2"
    assert together["sLORETA", "tolerance"]["observed"] == "1"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "responses 3, recordings 3, channels 32 EEG; 64 EEG; expectations of" in page
    for text in (
        "deepesi on 3 real recordings",
        "All responses together",
        "Reason: put &lt;there&gt;",
        "left frontal lobe",
    ):
        assert text in page
    assert page.count("data:image/png;base64") == 3 + 3


def test_a_covariance_divided_by_the_number_of_trials_is_refused(template, tmp_path):
    evoked, covariance = response(template, V1)
    evoked.nave = 40
    evoked.data *= 10**-0.5
    covariance["data"] = covariance["data"] / 40
    save(tmp_path, "flash", evoked, covariance)
    expect = write(tmp_path / "expectation.yaml", entry(mni_mm=list(V1)))
    with pytest.raises(SystemExit, match=r"flash-ave.fif: .*divided by the number of trials"):
        main(["validate", str(tmp_path), "--expect", str(expect), "--out", str(tmp_path / "o")])
    assert not (tmp_path / "o").exists()


def test_prediction_sets_hold_the_source_and_not_another(template, tmp_path):
    temporal = (50.0, -20.0, 10.0)
    save(tmp_path, "tone", *response(template, temporal))
    here = entry(file="tone-ave.fif", lobe="temporal", mni_mm=list(temporal))
    elsewhere = entry(lobe=None, hemisphere="left", mni_mm=list(FRONTAL), window_s=[0.1, 0.18])
    cases = cases_of(tmp_path, write(tmp_path / "e.yaml", here, elsewhere))
    methods = [*find_methods([], [Path("convdip")], load_solver), Classical("sLORETA")]
    results = list(run(cases, methods))
    network, linear = ([r.statistics for r in results if r.method == m.name] for m in methods)
    assert [s["target_in_set"] for s in network] == [1, 0]
    assert all(0 < s["sources_in_set"] < 0.2 for s in network)
    assert np.isnan(linear[0]["target_in_set"])
    (sets,) = (line for line in tally(results) if line.quantity == SET)
    assert (sets.n, sets.observed) == (2, 1)
    assert sets.chance == pytest.approx(sum(s["sources_in_set"] for s in network))


def test_many_recordings_against_chance_and_their_scrambled_copies(template, tmp_path):
    """The p values of chance are small with sources, and not if the channels are exchanged."""
    for i in range(6):
        evoked, covariance = response(template, V1, ("biosemi32", "biosemi64")[i % 2], seed=i)
        save(tmp_path, f"real{i}", evoked, covariance)
        save(tmp_path, f"scrambled{i}", scrambled(evoked, i), covariance)
    methods = [Classical("sLORETA")]
    levels = {}
    for kind in ("real", "scrambled"):
        expect = write(tmp_path / "e.yaml", entry(file=f"{kind}*-ave.fif", mni_mm=list(V1)))
        results = list(run(cases_of(tmp_path, expect), methods))
        assert len(results) == 6
        assert all(r.statistics["p_power"] < 0.05 for r in results)
        levels[kind] = {line.quantity: line for line in tally(results)}
    real, null = levels["real"], levels["scrambled"]
    for quantity in ("lobe", "tolerance", DISTANCE):
        assert real[quantity].p_chance < 0.001
        assert real[quantity].p_baseline < 0.01
        assert null[quantity].p_chance > 0.05
    assert [real[name].observed for name in ("hemisphere", "lobe", "tolerance")] == [6, 6, 6]
    assert null["lobe"].observed <= 2
    assert real["lobe"].chance == pytest.approx(0.6, abs=0.2)
    assert null[DISTANCE].observed == pytest.approx(null[DISTANCE].chance, abs=25)


def test_exact_tail():
    assert at_least(3, [0.2] * 7) == pytest.approx(binom.sf(2, 7, 0.2))
    assert at_least(0, [0.1, 0.9]) == 1
    chances = [0.1, 0.5, 0.8]
    weights = {
        hits: np.prod([q if hit else 1 - q for hit, q in zip(hits, chances, strict=True)])
        for hits in product((0, 1), repeat=3)
    }
    two_or_more = sum(weight for hits, weight in weights.items() if sum(hits) >= 2)
    assert at_least(2, chances) == pytest.approx(two_or_more)


# Recordings


def test_one_recording_of_a_folder_and_a_response_in_several_windows(folder, tmp_path):
    expect = write(
        tmp_path / "e.yaml",
        entry(file="visual-ave.fif", condition="flash"),
        entry(file="vis*", condition="flash", window_s=None, time_s=0.1512),
        entry(file="another-ave.fif"),
    )
    cases = cases_of(folder / "sub-1" / "visual-ave.fif", expect)
    assert [case.condition for case in cases] == [
        "visual-ave.fif, flash, 100 to 190 ms",
        "visual-ave.fif, flash, 152 ms",
    ]
    assert cases[1].in_response.sum() == 1
    assert cases[0].in_baseline.sum() == 50
    assert cases[0].noise_cov["data"].shape == (32, 32)


def test_recordings_that_no_entry_names_are_reported(folder, tmp_path):
    expect = write(tmp_path / "e.yaml", entry(file="noise-ave.fif"))
    lines: list[str] = []
    own_cases(folder, read_expectations(expect), lines.append)
    text = "not run, no entry of the expectations names it"
    assert lines == [f"sub-1/visual-ave.fif: {text}", f"sub-2/frontal-ave.fif: {text}"]


@pytest.fixture(scope="module")
def trials(folder):
    """A raw recording with 30 flashes, without positions and in the 10-20 system, and epochs."""
    positions = mne.channels.make_standard_montage("biosemi32")
    info = mne.create_info(positions.ch_names, 100.0, "eeg")
    data = np.random.default_rng(2).normal(scale=1e-5, size=(32, 3100))
    raw = mne.io.RawArray(data, info, verbose="error")
    raw.set_annotations(mne.Annotations(np.arange(1.0, 31.0), 0.0, ["flash"] * 30))
    path = folder.parent / "trials"
    path.mkdir()
    raw.save(path / "flash-raw.fif", verbose="error")
    raw.set_montage(positions)
    events, names = mne.events_from_annotations(raw, verbose="error")
    epochs = mne.Epochs(raw, events, names, -0.3, 0.4, None, preload=True, verbose="error")
    epochs.save(path / "flash-epo.fif", verbose="error")
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "flash-raw.fif", "event": "flash", "epoch_s": [-0.3, 0.4], "montage": "biosemi32"},
        {"file": "flash-epo.fif"},
        {"file": "flash-epo.fif", "baseline_s": [-0.3, -0.1]},
    ],
)
def test_trials_are_averaged_and_give_the_noise(trials, tmp_path, changes):
    (case,) = cases_of(trials, write(tmp_path / "e.yaml", entry(**changes, noise_cov=None)))
    assert case.evoked.nave == 30
    level = np.sqrt(np.diag(case.noise_cov["data"])).mean()
    assert level == pytest.approx(1e-5, rel=0.1)
    assert np.abs(case.evoked.data[:, case.in_baseline].mean(axis=1)).max() < 0.2e-5
    assert case.in_baseline.sum() == (21 if "baseline_s" in changes else 30)


def test_a_file_repeats_the_built_in_recording_on_both_heads(sample_data, tmp_path):
    """The left visual response, with the landmark in place of the subject's label."""
    built_in = next(c for c in sample_cases(sample_data) if c.condition == "Left visual")
    files = entry(
        file="derived/*_eegonly-ave.fif",
        condition="Left visual",
        noise_cov="../sample_audvis_short-cov.fif",
        forward="sample-oct5-eeg-fwd.fif",
        subjects_dir=str(sample_data / "subjects"),
        window_s=[0.08, 0.2],
    )
    area = files | {"area": "calcarine cortex"}
    (case,) = cases_of(sample_data, write(tmp_path / "e.yaml", area))
    assert str(case.expectation) == str(built_in.expectation)
    methods = [Classical("sLORETA")]
    for mine, theirs in zip(run([case], methods), run([built_in], methods), strict=True):
        for name in ("peak_x", "share_in_lobe", "whitened_power", "residual_variance"):
            assert mine.statistics[name] == pytest.approx(theirs.statistics[name], rel=1e-3), name


def left_visual_with_meg(**changes) -> dict:
    """Expectation of a response of the sample subject."""
    return entry(
        file="sample_audvis_short-ave.fif.gz",
        condition="Left visual",
        noise_cov="sample_audvis_short-cov.fif",
        window_s=[0.08, 0.2],
        area="calcarine cortex",
        **changes,
    )


def test_meg_is_localized_if_it_is_picked(sample_data, tmp_path, capsys):
    """On the packaged head, where EEG is 29 mm off."""
    expect, out = write(tmp_path / "e.yaml", left_visual_with_meg(picks=["meg"])), tmp_path / "out"
    words = ["--expect", str(expect), "--methods", "dspm", "--out", str(out)]
    main(["validate", str(sample_data / "sample_audvis_short-ave.fif.gz"), *words])
    printed = capsys.readouterr().out
    assert "MEG coils placed by the fiducials" in printed
    assert "no pages of responses: they show potentials, and only MEG is picked" in printed
    assert "204 gradiometer, 102 magnetometer" in (out / "report.html").read_text()
    with (out / "validation.csv").open() as file:
        values = {row["statistic"]: float(row["value"]) for row in csv.DictReader(file)}
    assert values["peak_distance"] < 20
    assert values["residual_variance_whitened"] < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("picks", "kinds"), [(["meg"], {"mag", "grad"}), (["eeg", "grad"], {"eeg", "grad"})]
)
def test_the_built_in_recording_takes_the_same_sensors(sample_data, tmp_path, picks, kinds):
    (mine,) = cases_of(sample_data, write(tmp_path / "e.yaml", left_visual_with_meg(picks=picks)))
    built_in = sample_cases(sample_data, tuple(picks))
    theirs = next(case for case in built_in if case.condition == "Left visual")
    assert theirs.own is None  # its forward solution has EEG only
    results = [next(run([case], [Classical("dSPM")])) for case in (mine, theirs)]
    assert set(results[0].case_head.head.sensors.kinds) == kinds
    one, other = (result.statistics for result in results)
    for name in ("peak_x", "whitened_power", "residual_variance_whitened"):
        assert one[name] == pytest.approx(other[name], rel=1e-3), name


def test_documented_file(template, trials, tmp_path):
    """Recordings as in the documentation, and its file."""
    text = (ROOT / "docs" / "evaluation.md").read_text()
    documented = re.search(r"^```yaml\n(# expectation.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "expectation.yaml").write_text(documented)
    names = re.findall(r"file: \"?(.*?)\"?$", documented, re.MULTILINE)
    assert names == ["sub-01/flash-ave.fif", "*/median-ave.fif", "tones.edf"]
    for name in ("sub-01/flash", "sub-01/median", "sub-02/median"):
        evoked, covariance = response(template, V1)
        evoked.comment = "left flash"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path, name, evoked, covariance)
    raw = mne.io.read_raw(trials / "flash-raw.fif", preload=True, verbose="error")
    raw.annotations.description[:] = "tone"
    mne.export.export_raw(tmp_path / "tones.edf", raw, verbose="error")
    cases = cases_of(tmp_path, tmp_path / "expectation.yaml")
    assert [case.condition for case in cases] == [
        "sub-01/flash-ave.fif, left flash",
        "sub-01/median-ave.fif",
        "sub-02/median-ave.fif",
        "tones.edf, tone",
    ]
    assert cases[1].expectation.within == 20
    assert cases[3].evoked.nave == 30


# Bad input


def refused(path: Path, tmp_path: Path, content: str | dict) -> str:
    """The error of the command, before anything is written."""
    expect = tmp_path / "expectation.yaml"
    if isinstance(content, str):
        expect.write_text(content)
    else:
        write(expect, content)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as error:
        main(["validate", str(path), "--expect", str(expect), "--out", str(out)])
    assert not out.exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lobes": "occipital"}, r"entry 1 .*unknown key 'lobes'. Nearest: lobe; all: file, "),
        ({"mni": [1, 2, 3]}, r"unknown key 'mni'. Nearest: mni_mm"),
        ({"lobe": "ocipital"}, r"lobe is unknown 'ocipital', expected one of \['occipital', "),
        ({"hemisphere": "r"}, r"hemisphere is unknown 'r', expected one of \['left', 'right'\]"),
        ({"area": "V1"}, r"area is unknown 'V1', expected one of \['calcarine cortex'"),
        ({"lobe": None, "hemisphere": None}, "no location is expected. Give at least one of"),
        ({"area": "calcarine cortex", "hemisphere": None}, "the landmark of one hemisphere"),
        ({"mni_mm": [0.016, -0.073, 0.009]}, r"all below 1 mm. Are they in m\? Give them in mm"),
        ({"mni_mm": [16, -730, 9]}, r"\(16, -730, 9\) mm lie outside the brain"),
        ({"mni_mm": [-16, -73, 9]}, "outside the hemisphere that is expected, too"),
        ({"mni_mm": [16, 40, 9]}, r"outside the lobe that is expected, too \(occipital\)"),
        ({"mni_mm": [16, 40]}, r"mni_mm is \[16, 40\], expected a list of three coordinates"),
        ({"mni_mm": [16, -73, 9], "within_mm": 0.02}, "tolerance .*0.02 mm.*Is it in m or cm"),
        ({"within_mm": 20}, r"tolerance \(within 20 mm\) needs coordinates"),
        ({"within_mm": "1e-3"}, "within_mm is '1e-3', expected a number"),
        ({"within_mm": float("nan")}, "within_mm is nan, expected a number"),
        ({"window_s": [0.2, 0.1]}, "start that is before the end"),
        ({"window_s": None}, "given by one of 'window_s'.*and 'time_s'"),
        ({"time_s": 0.1}, "given by one of 'window_s'"),
        ({"window_s": [100, 190]}, r"100 to 190 s\) is not within.*looks like ms: give times in s"),
        ({"window_s": [0.1, 0.9]}, r"0.1 to 0.9 s\) is not within the recording \(-0.2 to 0.196 s"),
        ({"window_s": [0.1011, 0.1012]}, "holds no sample"),
        ({"window_s": [-0.1, 0.1]}, "the response is expected there, so there is no baseline"),
        ({"baseline_s": [-0.2, 0.12]}, "is expected within the baseline"),
        ({"baseline_s": [-3, 0]}, "baseline: -3 to 0 s is not within the recording"),
        ({"file": "*-eve.fif"}, r"no recording in .*Recordings there: noise-ave.fif, sub-1/vis"),
        ({"file": None}, "entry 1: 'file' is missing"),
        ({"file": "*-cov.fif"}, "no recording in .*matches this pattern"),
        ({"file": "/x-ave.fif"}, "file is '/x-ave.fif', expected a path or pattern of recordings"),
        ({"file": "../x-ave.fif"}, "expected a path or pattern of recordings in .*relative to it"),
        ({"file": ""}, "file is '', expected a path or pattern of recordings"),
        ({"condition": "tone"}, r"noise-ave.fif: .*0 conditions named 'tone'.*0: 'flash'"),
        ({"condition": True}, "condition is True, expected text"),
        ({"event": "flash"}, "--event averages a raw recording"),
        ({"noise_cov": None}, "an average, whose file does not tell the noise of its trials"),
        ({"noise_cov": "{name}-kov.fif"}, "there is no file .*noise-kov.fif"),
        ({"noise_from_s": [-0.2, 0]}, "'noise_cov' and 'noise_from_s' both set the noise"),
        ({"trans": "x-trans.fif"}, "there is no file .*x-trans.fif"),
        ({"forward": "x-fwd.fif"}, "'forward' and 'subjects_dir' belong together"),
        ({"forward": "x-fwd.fif", "subjects_dir": "."}, "there is no file .*x-fwd.fif"),
        ({"exclude": "A1"}, "exclude is 'A1', expected a list of names"),
        ({"rename": ["A1"]}, "expected old and new names"),
        ({"picks": "meg"}, r"picks is 'meg', expected a list of kinds of sensors: \[meg\] or"),
        ({"picks": ["meg"]}, r"the recording has no good meg channels, only eeg"),
        ({"picks": ["megg"]}, r"picks: got \['megg'\], expected some of eeg, meg, mag, grad"),
    ],
)
def test_bad_entry(folder, tmp_path, changes, message):
    wrong = entry(**{"file": "noise-ave.fif", **changes})
    assert re.search(message, refused(folder, tmp_path, wrong), re.DOTALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("recordings: [", "not readable as YAML"),
        ("recordings: []", "no list 'recordings'"),
        ("file: a-ave.fif", "no list 'recordings', or something beside it. Expected:\nrecordings:"),
        ("recordings: [a-ave.fif]", "entry 1 is 'a-ave.fif', expected keys and values"),
        (EXAMPLE.replace("lobe: ", "hemisphere: "), "the key 'hemisphere' is given twice.*line 2"),
    ],
)
def test_bad_file(folder, tmp_path, content, message):
    assert re.search(message, refused(folder, tmp_path, content), re.DOTALL)


def test_the_example_of_errors_is_read(tmp_path):
    (tmp_path / "e.yaml").write_text(EXAMPLE)
    (example,) = read_expectations(tmp_path / "e.yaml")
    assert example.window == (0.08, 0.12)
    assert str(example.expectation) == "right occipital lobe"


def test_paths_that_do_not_fit(folder, trials, tmp_path):
    raw = entry(file="flash-raw.fif", montage="biosemi32", noise_cov=None)
    assert "it is a raw recording" in refused(trials, tmp_path, raw)
    text = refused(folder / "noise-ave.fif", tmp_path, entry(file="sub-1/*"))
    assert "no entry of the expectations has this name" in text
    assert "no recording and no folder" in refused(folder / "nowhere", tmp_path, entry())
    write(tmp_path / "twice.yaml", *[entry(file="noise-ave.fif")] * 2)
    with pytest.raises(ValueError, match="two entries of the expectations are about this response"):
        cases_of(folder, tmp_path / "twice.yaml")
    with pytest.raises(FileNotFoundError, match="--expect: there is no file"):
        read_expectations(tmp_path / "none.yaml")


def test_recording_in_microvolts(folder, template, tmp_path):
    evoked, covariance = response(template, V1)
    evoked.data *= 1e6
    save(tmp_path, "loud", evoked, covariance)
    message = r"entry 1 .*loud-ave.fif: recording: .*microvolts"
    assert re.search(message, refused(tmp_path, tmp_path, entry()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "--expect", "none.yaml", "--data", "x"], "leave --data out"),
        (["x", "--expect", "none.yaml", "--trans", "x-trans.fif"], r"\(trans: FILE, picks:"),
        (["x", "--expect", "none.yaml", "--picks", "meg"], r"picks: \[meg\]"),
        (["x", "--data", "x"], "give what is expected of them: --expect expectation.yaml"),
    ],
)
def test_options_that_contradict_each_other(tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        main(["validate", *words, "--out", str(tmp_path / "out")])


# Lobes

#: Names of coordinates in the table of Dosenbach et al. 2010, by lobe.
NAMED = {
    "frontal": "ACC SMA aPFC dACC dFC dlPFC frontal mFC mPFC pre-SMA vFC vPFC vlPFC vmPFC",
    "parietal": "IPL IPS parietal precuneus",
    "temporal": "fusiform temporal",
    "occipital": "occipital",
    "central": "precentral",
    "insular": "insula",
}


@pytest.fixture(scope="module")
def dosenbach():
    return datasets.fetch_coords_dosenbach_2010()


@pytest.mark.parametrize(("lobe", "least"), zip(NAMED, (0.95, 0.9, 0.85, 0.9, 0.8, 1), strict=True))
def test_coordinates_that_are_named_after_a_lobe_lie_in_it(dosenbach, template, lobe, least):
    rois = dosenbach["rois"]
    named = [bool(set(NAMED[lobe].split()) & set(label.split())) for label in dosenbach["labels"]]
    assert sum(named) > 5
    mni = np.stack([rois[axis] for axis in "xyz"], axis=1).astype(float)[named]
    expected = Expectation(lobe=lobe)
    assert expected.in_lobe(mni).mean() >= least
    assert expected.in_lobe(mni).tolist() == expected.in_lobe(mni * [-1, 1, 1]).tolist()
    assert 0.05 < expected.in_lobe(template.source_mni).mean() < 0.4


def test_every_lobe_is_checked_and_every_key_is_documented():
    assert set(NAMED) == set(LOBES)
    text = (ROOT / "docs" / "evaluation.md").read_text()
    for name in (*KEYS, *LOBES, *CENTRES):
        assert f"`{name}`" in text, name
