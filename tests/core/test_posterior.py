"""Posterior models: noise as an argument, trained, exported and drawn from without torch."""

import pickle

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.cli import calibrate
from deepesi.cli.main import main
from deepesi.composition import compose
from deepesi.core.contracts import InverseModel
from deepesi.core.onnx_model import OnnxPosterior, load_onnx
from deepesi.evaluation.calibration import fit, measure
from deepesi.evaluation.observation import N_DRAWS, observe
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.losses.base import WeightedSum
from deepesi.losses.supervised import CosineDistance
from deepesi.metrics.scoring_rules import crps_gaussian, crps_samples, energy_score
from deepesi.runtime.inverse import Inverse
from deepesi.training.weights import load_network, save_network
from deepesi.uncertainty.tempered import Tempered, TemperedPosterior
from tests.core.flow import ToyFlow
from tests.training.test_own_loss import train


def test_it_is_trained_by_its_own_loss(toy, simulate):
    """Nothing in `deepesi.training` depends on samples."""
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
    assert flow.ranks.shape == (30, 3)
    assert 0 <= flow.ranks.min() <= flow.ranks.max() <= N_DRAWS
    fitted = fit(flow, 0.5, 1)
    rows = measure("flow", "toy", "toy", fitted, flow)
    p = {row.group: row.value for row in rows if row.metric == "sbc_p" and row.snr_db == "all"}
    assert p.keys() == {"peak", "norm", "distance"}
    assert p["norm"] < 1e-6  # nobody has trained it
    (off,) = (r for r in rows if r.metric == "tarp_deviation" and r.snr_db == "all")
    assert off.value > 0.2
    of_none = {row.metric for row in measure("x", "toy", "toy", fit(none, 0.5, 1), none)}
    assert not of_none & {"sbc_p", "crps", "energy_score", "log_score", "contraction", "z_score"}


def test_scores_of_recordings_are_those_of_their_samples(simulate):
    model, plain = ToyFlow().eval(), BayesianMinimumNorm().eval()
    inputs = [*model.head_inputs, *plain.head_inputs]
    batch = simulate(inputs, batch_size=2, n_times=3).batch(0)
    models = {"flow": model, "std": UncertaintyOnly(plain)}
    found = observe(models, drawn([batch]), [5.0], "all")
    crps, energy, nats = found["flow"].proper_scores.T
    # Other draws, ten times as many: the scores do not depend on the number but for chance.
    with torch.no_grad():
        samples = model.draw(batch.data, batch.inputs, 10 * N_DRAWS, seed=1).double().numpy()
    for i, target in enumerate(batch.sources.double().numpy()):
        assert crps[i] == pytest.approx(1e9 * crps_samples(samples[:, i], target).mean(), rel=0.02)
        assert energy[i] == pytest.approx(1e9 * energy_score(samples[:, i], target), rel=0.02)
    assert np.isnan(nats).all()
    crps, energy, nats = found["std"].proper_scores.T
    estimate, target = plain(batch.data, batch.inputs), batch.sources.double().numpy()
    expected = crps_gaussian(estimate.mean.double().numpy(), estimate.std.double().numpy(), target)
    assert crps == pytest.approx(1e9 * expected.mean(axis=(1, 2)))
    assert np.isnan(energy).all()


class UncertaintyOnly(InverseModel):
    """Mean and standard deviation of another model."""

    def __init__(self, model):
        super().__init__()
        self.model, self.head_inputs = model, model.head_inputs

    def forward(self, data, inputs):
        return self.model(data, inputs)


