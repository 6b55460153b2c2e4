"""Prediction sets through an file: thresholds travel, `apply` says and writes the sources."""

from dataclasses import replace

import mne
import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.calibration.conformal import (
    PredictionSets,
    estimated_snr_db,
    proportion,
    reach_kernel,
    source_scores,
    target_scores,
)
from deepesi.cli.main import main
from deepesi.core.quantities import magnitude
from deepesi.export.to_onnx import export_onnx
from deepesi.metrics.example import Geometry
from deepesi.physics.noise import rank_of, whitener
from deepesi.runtime.contract import Calibration
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked


@pytest.fixture(scope="module")
def uncalibrated(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("x") / "e.onnx"
    export_onnx(MinimumNorm("eLORETA"), toy.montage_head("biosemi16"), path)
    return path


def scored(model, batch):
    """Scores of places and of the truth, and what SNR is read off."""
    with torch.no_grad():
        maps = magnitude(model(batch.data, batch.inputs).mean, 1).double().numpy()
    scores = source_scores(maps, reach_kernel(batch.head.source_pos))
    truth = target_scores(scores, batch.scene.peaks.numpy(), batch.scene.moments.numpy())
    whitened = whitener(batch.head.noise_cov) @ batch.data.numpy()
    return scores, truth, estimated_snr_db(whitened, rank_of(batch.head.noise_cov))


def test_a_file_keeps_the_promise_that_was_fitted(toy, simulate, tmp_path):
    """The same places as where it was fitted; they hold 90 % of the sources drawn later."""
    model = MinimumNorm("eLORETA")
    draws = simulate(model.head_inputs, batch_size=400, snr_db=(0, 15), split="validation", seed=1)
    _, truth, snr_db = scored(model, draws.batch(0))
    sets = PredictionSets.fit(truth, snr_db, 0.9, 3)
    path = tmp_path / "e.onnx"
    export_onnx(
        model,
        toy.montage_head("biosemi16"),
        path,
        calibration=Calibration(
            0.9, "all", tuple(sets.edges.tolist()), tuple(sets.thresholds.tolist()), None, "a draw"
        ),
    )
    test = simulate(model.head_inputs, batch_size=400, snr_db=(0, 15), split="test", seed=2).batch(
        0
    )
    scores, _, snr_db = scored(model, test)
    inverse = Inverse.load(path, head=None).prepare_for(test.head, 1, "a test")
    peaks, hits = test.scene.peaks.numpy(), 0
    areas = Geometry(test.head).areas
    for number, data in enumerate(test.data.double().numpy()):
        prediction_set = inverse.prediction_set(inverse.estimate(data)[0][:, 0], data[:, 0])
        expected = sets.prediction_sets(scores[[number]], snr_db[[number]])[0]
        assert np.mean(prediction_set.sources != expected) < 0.03  # places on the edge, by rounding
        assert prediction_set.area == pytest.approx(areas[prediction_set.sources].sum())
        true = peaks[number][peaks[number] >= 0]
        hits += bool(prediction_set.sources[true].all())
    assert proportion(hits, 400).high > 0.9
    assert hits / 400 > 0.85


def test_apply_says_and_writes_the_region(
    uncalibrated, toy_path, toy, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    calibration = Calibration(0.9, "all", (5.0,), (0.3, 0.2), None, "a draw")
    export_onnx(
        MinimumNorm("eLORETA"),
        toy.montage_head("biosemi16"),
        tmp_path / "c.onnx",
        calibration=calibration,
    )
    evoked = make_evoked()
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    found = {}
    for name, path in (("c", tmp_path / "c.onnx"), ("u", uncalibrated)):
        main(
            [
                "apply",
                str(path),
                "x-ave.fif",
                "--noise-cov",
                "x-cov.fif",
                "--head",
                str(toy_path),
                "--out",
                name,
            ]
        )
        found[name] = capsys.readouterr().out
    assert "90 % prediction set, calibrated on simulations: " in found["c"]
    assert "region" not in found["u"]
    assert not list(tmp_path.glob("u-region*"))
    labels = [mne.read_label(path) for path in sorted(tmp_path.glob("c-prediction-set-*.label"))]
    named = sum(len(label.vertices) for label in labels)
    assert f"cm², {named} sources" in found["c"]
    for label in labels:
        assert np.isin(label.vertices, toy.space.vertices[label.hemi == "rh"]).all()
    assert not list(tmp_path.glob(".*"))


def test_samples_of_another_shape(uncalibrated, toy):
    inverse = Inverse.load(uncalibrated).prepare_for(toy.montage_head("biosemi16"), 1, "a test")
    assert inverse.prediction_set(np.ones(84), np.zeros(16)) is None
    with pytest.raises(ValueError, match=r"shapes \(83,\) and \(16,\), expected \(84,\) and"):
        inverse.prediction_set(np.ones(83), np.zeros(16))


def test_fixed_file_on_a_head_of_free_orientation(uncalibrated, toy):
    """A file that keeps its number of orientations says so before anything is computed."""
    inverse, head = Inverse.load(uncalibrated), toy.montage_head("biosemi16")
    free = replace(
        head, leadfield=np.repeat(head.leadfield, 3, axis=1), space=replace(head.space, n_orient=3)
    )
    fixed = replace(inverse.contract, n_orient=1)
    inverse.model = inverse.model._replace(contract=fixed)
    assert inverse.prepare_for(head, 1, "a test").space.n_orient == 1
    with pytest.raises(
        ValueError, match=r"gives 1 orientation\(s\) .* the head fsaverage-ico1 has 3"
    ):
        inverse.prepare_for(free, 1, "a test")
