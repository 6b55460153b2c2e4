"""Real recordings: statistics against closed forms, simulated responses, and the data at hand."""

import csv
import json
import re
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.cli.main import main
from deepesi.core.contracts import InverseModel, as_tensors
from deepesi.evaluation.solvers import Solved, load_solver
from deepesi.export.to_onnx import export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.physics.atlas import parcel_names
from deepesi.physics.head_inputs import prepare
from deepesi.physics.linear_inverse import METHODS
from deepesi.physics.montage import head_montage
from deepesi.physics.noise import rank_of, whitened_power, whitener
from deepesi.runtime.methods import Classical, find_methods, solver_names
from deepesi.runtime.session import as_feeds
from deepesi.validation.case import Case
from deepesi.validation.eeglab import read_targets
from deepesi.validation.expectation import CENTRES, Expectation
from deepesi.validation.report import results_table, summary, verdict, write_report
from deepesi.validation.response_pages import write_response_pages
from deepesi.validation.run import evaluate, excluded, own_case_head, run, template_case_head
from deepesi.validation.sample import ANATOMY, DOWNLOADED, SHORT, sample_cases
from deepesi.validation.statistics import (
    UNITS,
    Track,
    lateralization,
    p_value,
    summarize,
    window_maxima,
)
from tests.conftest import make_covariance, make_evoked

#: A base install: what the extras bring cannot be imported. (Entries of None in sys.modules would
#: trip scipy, which looks torch up there.)
BASE_INSTALL = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "lightning", "hydra", "onnx", "jaxtyping", "sklearn",
                                  "pandas", "nibabel", "rich"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from deepesi.cli.main import main