def test_contraction_and_z_score_of_normal_posteriors(simulate):
    """Prior N(0, 1) and noise 1: half of the variance is left. Half as wide: z-scores of 2."""
    plain = MinimumNorm("MNE")
    batch = simulate(plain.head_inputs, batch_size=30).batch(0)
    found = observe({"MNE": plain}, drawn([batch]), [5.0], "all")["MNE"]
    rng = np.random.default_rng(0)
    target = rng.normal(size=30)
    target = (target - target.mean()) / target.std()
    mean = 0.5 * (target + rng.normal(size=30))
    draws = rng.normal(size=(N_DRAWS, 30))
    draws = (draws - draws.mean(axis=0)) / draws.std(axis=0)
    for width, left, size in ((1.0, 0.5, 1.0), (0.5, 0.125, 2.0)):
        samples = mean + width * np.sqrt(0.5) * draws
        # The other quantities never vary, so they have neither.
        values = np.stack([np.zeros((N_DRAWS + 1, 30)), np.vstack([samples, target])], axis=2)
        quantities = np.concatenate([values, values[..., :1]], axis=2).transpose(1, 0, 2)
        observed = found._replace(quantities=quantities)
        rows = measure("x", "toy", "toy", fit(found, 0.5, 1), observed)
        own = {(r.group, r.metric): r for r in rows if r.snr_db == "all"}
        assert own["norm", "contraction"].value == pytest.approx(1 - left)
        z_score = own["norm", "z_score"]
        exact = np.sqrt((((mean - target) / (width * np.sqrt(0.5))) ** 2).mean())
        assert z_score.value == pytest.approx(exact)
        assert z_score.ci_low < size < z_score.ci_high
        assert ("peak", "contraction") not in own
        assert ("peak", "z_score") not in own


def test_recordings_unlike_those_of_validation_are_found(simulate):
    """More power is left than of any other, in the bin of their SNR; one of 30 has p = 2 / 31."""
    plain = MinimumNorm("MNE")
    batch = simulate(plain.head_inputs, batch_size=30).batch(0)
    found = observe({"MNE": plain}, drawn([batch]), [5.0], "all")["MNE"]
    assert ((found.unexplained > 0) & (found.unexplained < 1)).all()
    fitted = fit(found, 0.5, 1)
    for observed, share in ((found, 0.0), (found._replace(unexplained=found.unexplained + 1), 1.0)):
        (row,) = (
            r
            for r in measure("MNE", "toy", "toy", fitted, observed)
            if r.metric == "misspecified" and r.snr_db == "all"
        )
        assert (row.value, row.n) == (share, 30)
        assert row.ci_low <= share <= row.ci_high


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "flow.onnx"
    ranges = {"n_channels": [8, 64], "n_times": [1, 6], "sfreq": 250.0, "snr_db": None}
    export_onnx(ToyFlow(), toy.montage_head("biosemi16"), path, {"trained": ranges})
    return path


def test_the_file_gives_the_same_samples_from_the_same_noise(exported, simulate):
    batch = simulate([], montage="biosemi32", batch_size=3, n_times=5).batch(0)
    assert check_parity(ToyFlow(), exported, batch, n_timed=1).max_difference < 1e-5
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


def test_more_draws_than_memory_holds(exported, toy):
    prepared = Inverse.load(exported).prepare_for(toy.montage_head("biosemi16"), 1, "test")
    data = np.random.default_rng(0).normal(scale=1e-6, size=(16, 2))
    message = "asked for 1000000000000 draws: they need 1344000000000000 bytes for 84 dipoles and 2"
    with pytest.raises(MemoryError, match=message):
        prepared.sample(data, 10**12)


def test_a_file_without_samples(eloreta, template):
    prepared = Inverse.load(eloreta).prepare_for(template.montage_head("biosemi32"), 1, "test")
    with pytest.raises(ValueError, match="gives no posterior samples, only mean. Use a posterior"):
        prepared.sample(np.random.default_rng(0).normal(scale=1e-6, size=(32, 1)), 3)


def test_an_exported_file_is_evaluated_with_its_samples(exported, simulate):
    """Mean, standard deviation and samples are those of the model in torch."""
    flow, file = ToyFlow().eval(), pickle.loads(pickle.dumps(load_onnx(exported)))
    assert isinstance(file, OnnxPosterior)
    batch = simulate(flow.head_inputs, n_times=2).batch(0)
    expected, found = (model(batch.data, batch.inputs) for model in (flow, file))
    assert found.samples.shape == (16, 8, 84, 2)
    for kind in ("mean", "std", "samples"):
        torch.testing.assert_close(
            getattr(found, kind), getattr(expected, kind), rtol=1e-4, atol=1e-12
        )
    drawn = [model.draw(batch.data, batch.inputs, 5, seed=3) for model in (flow, file)]
    torch.testing.assert_close(*drawn, rtol=1e-4, atol=1e-12)


