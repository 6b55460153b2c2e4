"""Ensembles: the law of total variance, and members trained side by side as if each were alone."""

import copy
import csv
import functools
import hashlib
import shutil
import subprocess
import sys

import hydra
import lightning
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.cli import evaluate, train
from deepesi.cli.export import export_path
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.losses.base import WeightedSum
from deepesi.losses.physics import Reprojection
from deepesi.losses.supervised import CosineDistance
from deepesi.models.convdip import ConvDip
from deepesi.models.gnn import SensorGNN
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.head_inputs import SourceUnit, Whitener
from deepesi.runtime.session import open_model
from deepesi.training.data import RecordingStream
from deepesi.training.module import InverseTraining
from deepesi.training.run import build_model
from deepesi.training.weights import load_ensemble, load_network, save_network
from deepesi.uncertainty.ensemble import DeepEnsemble, StackedEnsemble, mixture
from tests.conftest import slow
from tests.counting import Counting
from tests.training.toy import TOY


def convdip(heteroscedastic=False):
    return ConvDip(n_dipoles=84, height=6, width=6, hidden=16, heteroscedastic=heteroscedastic)


def stacked(member=convdip, n_members=3):
    torch.manual_seed(0)
    return StackedEnsemble(member, n_members)


def close(first, second, rtol=1e-5):
    torch.testing.assert_close(first, second, rtol=rtol, atol=rtol * second.abs().max().item())