main(sys.argv[1:])
"""


# Statistics


def test_whitened_noise_has_unit_power(template):
    head = template.montage_head("biosemi32")
    factor = np.linalg.cholesky(head.noise_cov + 1e-18 * np.eye(32))
    noise = factor @ np.random.default_rng(0).normal(size=(32, 4000))
    power = whitened_power(whitener(head.noise_cov) @ noise, rank_of(head.noise_cov))
    assert power.mean() == pytest.approx(1, abs=0.02)


def test_lateralization_is_the_share_of_one_side():
    magnitude = np.array([[3.0, 0.0], [1.0, 2.0], [0.0, 2.0]])
    share = lateralization(magnitude, np.array([True, False, False]))
    assert np.allclose(share, [0.75, 0.0])


def test_p_value_counts_the_observed_value_itself():
    null = np.arange(1.0, 100.0)
    assert p_value(1000.0, null, largest=True) == pytest.approx(1 / 100)
    assert p_value(1.0, null, largest=True) == 1
    assert p_value(10.0, null, largest=False) == pytest.approx(11 / 100)


def test_window_maxima_are_those_of_every_stretch():
    power = np.array([1.0, 5.0, 2.0, 0.0, 3.0])
    assert window_maxima(power, 2).tolist() == [5, 5, 2, 3]
    assert window_maxima(power, 9).tolist() == [5]


def toy_track(rng: np.random.Generator, n_baseline: int = 200, n_window: int = 8) -> Track:
    """Nothing but noise: every sample alike."""
    n_times = n_baseline + n_window
    times = (np.arange(n_times) - n_baseline) / 250.0
    return Track(
        times,
        times < 0,
        times >= 0,
        rng.chisquare(30, n_times) / 30,
        rng.uniform(0, 150, n_times),
        {"lobe": rng.random(n_times) < 0.1},
        rng.random(n_times),
    )


def test_p_values_are_uniform_where_there_is_no_response():
    """Selection of the strongest sample of the window included."""
    rng = np.random.default_rng(1)
    found = [summarize(toy_track(rng), {"lobe": 0.1}) for _ in range(600)]
    for name in ("p_power", "p_distance"):
        p = np.array([s[name] for s in found])
        assert abs(p.mean() - 0.5) < 0.04, name
        assert 0.02 < (p <= 0.05).mean() < 0.09, name


def test_no_baseline():
    track = toy_track(np.random.default_rng(0), 20, 5)
    with pytest.raises(ValueError, match="no pre-stimulus baseline or no sample in the window"):
        summarize(replace(track, baseline=track.times > 1), {"lobe": 0.1})


# Expectations


@pytest.mark.parametrize("area", list(CENTRES))
@pytest.mark.parametrize("hemisphere", ["left", "right"])
def test_landmarks_lie_in_their_lobe_and_mirror_each_other(area, hemisphere):
    lobe = "temporal" if area == "Heschl's gyrus" else "occipital"
    expected = Expectation(hemisphere, area, lobe, "test")
    mirror = expected.landmark * [-1, 1, 1]
    assert expected.in_lobe(np.stack([expected.landmark, mirror])).tolist() == [True, False]
    assert (expected.landmark[0] > 0) == (hemisphere == "right")
    left, right = CENTRES[area]
    assert np.linalg.norm(np.array(left) * [-1, 1, 1] - right) < 12


def test_unknown_area():
    with pytest.raises(ValueError, match=r"unknown 'V9', expected one of \['calcarine cortex'"):
        Expectation("left", "V9", "occipital", "test")


def test_atlas_landmark_meets_the_subjects_label(sample_data):
    """V1 of the subject, through the MRI header and the Talairach transform, at the landmark."""
    cases = sample_cases(sample_data)
    for case in cases[:2]:
        own = case.own
        in_v1 = own.target_distance[case.condition] < 3
        centre = own.source_mni[in_v1].mean(axis=0)
        assert np.linalg.norm(centre - case.expectation.landmark) < 15
        assert case.expectation.in_hemisphere(own.source_mni[in_v1]).mean() > 0.95


# Methods


@pytest.mark.parametrize("method", METHODS)
def test_classical_methods_are_the_baselines(toy, method):
    head = toy.montage_head("biosemi16")
    data = head.leadfield @ np.random.default_rng(2).normal(scale=3e-9, size=(84, 5))
    declared = MinimumNorm(method)
    inputs = as_feeds(dict(prepare(declared.head_inputs, head)))
    tensors = {key: torch.as_tensor(value) for key, value in inputs.items()}
    expected = declared(torch.as_tensor(data, dtype=torch.float32)[None], tensors).mean[0].numpy()
    found = Classical(method).estimator(head, 1)(data + 1e-3)
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["elorta"], r"unknown method 'elorta'.*Did you mean 'eloreta'\?.*--models"),
        (["eloreta_best"], "unknown method 'eloreta_best', expected all or some of mne, dspm"),
        (["sloreta", "bayes_single_patch_true"], "unknown method 'bayes_single_patch_true'"),
        (["bayes_stranger"], "unknown method 'bayes_stranger'"),
        ([], "nothing to validate"),
    ],
)
def test_methods_that_do_not_exist(names, message):
    with pytest.raises(ValueError, match=message):
        find_methods(names, [], load_solver)


@pytest.mark.slow
def test_all_methods_are_every_one_that_needs_no_target():
    methods = find_methods(["All"], [], load_solver)
    names = [method.name for method in methods]
    assert len(set(names)) == len(names) == 4 + len(solver_names())
    assert {"eLORETA", "LCMV", "Champagne", "MxNE", "dipole scan"} <= set(names)
    assert "bayes_stranger" not in solver_names()
    # A solver is the model behind it, in windows.
    assert all(isinstance(m.model, InverseModel) for m in methods if isinstance(m, Solved))


def test_solver_estimates_windows_of_twenty_samples(toy):
    """The single patch of each window, faded into the next one."""
    head = toy.montage_head("biosemi16")
    rng = np.random.default_rng(5)
    data = head.leadfield @ rng.normal(scale=3e-9, size=(84, 30))
    method = load_solver("dipole_scan")
    found = method.estimator(head, 1)(data + 1e-3)
    inputs = as_tensors(prepare(method.model.head_inputs, head))
    data -= data.mean(axis=0)
    first, second = (
        method.model(torch.as_tensor(data[None, :, start : start + 20]).float(), inputs).mean[0]
        for start in (0, 10)
    )
    assert found.shape == (84, 30)
    assert np.allclose(found[:, :10], first[:, :10].numpy(), rtol=1e-4, atol=1e-14)
    assert np.allclose(found[:, 20:], second[:, 10:].numpy(), rtol=1e-4, atol=1e-14)
    assert np.linalg.matrix_rank(found[:, 10:20], tol=1e-3 * np.abs(found).max()) <= 2


def test_loose_methods_have_heads_of_free_orientation(sample_data):
    methods = find_methods(["eloreta", "eloreta_loose"], [], load_solver)
    assert [m.n_orient for m in methods] == [None, 3]
    assert [m.template().space.n_orient for m in methods] == [1, 3]
    case = next(iter(sample_cases(sample_data)))
    fixed, free = (own_case_head(case, m.n_orient or 1).head for m in methods)
    assert free.space.n_orient == 3
    along = free.along_normals()
    assert along.leadfield == pytest.approx(fixed.leadfield, abs=1e-6 * fixed.leadfield.max())
    data = fixed.sensors.reference(case.evoked.get_data(picks=list(fixed.sensors.names)))
    loose = methods[1].estimator(free, case.evoked.nave)(data[:, :5])
    assert loose.shape == (3 * fixed.space.n_sources, 5)


def test_model_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*none.onnx"):
        find_methods([], [tmp_path / "none.onnx"], load_solver)


@pytest.mark.parametrize(("by", "expected"), [("scales and shifts", 29), ("the transform", 14)])
def test_a_scan_finds_the_left_visual_response_with_electrodes_placed_by_anatomy(
    sample_data, by, expected
):
    """The transform through the MRI of the subject to MNI space; her head points are too few."""
    case = next(c for c in sample_cases(sample_data) if c.condition == "Left visual")
    head_mri = mne.read_trans(sample_data / "MEG_sample/sample_audvis_trunc-trans.fif")
    mri_mni = mne.read_talxfm("sample", sample_data / "subjects", verbose="error")
    head_mni = mne.transforms.combine_transforms(head_mri, mri_mni, "head", "mni_tal")
    scan = load_solver("dipole_scan")
    case = replace(case, trans=head_mni if by == "the transform" else None)
    case_head = template_case_head(case, scan.template())
    assert f"placed by {by}, " in case_head.placement
    found = evaluate(case, case_head, scan).statistics["peak_distance"]
    assert found == pytest.approx(expected, abs=1)


# Simulated responses


def simulated_case(template, landmark, snr: float = 40.0) -> Case:
    """Noise, and from 0.1 s on a source at the vertex nearest to a position (MNI mm)."""
    evoked = make_evoked(n_times=150)
    evoked.shift_time(-0.3)
    covariance = make_covariance(evoked.info)
    expectation = Expectation("right", "calcarine cortex", "occipital", "it was put there")
    case = Case("toy", "simulated", evoked, covariance, (0.1, 0.2), expectation)
    case_head = template_case_head(case, template)
    source = np.linalg.norm(case_head.mni - landmark, axis=1).argmin()
    topography = case_head.head.leadfield[:, source]
    evoked.data[:, evoked.times >= 0.1] += (
        snr * 1e-6 * (topography / np.abs(topography).max())[:, None]
    )
    return case


def test_source_at_the_landmark_is_a_success(template):
    case = simulated_case(template, CENTRES["calcarine cortex"][1])
    case_head = template_case_head(case, template)
    result = evaluate(case, case_head, Classical("eLORETA"))
    assert verdict(result) == "success"
    assert set(result.statistics) == set(UNITS)
    nearest = case_head.target_distance.min()
    # Neighbours of an ico-3 vertex are 7 mm apart on average.
    assert result.statistics["peak_distance"] < nearest + 8
    assert result.statistics["p_power"] < 0.02
    assert result.statistics["p_distance"] < 0.02
    assert result.statistics["share_in_lobe"] == 1
    assert 100 <= result.statistics["latency"] <= 200


def test_source_elsewhere_is_a_failure_and_so_is_noise(template):
    frontal = simulated_case(template, (-40, 40, 10))
    noise = simulated_case(template, (16, -73, 9), snr=0.0)
    results = list(run([frontal, noise], [Classical("eLORETA")]))
    assert "strongest source outside the expected lobe; in the lobe for 0 %" in verdict(results[0])
    assert results[0].statistics["p_power"] < 0.02
    assert "response not above its baseline" in verdict(results[1])
    text = summary(results, excluded([frontal], [Classical("eLORETA")]))
    assert "0 of 2 succeeded" in text
    assert "the recording has no subject head" in text
    assert results_table(results).count("FAILED") == 2


# The data at hand


def in_base_install(
    folder: Path, recording: str, data: Path, method: str
) -> subprocess.CompletedProcess[str]:
    """``deepesi validate`` without the extras, into ``out``."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            BASE_INSTALL,
            "validate",
            recording,
            "--data",
            str(data),
            "--methods",
            method,
            "--out",
            "out",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_solver_in_a_base_install(sample_data, tmp_path):
    done = in_base_install(tmp_path, "sample", sample_data, "champagne")
    assert done.returncode == 1
    assert "needs the package 'hydra' to validate champagne" in done.stderr
    assert "pip install 'deepesi[train]'" in done.stderr