def test_an_exported_file_is_calibrated_by_its_samples(exported, simulate):
    models = {"flow": ToyFlow().eval(), "file": load_onnx(exported)}
    recordings = simulate(models["flow"].head_inputs, batch_size=6)
    found = observe(models, drawn([recordings.batch(0)]), [5.0], "all")
    assert np.array_equal(found["flow"].ranks, found["file"].ranks)
    pairs = zip(found["flow"].standardized_errors, found["file"].standardized_errors, strict=True)
    for torch_errors, file_errors in pairs:
        np.testing.assert_allclose(file_errors.error, torch_errors.error, rtol=1e-3, atol=1e-3)


def test_a_closed_form_keeps_its_closed_form(toy, simulate, tmp_path):
    model, path = BayesianMinimumNorm().eval(), tmp_path / "b.onnx"
    export_onnx(model, toy.montage_head("biosemi16"), path)
    file, batch = load_onnx(path), simulate(model.head_inputs).batch(0)
    expected, found = (m(batch.data, batch.inputs) for m in (model, file))
    assert found.samples is None
    torch.testing.assert_close(found.std, expected.std, rtol=1e-4, atol=1e-13)
    pair = [m.draw(batch.data, batch.inputs, 4) for m in (model, file)]
    torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-12)


def test_a_file_without_samples_is_no_posterior(eloreta):
    with pytest.raises(ValueError, match=r"draws no samples \(its outputs: \('mean',\)\)"):
        OnnxPosterior(eloreta)


@pytest.mark.slow
def test_a_calibrated_posterior_keeps_its_samples(toy, toy_path, tmp_path):
    """Wider by the temperature, as its standard deviation; in torch, in the file, on the card."""
    identity = {"model": {"_target_": "tests.core.flow.ToyFlow"}, "space": None}
    run = tmp_path / "run"
    save_network(ToyFlow(), identity | {"space_fingerprint": None}, run / "model")
    settings = ["scenario.n_examples=20", "n_validation=20", "n_bins=1", "scenario.snr_db=[10]"]
    settings += ["scenario.setups.montages=[biosemi16]", "scenario.sources.radius=[0.03,0.06]"]
    settings += [f"head.name={toy_path}", f"models=[{run}]", "baselines=[]"]
    calibrate.run(compose("calibrate", settings), tmp_path / "out")
    calibrated, _ = load_network(tmp_path / "out" / "fitted" / "0", toy.space)
    assert isinstance(calibrated, TemperedPosterior)
    page = (tmp_path / "out" / "calibration.html").read_text()
    assert ">Posterior samples</h2>" in page
    assert "p, peak" in page
    file = tmp_path / "c.onnx"
    fitted, head = str(tmp_path / "out" / "fitted" / "0"), str(toy_path)
    main(["export", fitted, "--head", head, "--montage", "biosemi16", "--out", str(file)])
    card = file.with_suffix(".md").read_text()
    assert "### How well it is calibrated" in card
    ranked = "| method | SNR (dB) | p, peak | p, norm | p, distance | deviation |"
    assert f"{ranked} contraction, peak / norm | z-score, peak / norm | recordings |" in card
    assert "| method | SNR (dB) | CRPS (nA m) | energy score (nA m) | log score (nats) |" in card
    prepared = Inverse.load(file).prepare_for(toy.montage_head("biosemi16"), 1, "test")
    data = np.random.default_rng(0).normal(scale=2e-6, size=(16, 1))
    samples, (_, std) = prepared.sample(data, 400), prepared.estimate(data)
    assert samples.std(0).mean() == pytest.approx(std.mean(), rel=0.1)
    with pytest.raises(TypeError, match="needs a posterior model, got MinimumNorm"):
        TemperedPosterior(MinimumNorm("MNE"))
