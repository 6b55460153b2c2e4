"""Two networks as one: which of them estimates, and that a file holds both."""

from dataclasses import replace

import hydra
import pytest
import torch

from deepesi.cli import evaluate
from deepesi.core.contracts import as_tensors
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.models.by_cortex import ByCortex
from deepesi.models.loose_matched_filter import LooseMatchedFilter
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.physics.head_inputs import prepare
from deepesi.training.weights import load_network, save_network
from tests.counting import Counting
from tests.models.free import apply

SIZES = {
    "n_components": 1,
    "n_sweeps": 1,
    "hidden": 8,
    "n_strongest": 8,
    "n_radii": 2,
    "smallest": 0.03,
    "largest": 0.06,
    "heteroscedastic": True,
}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    pair = LooseMatchedFilter(**SIZES), UnrolledMatchedFilter(**SIZES, along_normals=True)
    for network in pair:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return tuple(network.eval() for network in pair)


@pytest.mark.parametrize("is_own", [False, True])
def test_the_cortex_of_the_head_chooses_the_network(networks, is_own, simulate):
    batch = simulate([], n_times=3).batch(0)
    head = replace(batch.head, own_normals=is_own)
    expected = apply(networks[is_own], batch.data, head)
    found = apply(ByCortex(*networks).eval(), batch.data, head)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)
    other = apply(networks[not is_own], batch.data, head)
    assert not torch.allclose(found.mean, other.mean)


def test_it_needs_what_both_need():
    both = ByCortex(Counting(0), UnrolledMatchedFilter(**SIZES))
    assert len(set(both.head_inputs)) == len(both.head_inputs)
    for network in (both.template, both.own):
        assert set(network.head_inputs) < set(both.head_inputs)


def test_an_evaluation_combines_two_runs(networks, toy, toy_path, tmp_path):
    spaces = {"template": replace(toy.space, n_orient=3), "own": toy.space}
    for (name, space), network in zip(spaces.items(), networks, strict=True):
        kind = type(network)
        normal = {"along_normals": True} if name == "own" else {}
        identity = {
            "model": {"_target_": f"{kind.__module__}.{kind.__qualname__}", **SIZES, **normal},
            "space": space.name,
            "space_fingerprint": space.fingerprint,
        }
        (tmp_path / name).mkdir()
        save_network(network, identity, tmp_path / name)
    overrides = [
        f"head.name={toy_path}",
        *(f"by_cortex.{name}={tmp_path / name}" for name in spaces),
        "baselines=[eloreta]",
        "scenario.snr_db=[10]",
        "scenario.n_examples=4",
        "scenario.setups.montages=[biosemi16]",
    ]
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = evaluate.expanded(hydra.compose("evaluate", overrides), overrides)
    evaluate.run(config, tmp_path / "run")
    assert "ByCortex" in (tmp_path / "run" / "benchmark.md").read_text()
    again, identity = load_network(tmp_path / "run", toy.space)
    assert isinstance(again, ByCortex)
    assert identity["space_fingerprint"] == spaces["template"].fingerprint
    for part, network in zip((again.template, again.own), networks, strict=True):
        for name, weights in network.state_dict().items():
            assert torch.equal(part.state_dict()[name], weights)


def test_networks_of_other_outputs_are_not_exported(networks, toy, tmp_path):
    silent = UnrolledMatchedFilter(**SIZES | {"heteroscedastic": False}, along_normals=True)
    model = ByCortex(networks[0], silent)
    with pytest.raises(ValueError, match="mean and std on one kind of cortex and mean on the oth"):
        export_onnx(model, toy.montage_head("biosemi16"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_exported_file_holds_both(networks, toy, simulate, tmp_path):
    model, path = ByCortex(*networks).eval(), tmp_path / "model.onnx"
    export_onnx(model, toy.montage_head("biosemi16"), path)
    assert model.traced == "template"
    batch = simulate([], n_times=3).batch(0)
    estimates = []
    for is_own in (False, True):
        head = replace(batch.head, own_normals=is_own)
        parity = check_parity(model, path, replace(batch, head=head), n_timed=1)
        assert parity.max_difference <= 1e-4
        inputs = as_tensors(prepare(model.head_inputs, head))
        with torch.no_grad():
            estimates.append(model(batch.data, inputs).mean)
    assert not torch.allclose(*estimates)