def test_own_head_is_left_to_methods_that_can_use_it(sample_data, template, tmp_path):
    path = tmp_path / "net.onnx"
    export_onnx(ConvDip(1284, hidden=16), template.montage_head("biosemi32"), path)
    methods = find_methods(["eloreta"], [path], load_solver)
    (missing,) = excluded(sample_cases(sample_data), methods)
    name = "ConvDip 42 k (net.onnx)"
    assert (missing.method, missing.head) == (name, "own")
    assert "is bound to the source space fsaverage-ico3" in missing.reason
    heads = {(r.method, r.case_head.name) for r in run(sample_cases(sample_data)[:1], methods)}
    assert heads == {("eLORETA", "template"), (name, "template"), ("eLORETA", "own")}


def values(path: Path) -> dict[tuple[str, ...], float]:
    with path.open() as file:
        return {
            (r["condition"], r["head"], r["method"], r["statistic"]): float(r["value"])
            for r in csv.DictReader(file)
        }


@pytest.mark.slow
def test_sample_in_a_base_install(sample_data, tmp_path):
    done = in_base_install(tmp_path, "sample", sample_data, "eloreta")
    assert done.returncode == 0, done.stderr
    found = values(tmp_path / "out" / "validation.csv")
    assert len(found) == 4 * 2 * len(UNITS)
    for condition in ("Left visual", "Right visual"):
        assert found[condition, "own", "eLORETA", "peak_distance"] < 10
        assert found[condition, "template", "eLORETA", "peak_in_lobe"] == 1
        assert found[condition, "template", "eLORETA", "p_power"] <= 0.05
        assert 0.7 < found[condition, "own", "eLORETA", "baseline_power"] < 1.4
    page = (tmp_path / "out" / "report.html").read_text()
    assert "FAILED" in page
    assert "Left Auditory, template head, eLORETA: FAILED" in page
    assert not re.findall(r"<(?:img|script|link)[^>]*(?:src|href)=[\"']?http", page)
    assert page.count("data:image/png;base64") >= 16
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["report.html", "responses", "tally.csv", "validation.csv"]
    pages = sorted(p.name for p in (tmp_path / "out" / "responses").iterdir())
    assert len(pages) == 4  # on the packaged head; her own has no cortex to draw on
    assert set(re.findall(r"<a href='responses/(.*?)'", page)) == set(pages)


