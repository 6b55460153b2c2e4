"""Posterior models: noise as an argument, trained, exported and drawn from without torch."""

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.evaluation.calibration import fit, measure
from deepesi.evaluation.observation import N_DRAWS, observe
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.losses.base import WeightedSum
from deepesi.losses.supervised import CosineDistance
from deepesi.runtime.inverse import Inverse
from deepesi.uncertainty.tempered import Tempered
from tests.core.flow import ToyFlow
from tests.training.test_own_loss import train


def test_it_is_trained_by_its_own_loss(toy, simulate):
    """Nothing in `deepesi.training` knows of samples."""
    model = ToyFlow()
    before = model.velocity[0].weight.detach().clone()
    objective = WeightedSum({"cosine": CosineDistance()}, {"cosine": 1.0})
    logged = train(model, objective, toy, simulate)
    assert not torch.equal(model.velocity[0].weight, before)
    assert {"loss", "train/flow", "val/loss", "val/nemd"} <= set(logged)


def test_the_estimate_is_that_of_fixed_draws(simulate):
    model = ToyFlow().eval()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    first, alone = (model(data, batch.inputs) for data in (batch.data, batch.data[2:3]))
    assert first.samples.shape == (16, 8, 84, 3)
    assert torch.allclose(first.samples[:, 2:3], alone.samples, rtol=1e-4, atol=1e-14)
    assert torch.allclose(first.mean, first.samples.mean(0))
    assert torch.allclose(first.std, first.samples.std(0, correction=0))


def test_more_noise_than_the_table_of_fixed_draws_holds(simulate):
    model = ToyFlow().eval()
    batch = simulate(model.head_inputs, n_times=60).batch(0)
    assert model.noise_size(batch.data, batch.inputs) == 84 * 60 > 4099
    assert torch.isfinite(model(batch.data, batch.inputs).std).all()


def test_an_axis_that_no_head_input_has(simulate):
    model = ToyFlow()
    model.noise_axes = (4, "vertices")
    batch = simulate(model.head_inputs).batch(0)
    with pytest.raises(ValueError, match=r"draws along \['vertices'\], the head inputs have the"):
        model.draw(batch.data, batch.inputs, 2)
    model.noise_axes = (4, "channels")
    assert model.noise_size(batch.data, batch.inputs) == 64


def test_a_temperature_widens_samples_about_the_mean(simulate):
    model = ToyFlow().eval()
    batch = simulate(model.head_inputs).batch(0)
    before, after = (m(batch.data, batch.inputs) for m in (model, Tempered(model, 3.0)))
    torch.testing.assert_close(after.samples.mean(0), before.mean, rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(after.samples.std(0), 3 * before.samples.std(0))


def drawn(batches):
    """A `Draw` of these batches, all recordings of each."""
    return lambda snr_db: ((batch, len(batch.data)) for batch in batches)


def test_it_is_calibrated_by_its_samples(simulate):
    model, plain = ToyFlow().eval(), MinimumNorm("MNE")
    recordings = simulate([*model.head_inputs, *plain.head_inputs], batch_size=30)
    found = observe({"flow": model, "MNE": plain}, drawn([recordings.batch(0)]), [5.0], "all")
    flow, none = found["flow"], found["MNE"]
    assert none.ranks is None
    assert none.standardized_errors == []
    assert flow.ranks.shape == (30, 2)
    assert 0 <= flow.ranks.min() <= flow.ranks.max() <= N_DRAWS
    fitted = fit(flow, 0.5, 1)
    rows = measure("flow", "toy", "toy", fitted, flow)
    p = {row.group: row.value for row in rows if row.metric == "sbc_p" and row.snr_db == "all"}
    assert p.keys() == {"peak", "norm"}
    assert p["norm"] < 1e-6  # nobody has trained it
    assert not [r for r in measure("x", "toy", "toy", fit(none, 0.5, 1), none) if "sbc" in r.metric]


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "flow.onnx"
    ranges = {"n_channels": [8, 64], "n_times": [1, 6], "sfreq": 250.0, "snr_db": None}
    export_onnx(ToyFlow(), toy.montage_head("biosemi16"), path, {"trained": ranges})
    return path


def test_the_file_gives_the_same_samples_from_the_same_noise(exported, simulate):
    batch = simulate([], montage="biosemi32", batch_size=3, n_times=5).batch(0)
    assert check_parity(ToyFlow(), exported, batch, n_timed=1).deviation < 1e-5
    contract = Inverse.load(exported).contract
    assert contract.kinds == ("mean", "std", "samples")
    assert contract.noise == ("dipoles", "times")
    assert "noise" in contract.self_test.inputs
    assert "dipole_samples" in contract.self_test.outputs


def test_drawn_without_torch(exported, toy, simulate):
    head = toy.montage_head("biosemi16")
    prepared = Inverse.load(exported).prepare_for(head, 1, "test")
    data = simulate([], n_times=4).batch(0).data[0].double().numpy()
    first, again, other = (prepared.sample(data, 200, seed) for seed in (1, 1, 2))
    assert first.shape == (200, 84, 4)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    mean, std = prepared.estimate(data)
    off = np.abs(first.mean(0) - mean) / std
    assert off.mean() < 2 * np.sqrt(1 / 16 + 1 / 200)  # the mean is of 16 draws
    assert first.std(0).mean() == pytest.approx(std.mean(), rel=0.1)


@pytest.mark.parametrize(
    ("n", "n_times", "message"),
    [(0, 4, "asked for 0 draws of 4 samples"), (2, 7, "2 draws of 7 samples .* at most 6 samples")],
)
def test_draws_that_cannot_be(exported, toy, n, n_times, message):
    prepared = Inverse.load(exported).prepare_for(toy.montage_head("biosemi16"), 1, "test")
    data = np.random.default_rng(0).normal(scale=1e-6, size=(16, n_times))
    with pytest.raises(ValueError, match=message):
        prepared.sample(data, n)


def test_a_file_without_samples(eloreta, template):
    prepared = Inverse.load(eloreta).prepare_for(template.montage_head("biosemi32"), 1, "test")
    with pytest.raises(ValueError, match="gives no posterior samples, only mean. Use a posterior"):
        prepared.sample(np.random.default_rng(0).normal(scale=1e-6, size=(32, 1)), 3)
