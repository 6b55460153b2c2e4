"""Monte Carlo dropout: the mixture of thinned networks, the same one every time."""

import hydra
import numpy as np
import pytest
import torch

from deepesi.cli import evaluate
from deepesi.cli.export import export_path
from deepesi.core.contracts import as_tensors
from deepesi.models.convdip import ConvDip
from deepesi.physics.cohort import Cohort
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.session import as_feeds, open_model
from deepesi.training.run import fit
from deepesi.training.weights import load_mc_dropout, load_network, save_network
from deepesi.uncertainty.mc_dropout import MCDropout
from tests.training.toy import TOY, compose


@pytest.fixture
def thick():
    torch.manual_seed(0)
    model = ConvDip(84, height=6, width=6, hidden=24, dropout=0.3)
    torch.nn.init.normal_(model.last.weight)
    return model.eval()


@pytest.fixture
def recording(toy):
    head = toy.montage_head("biosemi16")
    rng = np.random.default_rng(0)
    data = torch.as_tensor(1e-6 * rng.normal(size=(5, 16, 3))).float()
    inputs = as_tensors(prepare(ConvDip(84, height=6, width=6).head_inputs, head))
    return data - data.mean(1, keepdim=True), inputs


def test_a_sample_is_the_network_without_the_units_left_out(thick, recording):
    """By hand: rows of the weights behind the units set to zero, the others raised."""
    with torch.no_grad():
        samples = MCDropout(thick, n_samples=2, seed=3)
        found = samples(*recording)
        by_hand = []
        for k in range(2):
            thinned = ConvDip(84, height=6, width=6, hidden=24).eval()
            state = {n.replace(".4.", ".3."): v.clone() for n, v in thick.state_dict().items()}
            masks = [samples.get_buffer(f"masks_{i}")[k] for i in range(3)]
            layers = ("blocks.0.3.weight", "blocks.1.3.weight", "last.weight")
            for layer, mask in zip(layers, masks, strict=True):
                assert 0 < (mask == 0).sum() < 24
                assert torch.allclose(mask[mask > 0], torch.tensor(1 / 0.7))
                state[layer] *= mask
            thinned.load_state_dict(state)
            by_hand.append(thinned(*recording).mean)
    stacked = torch.stack(by_hand)
    scale = stacked.abs().max()
    assert (found.mean - stacked.mean(0)).abs().max() < 1e-5 * scale
    assert (found.std - stacked.std(0, correction=0)).abs().max() < 1e-5 * scale


def test_repeatable_and_the_same_for_every_recording(thick, recording):
    data, inputs = recording
    with torch.no_grad():
        whole = MCDropout(thick, n_samples=4)(data, inputs)
        again = MCDropout(thick, n_samples=4)(data[2:3], inputs)
        other = MCDropout(thick, n_samples=4, seed=1)(data, inputs)
    assert torch.allclose(whole.std[2:3], again.std, rtol=1e-4, atol=1e-14)
    assert not torch.allclose(whole.std, other.std, rtol=1e-2)
    assert (whole.std > 0).all()


def test_masks_leave_out_the_given_share(thick):
    samples = MCDropout(thick, n_samples=500)
    excluded = torch.stack([samples.get_buffer(f"masks_{i}") for i in range(3)]) == 0
    assert excluded.float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_training_leaves_units_out_and_evaluation_does_not(thick, recording):
    with torch.no_grad():
        assert torch.equal(thick(*recording).mean, thick(*recording).mean)
        thick.train()
        assert not torch.equal(thick(*recording).mean, thick(*recording).mean)


def test_network_without_dropout():
    with pytest.raises(ValueError, match=r"ConvDip has no dropout.*model.dropout=0.1"):
        MCDropout(ConvDip(84, hidden=8))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_impossible_shares(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ConvDip(84, hidden=8, dropout=share)


def test_one_sample_cannot_disagree(thick):
    with pytest.raises(ValueError, match="2 samples or more, got 1"):
        MCDropout(thick, n_samples=1)


@pytest.mark.slow
def test_from_training_to_the_exported_file(toy, toy_path, tmp_path):
    run_dir = tmp_path / "run"
    best = fit(compose(toy_path, run_dir, "model.dropout=0.2"), Cohort.single(toy), run_dir)
    mixed, identity = load_mc_dropout(best, toy.space, 3)
    save_network(mixed, identity, tmp_path / "mixed")
    again, _ = load_network(tmp_path / "mixed", toy.space)
    path = export_path(str(tmp_path / "mixed"), tmp_path / "m.onnx", str(toy_path), "biosemi16")
    head = toy.montage_head("biosemi32")
    inputs = prepare(mixed.head_inputs, head)
    data = 1e-6 * torch.randn(2, 32, 4)
    data -= data.mean(1, keepdim=True)
    with torch.no_grad():
        first, second = (m(data, as_tensors(inputs)) for m in (mixed, again))
    assert torch.equal(first.std, second.std)
    opened = open_model(path)
    assert opened.contract.kinds == ("mean", "std")
    for kind, found in opened.run(data.numpy(), as_feeds(dict(inputs))).items():
        expected = getattr(first, kind).numpy()
        assert np.abs(found - expected).max() < 1e-4 * np.abs(found).max()


@pytest.mark.slow
def test_evaluated_beside_others(toy, toy_path, tmp_path):
    best = fit(compose(toy_path, tmp_path, "model.dropout=0.2"), Cohort.single(toy), tmp_path)

    def run(folder, *more):
        overrides = [
            f"head.name={toy_path}",
            f"mc_dropout={best}",
            "mc_samples=2",
            "baselines=[eloreta]",
            *(setting for setting in TOY if setting.startswith("scenario")),
            *more,
        ]
        with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
            config = evaluate.expanded(hydra.compose("evaluate", overrides), overrides)
        evaluate.run(config, folder)

    run(tmp_path / "compared")
    assert "MCDropout" in (tmp_path / "compared" / "benchmark.md").read_text()
    model, _ = load_network(tmp_path / "compared", toy.space)
    assert isinstance(model, MCDropout)
    with pytest.raises(ValueError, match="both write a network to model/"):
        run(tmp_path / "both", f"ensemble=[{best},{tmp_path / 'compared'}]")