def linked(files: dict[str, str], sources: dict[str, str], data: Path, to: Path) -> Path:
    """A folder with the files of one layout, taken from another."""
    for role, name in files.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).symlink_to((data / sources[role]).resolve())
    return to


def test_layout_of_the_downloaded_data_set(sample_data, tmp_path):
    full = linked(DOWNLOADED, SHORT, sample_data, tmp_path)
    cases = sample_cases(full)
    assert [c.condition for c in cases] == [c.condition for c in sample_cases(sample_data)]


@pytest.mark.parametrize("role", [*ANATOMY, "evoked responses", "own forward solution"])
def test_missing_file_is_named(sample_data, tmp_path, role):
    files = {key: name for key, name in SHORT.items() if key != role}
    linked(files, SHORT, sample_data, tmp_path)
    expected = rf"--data: .* lacks {re.escape(SHORT[role])} \({role}\)"
    with pytest.raises(FileNotFoundError, match=expected):
        sample_cases(tmp_path)


def test_average_of_other_conditions(sample_data, tmp_path):
    linked(
        {k: v for k, v in SHORT.items() if k != "evoked responses"}, SHORT, sample_data, tmp_path
    )
    make_evoked().save(tmp_path / SHORT["evoked responses"], verbose="error")
    with pytest.raises(ValueError, match=r"no conditions \['Left visual'.*only \['noise'\]"):
        sample_cases(tmp_path)


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        ("sample", r"validate: --data: .*lacks .*V1.label \(left V1\).*talairach.xfm.*data_path"),
        (
            "eeglab",
            r"validate: --data: .*lacks eeglab_data.set \(recording\); eeglab_data.fdt.*EEGLAB",
        ),
    ],
)
def test_empty_folder(tmp_path, recording, message):
    with pytest.raises(SystemExit, match=message):
        main(["validate", recording, "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="there is no folder .*nowhere"):
        main(["validate", recording, "--data", str(tmp_path / "nowhere"), "--out", "out"])
    assert not (tmp_path / "out").exists()


def test_unknown_recording():
    with pytest.raises(SystemExit, match=r"sampel: no data set.*choose from sample, eeglab"):
        main(["validate", "sampel", "--data", "x", "--out", "out"])
    with pytest.raises(SystemExit, match="sample: --data is missing"):
        main(["validate", "sample", "--out", "out"])


def test_electrodes_of_eeglab_are_the_same_in_another_frame(eeglab_data):
    """The .locs file agrees with the 10-05 system once both are in one frame, and not before."""
    own = mne.channels.read_custom_montage(eeglab_data / "eeglab_chan32.locs")
    positions = own.get_positions()["ch_pos"]
    names = [name for name in positions if not name.startswith("EOG")]
    theirs = np.array([positions[name] for name in names])
    placed = head_montage(names).get_positions()["ch_pos"]
    ours = np.array([placed[name] for name in names])
    before = np.linalg.norm(theirs - ours, axis=1).mean()
    a, b = theirs - theirs.mean(axis=0), ours - ours.mean(axis=0)
    u, s, vt = np.linalg.svd(a.T @ b)
    aligned = (s.sum() / (a**2).sum()) * a @ (u @ vt)
    after = np.linalg.norm(aligned - b, axis=1)
    assert before > 0.03
    assert after.mean() < 0.012


def test_unknown_electrode():
    with pytest.raises(ValueError, match=r"\['X1'\] are no electrodes of the montage"):
        head_montage(["Cz", "X1"])


def test_epochs_of_eeglab(eeglab_data):
    epochs = read_targets(eeglab_data)
    assert 60 <= len(epochs) <= 80
    assert len(epochs.ch_names) == 30
    baseline = epochs.get_data()[:, :, epochs.times <= 0]
    assert np.abs(baseline.mean(axis=2)).max() < 1e-12


def test_eeglab_targets_are_right_occipital(eeglab_data, tmp_path):
    done = in_base_install(tmp_path, "eeglab", eeglab_data, "eloreta")
    assert done.returncode == 0, done.stderr
    assert "all: not run on the own head: the recording has no subject head" in done.stdout
    found = values(tmp_path / "out" / "validation.csv")
    where = ("Left targets", "template", "eLORETA")
    assert found[*where, "peak_x"] > 0
    assert found[*where, "peak_y"] < -55
    assert found[*where, "lateralization"] > 0.55


def test_response_can_be_turned(template, tmp_path):
    """Every method in the window, first at the sample of the report, with its strongest source."""
    case = simulated_case(template, (16, -73, 9))
    results = list(run([case], [Classical("eLORETA"), Classical("MNE")]))
    ((heading, path),) = write_response_pages(results, tmp_path).items()
    page = path.read_text()
    assert f"<h1>{heading}</h1>" in page
    view = json.loads(re.search(r"'view'>(.*?)</script>", page)[1])
    assert [shown["name"] for shown in view["maps"]] == ["eLORETA", "MNE"]
    n_times = len(view["times"])
    start, end = 1e3 * np.array(case.window)
    assert start - 1 <= view["times"][0] < view["times"][-1] <= end + 1
    for shown, result in zip(view["maps"], results, strict=True):
        values = np.frombuffer(b64decode(shown["values"]), np.uint8).reshape(n_times, -1)
        peak = int(values[view["start"]].argmax())
        assert result.magnitude[peak] >= 0.98 * result.magnitude.max()
        assert view["times"][view["start"]] == pytest.approx(result.statistics["latency"], abs=0.1)


def test_page_of_a_response_names_parcels_and_holds_deviations_and_sets(template, tmp_path):
    """Those of the methods that give some, in the window."""
    case = simulated_case(template, (16, -73, 9))
    files = find_methods([], [Path("convdip")], load_solver)
    plain, bayes, file = run(
        [case], [Classical("MNE"), load_solver("bayesian_minimum_norm"), *files]
    )
    ((_, path),) = write_response_pages([plain, bayes, file], tmp_path).items()
    view = json.loads(re.search(r"'view'>(.*?)</script>", path.read_text())[1])
    n_times = len(view["times"])
    assert [shown["name"] for shown in view["maps"]] == [
        plain.method,
        bayes.method,
        file.method,
        f"{bayes.method}: standard deviation",
    ]
    assert view["std_of"] == [-1, 3, -1]
    std = view["maps"][3]
    shares = np.frombuffer(b64decode(std["values"]), np.uint8).reshape(n_times, -1).T / 255
    expected = 100 * bayes.std_in_window / bayes.in_window.max()
    assert np.allclose(std["maximum"] * shares**2, expected, atol=0.01 * expected.max())
    lines = {line["name"]: line["sources"] for line in view["outlines"]}
    above, held = (
        f"{bayes.method}: above 2 standard deviations",
        f"{file.method}: 90 % prediction set",
    )
    assert set(lines) == {above, held}
    bits = {
        name: np.unpackbits(np.frombuffer(b64decode(text), np.uint8).reshape(n_times, -1), axis=1)
        for name, text in lines.items()
    }
    assert np.array_equal(bits[above][:, :1284].T, bayes.in_window > 2 * bayes.std_in_window)
    at = int(case.in_response.nonzero()[0][view["start"]])
    (prepared,) = (m.estimator(file.case_head.head, case.evoked.nave) for m in files)
    mean = prepared(file.data)[:, at]
    known = prepared.prediction_set(mean, file.data[:, at])
    assert np.array_equal(bits[held][view["start"], :1284], known.sources)
    names = np.array([*view["parcels"], ""])[np.frombuffer(b64decode(view["parcel_of"]), "<i2")]
    assert names.tolist() == parcel_names(template)[0]
    right = template.source_mni[:, 0] > 30
    assert {str(name).split()[1] for name in names[right] if name} == {"R"}


def test_page_shows_every_method_whatever_their_order(template, tmp_path):
    """Methods of two source spaces, in turn: one section each, and no picture is lost."""
    case = simulated_case(template, (16, -73, 9))
    first, second = run([case], [Classical("eLORETA"), Classical("MNE")])
    space = replace(first.case_head.head.space, name="another")
    other = replace(
        first, case_head=replace(first.case_head, head=replace(first.case_head.head, space=space))
    )
    write_report([first, replace(other, method="<x>"), second], [], {"a": "b"}, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64") == 2 + 3  # time courses of two spaces, three maps
    assert "<x>" not in page
    for caption in ("eLORETA: ", "&lt;x&gt;: ", "MNE: "):
        assert f"<figcaption>{caption}" in page
    assert "Below the power: distance of each method&#x27;s strongest source to the centre" in page
    assert "<title>deepesi on a real recording" in page
    assert "mne-tools" not in page