def test_mixture_has_the_moments_of_samples_drawn_from_it():
    """Each member estimates a variance; samples come from one member or another, equally often."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 2, 5, 4, generator=generator)
    stds = torch.rand(3, 2, 5, 4, generator=generator) + 0.1
    found = mixture([Estimate(mean, std) for mean, std in zip(means, stds, strict=True)])
    which = torch.randint(0, 3, (200_000,), generator=generator)
    samples = means[which] + stds[which] * torch.randn(200_000, 2, 5, 4, generator=generator)
    torch.testing.assert_close(found.mean, samples.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(found.std, samples.std(0), rtol=0.02, atol=0)


def test_member_without_std_adds_only_its_disagreement():
    mean, std = torch.randn(2, 3, 4, 1)
    silent = mixture([Estimate(mean), Estimate(mean + 2)])
    torch.testing.assert_close(silent.std, torch.ones_like(mean))
    one = mixture([Estimate(mean, std.abs()), Estimate(mean + 2)])
    torch.testing.assert_close(one.std, (1 + std.square() / 2).sqrt())
    torch.testing.assert_close(one.mean, mean + 1)


def test_any_models_make_an_ensemble(simulate):
    members = [convdip(heteroscedastic=True), UnrolledISTA(n_steps=2), MinimumNorm("eLORETA")]
    ensemble = DeepEnsemble(members)
    declared = [d for member in members for d in member.head_inputs]
    assert set(ensemble.head_inputs) == set(declared)
    assert len(ensemble.head_inputs) == len(set(declared))
    assert ensemble.bound_to_space
    assert not DeepEnsemble(members[1:]).bound_to_space
    batch = simulate(ensemble.head_inputs, n_times=2).batch(0)
    estimates = [member(batch.data, batch.inputs) for member in members]
    means = torch.stack([estimate.mean for estimate in estimates]).double()
    variance = means.var(0, correction=0) + estimates[0].std.double().square() / 3
    found = ensemble(batch.data, batch.inputs)
    close(found.mean.double(), means.mean(0))
    close(found.std.double(), variance.sqrt())


def test_source_counts_are_the_mean_over_the_members(simulate):
    """A member that counts further than others gives the rest; one that counts nothing ends it."""
    members = [Counting(0), Counting(1), Counting(2, most=5)]
    ensemble = DeepEnsemble(members)
    batch = simulate(ensemble.head_inputs).batch(0)
    own = [member(batch.data, batch.inputs).source_counts for member in members]
    found = ensemble(batch.data, batch.inputs).source_counts
    close(found[:, 3:], own[2][:, 3:] / 3)
    close(found[:, :3], (own[0] + own[1] + own[2][:, :3]) / 3)
    without = DeepEnsemble([*members, MinimumNorm()])
    batch = simulate(without.head_inputs).batch(0)
    assert without(batch.data, batch.inputs).source_counts is None


def test_stacked_members_count_sources(simulate):
    ensemble = stacked(functools.partial(Counting, most=4))
    for number, row in enumerate(ensemble.stack.member.weights.data):
        row.add_(number)
        row[0] += number
    batch = simulate(ensemble.head_inputs).batch(0)
    expected = ensemble.unstacked()(batch.data, batch.inputs).source_counts
    close(ensemble(batch.data, batch.inputs).source_counts, expected)


ARCHITECTURES = {
    "convdip": convdip,
    "convdip with std": lambda: convdip(heteroscedastic=True),
    "unrolled_ista": lambda: UnrolledISTA(n_steps=2, heteroscedastic=True),
    "gnn": lambda: SensorGNN(heteroscedastic=True),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stacked_members_are_those_computed_one_by_one(name, simulate):
    """Estimates and gradients of every member."""
    ensemble = stacked(ARCHITECTURES[name])
    apart = ensemble.unstacked()
    assert len({type(member) for member in apart.members}) == 1
    batch = simulate(ensemble.head_inputs, n_times=3).batch(0)
    pairs = zip(
        ensemble.member_estimates(batch.data, batch.inputs),
        apart.member_estimates(batch.data, batch.inputs),
        strict=True,
    )
    totals = [0.0, 0.0]
    for number, pair in enumerate(pairs):
        close(pair[0].mean, pair[1].mean)
        assert (pair[0].std is None) == (pair[1].std is None) == (name == "convdip")
        for i, estimate in enumerate(pair):  # of different size, as members' gradients must not mix
            outputs = [output for output in estimate if output is not None]
            totals[i] += (1 + number) * sum((1e9 * output).square().sum() for output in outputs)
    for total in totals:
        total.backward()
    for key, weight in ensemble.stack.member.named_parameters():
        for number, member in enumerate(apart.members):
            own = member.get_parameter(key).grad
            if own is None:
                assert weight.grad is None
            else:
                close(weight.grad[number], own, rtol=1e-4)
    close(ensemble(batch.data, batch.inputs).mean, apart(batch.data, batch.inputs).mean)


class Noisy(InverseModel):
    """Shares a weight between two layers, keeps a buffer, and drops outputs in training."""

    bound_to_space = False

    def __init__(self) -> None:
        super().__init__()
        self.whitener, self.unit = Whitener(), SourceUnit()
        self.head_inputs = (self.whitener, self.unit)
        self.first, self.second = nn.Linear(1, 4, bias=False), nn.Linear(1, 4, bias=False)
        self.second.weight = self.first.weight
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("offset", torch.randn(4))

    def forward(self, data, inputs):
        loudness = (inputs[self.whitener.key] @ data).square().mean(1, keepdim=True)
        hidden = self.first(loudness.mT) + self.second(loudness.mT) + self.offset
        of_all = self.dropout(hidden).sum(2, keepdim=True).mT
        return Estimate(of_all * inputs[self.unit.key][:, None])


def test_shared_weights_stay_shared_and_members_draw_their_own_noise(simulate):
    ensemble = stacked(Noisy)
    assert len(list(ensemble.parameters())) == 1
    assert ensemble.stack.member.second.weight is ensemble.stack.member.first.weight
    apart = ensemble.unstacked().eval()
    batch = simulate(ensemble.head_inputs).batch(0)
    in_use = ensemble.eval()(batch.data, batch.inputs)
    close(in_use.mean, apart(batch.data, batch.inputs).mean)
    assert len({float(value) for value in ensemble.stack.member.offset[:, 0]}) == 3
    with torch.no_grad():
        for tensor in ensemble.stack.tensors().values():
            tensor[:] = tensor[0].clone()
    same = ensemble.member_estimates(batch.data, batch.inputs)
    assert torch.equal(same[0].mean, same[1].mean)
    drawn = ensemble.train().member_estimates(batch.data, batch.inputs)
    assert not torch.equal(drawn[0].mean, drawn[1].mean)


def train_two_steps(model, toy, simulate, clip):
    """Two steps of the real training; the clipping is that of the trainer."""
    loss = WeightedSum(
        {"cosine": CosineDistance(), "reprojection": Reprojection()},
        {"cosine": 1.0, "reprojection": 0.01},
    )
    module = InverseTraining(model, loss, {}, toy.space, 1e-3, 0.01, 1, 10, {})
    declarations = [*model.head_inputs, *loss.head_inputs]
    data = RecordingStream(simulate(declarations), simulate(declarations, split="validation"), 2, 1)
    lightning.Trainer(
        accelerator="cpu",
        max_steps=2,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)


@pytest.mark.parametrize("clip", [slow(None), 0.02])
@pytest.mark.parametrize("kind", ["stacked", "apart"])
def test_training_is_that_of_every_member_alone(kind, clip, toy, simulate):
    ensemble = stacked()
    alone = [copy.deepcopy(member) for member in ensemble.unstacked().members]
    for member in alone:
        train_two_steps(member, toy, simulate, clip)
    ensemble = ensemble if kind == "stacked" else ensemble.unstacked()
    before = copy.deepcopy(ensemble.state_dict())
    train_two_steps(ensemble, toy, simulate, clip)
    assert any(not torch.equal(v, before[k]) for k, v in ensemble.state_dict().items())
    trained = ensemble.unstacked() if kind == "stacked" else ensemble
    for member, expected in zip(trained.members, alone, strict=True):
        # Adam moves a weight by the learning rate, 1e-3, however small its gradient. Where that is
        # nothing but rounding errors, which differ between processors, so is the direction: no
        # bound holds for single weights. What all weights have in common is a thousandth of a step.
        differences = torch.cat(
            [
                (value - expected.state_dict()[key]).abs().flatten()
                for key, value in member.state_dict().items()
            ]
        )
        assert differences.quantile(0.99) < 1e-6
        assert differences.mean() < 1e-6


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_are_clipped_apart(name):
    ensemble = stacked(ARCHITECTURES[name])
    for weight in ensemble.parameters():
        weight.grad = torch.randn_like(weight) * torch.tensor([1.0, 1e-6, 10.0]).reshape(
            -1, *[1] * (weight.ndim - 1)
        )
    apart = ensemble.unstacked()
    for number, member in enumerate(apart.members):
        for key, weight in member.named_parameters():
            weight.grad = ensemble.stack.member.get_parameter(key).grad[number].clone()
    norms, expected = ensemble.clip_gradients(0.5), apart.clip_gradients(0.5)
    torch.testing.assert_close(norms, expected)
    assert norms[1] < 0.5 < norms[0] < norms[2]
    torch.testing.assert_close(ensemble.clip_gradients(1e9), norms.clamp(max=0.5))
    for number, member in enumerate(apart.members):
        for key, weight in member.named_parameters():
            torch.testing.assert_close(
                ensemble.stack.member.get_parameter(key).grad[number], weight.grad
            )


def compose(toy_path, run_dir, *overrides):
    of_member = [setting.replace("model.", "model.member.") for setting in TOY]
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose(
            "train",
            [
                "model=ensemble",
                "model.n_members=2",
                "baselines=[]",
                *of_member,
                f"head.name={toy_path}",
                "name=toy",
                f"logger.save_dir={run_dir}",
                *overrides,
            ],
        )


@pytest.mark.slow
def test_the_whole_road(toy, toy_path, tmp_path, simulate):
    """``python train.py model=ensemble``: trains, compares, exports mean and deviation."""
    train.run(compose(toy_path, tmp_path), tmp_path)
    model, identity = load_network(tmp_path / "checkpoints" / "best.ckpt", toy.space)
    assert isinstance(model, StackedEnsemble)
    assert identity["model"]["member"]["n_dipoles"] == 84
    members = model.unstacked().members
    assert not torch.equal(members[0].first.weight, members[1].first.weight)
    opened = open_model(tmp_path / "export" / "model.onnx")
    assert [output.name for output in opened.session.get_outputs()] == ["dipole_mean", "dipole_std"]
    with (tmp_path / "benchmark.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"StackedEnsemble"}


def test_another_architecture_is_chosen_by_name(toy, toy_path, tmp_path):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose(
            "train",
            ["model=ensemble", "model@model.member=unrolled_ista", "model.member.n_steps=2"],
        )
    model, _ = build_model(config.model, toy)
    assert model.n_members == 5
    assert isinstance(model.stack.member, UnrolledISTA)
    assert not model.bound_to_space


@pytest.fixture
def save(toy, tmp_path):
    """Saves a network of its own seed as a run does; for another source space if told so."""

    def run(seed, space=toy.space):
        torch.manual_seed(seed)
        config = {
            "_target_": "deepesi.models.convdip.ConvDip",
            "n_dipoles": 84,
            "height": 6,
            "width": 6,
            "hidden": 16,
        }
        identity = {
            "model": config,
            "space": space.name,
            "space_fingerprint": space.fingerprint,
            "montages": ["biosemi32"],
            "config_sha256": 64 * str(seed),
        }
        folder = tmp_path / str(seed)
        save_network(hydra.utils.instantiate(config), identity, folder / "model")
        return folder

    return run


@pytest.mark.slow
def test_separate_runs_are_evaluated_and_exported_as_one(save, toy, toy_path, tmp_path, simulate):
    paths = [save(seed) for seed in (1, 2)]
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        overrides = [
            f"head.name={toy_path}",
            "baselines=[]",
            f"ensemble=[{paths[0]},{paths[1]}]",
            *(setting for setting in TOY if setting.startswith("scenario")),
        ]
        config = evaluate.expanded(hydra.compose("evaluate", overrides), overrides)
    OmegaConf.save(config, tmp_path / "config.yaml")  # as the command does
    evaluate.run(config, tmp_path)
    assert "DeepEnsemble" in (tmp_path / "benchmark.csv").read_text()
    joined, _ = load_ensemble(paths, toy.space)
    again, _ = load_network(tmp_path, toy.space)
    assert isinstance(again, DeepEnsemble)
    batch = simulate(joined.head_inputs).batch(0)
    found, expected = again(batch.data, batch.inputs), joined(batch.data, batch.inputs)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)
    first = load_network(paths[0], toy.space)[0]
    assert torch.equal(
        joined.member_estimates(batch.data, batch.inputs)[0].mean,
        first(batch.data, batch.inputs).mean,
    )
    path = export_path(str(tmp_path), tmp_path / "e.onnx", str(toy_path), "biosemi16")
    contract = open_model(path).contract
    assert contract.kinds == ("mean", "std")
    assert len(contract.model["members"]) == 2
    assert contract.montages == ("biosemi32",)
    assert "| DeepEnsemble |" in path.with_suffix(".md").read_text()  # its benchmark
    both = "\n".join((64 * "1", 64 * "2"))
    assert contract.config_sha256 == hashlib.sha256(both.encode()).hexdigest()


def test_members_of_different_source_spaces_are_refused(save, toy, template):
    paths = [save(1), save(2, template.space)]
    with pytest.raises(
        ValueError,
        match=r"different source spaces: .*1 belongs to fsaverage-ico1.*2 belongs to "
        r"fsaverage-ico3.*same head",
    ):
        load_ensemble(paths, toy.space)
    with pytest.raises(ValueError, match="was trained for the source space fsaverage-ico1"):
        load_ensemble([paths[0], save(3)], template.space)


def test_sizes_that_differ_are_refused(simulate):
    ensemble = DeepEnsemble([convdip(), ConvDip(n_dipoles=42, height=6, width=6, hidden=16)])
    batch = simulate(ensemble.head_inputs).batch(0)
    with pytest.raises(ValueError, match=r"different source spaces: they estimate \[84, 42\]"):
        ensemble(batch.data, batch.inputs)


def test_what_cannot_be_joined_is_refused(save, toy, tmp_path):
    path = save(1)
    with pytest.raises(ValueError, match="named twice in .*Name every network once"):
        load_ensemble([path, path], toy.space)
    with pytest.raises(ValueError, match=r"x.onnx'\] are exported files. Give the checkpoints"):
        load_ensemble([path, tmp_path / "x.onnx"], toy.space)
    for paths in ([], [path]):
        with pytest.raises(ValueError, match=f"needs 2 members or more, got {len(paths)}"):
            load_ensemble(paths, toy.space)


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(ValueError, match="StackedEnsemble: needs 2 members or more, got 1. .*seed"):
        StackedEnsemble(convdip, 1)
    with pytest.raises(
        TypeError,
        match=r"must be a function that returns a new network, got ConvDip.*_partial_=true",
    ):
        StackedEnsemble(convdip())
    with pytest.raises(TypeError, match=r"must be inverse models, got \['Linear', 'Linear'\]"):
        StackedEnsemble(lambda: nn.Linear(1, 1), 2)
    with pytest.raises(TypeError, match=r"must be inverse models, got \['str'\].*load_ensemble"):
        DeepEnsemble([convdip(), "outputs/convdip/0"])
    with pytest.raises(ValueError, match="MinimumNorm has no weights, so all members would be"):
        StackedEnsemble(lambda: MinimumNorm("MNE"), 2)


COMPILED = """
import sys
import torch
from deepesi.core.contracts import as_tensors
from deepesi.models.convdip import ConvDip
from deepesi.physics.head_inputs import prepare
from deepesi.physics.template import load_template
from deepesi.uncertainty.ensemble import StackedEnsemble
head = load_template(sys.argv[1]).montage_head("biosemi16")
model = StackedEnsemble(lambda: ConvDip(84, height=6, width=6, hidden=16), 2)
eeg = torch.randn(3, 16, 1) * head.noise_level
inputs = as_tensors(prepare(model.head_inputs, head))
keys = model.state_dict().keys()
before = model.member_estimates(eeg, inputs)
model.compile(dynamic=True)
after = model.member_estimates(eeg, inputs)
assert model.state_dict().keys() == keys
for first, second in zip(before, after, strict=True):
    assert (first.mean - second.mean).abs().max() < 1e-5 * first.mean.abs().max()
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_stacked_members_compile(toy_path):
    """In a process of its own, where no shapes are checked: that cannot be compiled."""
    subprocess.run([sys.executable, "-c", COMPILED, toy_path], check=True)
