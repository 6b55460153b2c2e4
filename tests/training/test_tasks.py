"""Tasks without targets: closed forms, and runs of two steps."""

import math
import shutil
from dataclasses import replace

import hydra
import pytest
import torch

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.unlabelled import Mixed, Unlabelled
from deepesi.data_gen.sources import PatchSources
from deepesi.losses.alignment import MaximumMeanDiscrepancy
from deepesi.models.convdip import ConvDip
from deepesi.models.gnn import SensorGNN
from deepesi.physics.cohort import Cohort
from deepesi.physics.head_inputs import Whitener
from deepesi.training.mixed import MixedRecordings, without_targets
from deepesi.training.real import RealRecordings
from deepesi.training.run import fit
from deepesi.training.tasks.alignment import Alignment, Coral
from deepesi.training.tasks.base import check_batches
from deepesi.training.tasks.contrastive import Contrastive, nt_xent
from deepesi.training.tasks.features import LayerFeatures
from deepesi.training.tasks.masked import (
    MaskedChannels,
    Masking,
    predict_missing,
    referenced_to_visible,
    unexplained,
)
from deepesi.training.weights import load_network
from tests.conftest import slow
from tests.training.recordings import save_raws
from tests.training.toy import TOY, load, same, weights

WIDE = {"smallest": 0.03, "largest": 0.06, "n_components": 1, "n_rounds": 1}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def gnn():
    torch.manual_seed(0)
    return SensorGNN(**WIDE)


@pytest.fixture
def unlabelled(simulate, gnn):
    return without_targets(simulate(gnn.head_inputs, n_times=8).batch(0), 250.0)


# Masked channels


def test_masking_keeps_enough_channels():
    masking = Masking.draw(16, 0.9, rng())
    assert len(masking.visible) == 8
    assert sorted([*masking.visible.tolist(), *masking.missing.tolist()]) == list(range(16))
    assert len(Masking.draw(16, 0.01, rng()).missing) == 1
    assert len(Masking.draw(64, 0.5, rng()).missing) == 32


def test_predictions_do_not_see_the_missing_channels(unlabelled, gnn):
    masking = Masking.draw(16, 0.3, rng())
    first = predict_missing(gnn, unlabelled.data, unlabelled.head, masking)
    changed = unlabelled.data.clone()
    changed[:, masking.missing] += 1e-5
    second = predict_missing(gnn, changed, unlabelled.head, masking)
    assert first.shape == (8, 5, 8)
    assert torch.allclose(first, second, atol=1e-5 * first.abs().max().item())


def test_an_exact_inverse_predicts_exactly(simulate):
    """Noise-free data of the nominal head: minimum norm explains and predicts most of them."""
    model = MinimumNorm("MNE")
    batch = simulate(
        model.head_inputs,
        montage="biosemi64",
        snr_db=(200, 200),
        sources=PatchSources(n_sources=(1, 1), radius=(0.06, 0.06)),
    ).batch(0)
    data = torch.as_tensor(batch.head.leadfield, dtype=torch.float32) @ batch.sources
    masking = Masking.draw(64, 0.1, rng())
    found = unexplained(
        predict_missing(model, data, batch.head, masking), data, batch.head, masking
    )
    assert found.max() < 0.2


def test_unexplained_share(unlabelled):
    masking = Masking.draw(16, 0.3, rng())
    data, head = unlabelled.data, unlabelled.head
    target = referenced_to_visible(data, head.sensors, masking)[:, masking.missing]
    assert unexplained(target, data, head, masking).abs().max() < 1e-6
    std = torch.tensor(head.noise_cov.diagonal()).float().sqrt()[masking.missing, None]
    power = (target / std).square().mean((1, 2))
    nothing = unexplained(torch.zeros_like(target), data, head, masking)
    assert torch.allclose(nothing, power / (power + 1), rtol=1e-4)


def test_masked_loss_trains_the_whole_network(unlabelled, gnn):
    task = MaskedChannels(MinimumNorm("eLORETA"))
    loss = task.training_loss(gnn, unlabelled, None, rng())["loss"]
    again = task.training_loss(gnn, unlabelled, None, rng())["loss"]
    assert torch.equal(loss, again)
    loss.backward()
    trained = {name for name, p in gnn.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"window.weight", "evidence.score.weight", "cross.value.weight"} <= trained


class Silent(InverseModel):
    """Finds no sources."""

    head_inputs = (Whitener(),)

    def forward(self, data, inputs):
        return Estimate(data.new_zeros(len(data), 84, data.shape[2]))


def test_the_background_takes_what_the_network_leaves(unlabelled, gnn):
    eloreta, masking = MinimumNorm("eLORETA"), Masking.draw(16, 0.3, rng())
    arguments = (unlabelled.data, unlabelled.head, masking)
    alone = predict_missing(eloreta, *arguments)
    assert torch.allclose(predict_missing(Silent(), *arguments, eloreta), alone, atol=1e-10)
    both = predict_missing(gnn, *arguments, eloreta)
    assert not torch.allclose(both, predict_missing(gnn, *arguments), rtol=0.1)


def test_the_background_is_not_trained(unlabelled, gnn):
    background = SensorGNN(**WIDE)
    task = MaskedChannels(background)
    task.training_loss(gnn, unlabelled, None, rng())["loss"].backward()
    assert all(weight.grad is None for weight in background.parameters())
    assert any(weight.grad is not None for weight in gnn.parameters())


@pytest.mark.parametrize("missing", [[], [0.0], [1.0]])
def test_shares_of_missing_channels(missing):
    with pytest.raises(ValueError, match="missing must hold shares between 0 and 1"):
        MaskedChannels(missing=missing)


# Contrastive


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_nt_xent_in_closed_form(n, temperature):
    """Orthogonal pairs, and views that are all the same; lengths do not matter."""
    axes = torch.eye(n)
    expected = math.log(math.exp(1 / temperature) + 2 * n - 2) - 1 / temperature
    assert nt_xent(axes, 3 * axes, temperature).item() == pytest.approx(expected, rel=1e-5)
    alike = torch.ones(n, 3)
    assert nt_xent(alike, alike, temperature).item() == pytest.approx(math.log(2 * n - 1), rel=1e-5)
    opposite = nt_xent(axes, axes.roll(1, 0), temperature).item()
    assert opposite > expected


def contrastive(**settings):
    torch.manual_seed(1)
    return Contrastive(LayerFeatures("cross", 2, 0), 16, **settings)


def test_contrastive_loss_of_random_views(unlabelled, gnn):
    task = contrastive()
    loss = task.training_loss(gnn, unlabelled, None, rng())["loss"]
    assert torch.equal(loss, task.training_loss(gnn, unlabelled, None, rng())["loss"])
    assert not torch.equal(loss, task.training_loss(gnn, unlabelled, None, rng(1))["loss"])
    loss.backward()
    assert gnn.cross.value.weight.grad.any()
    assert task.project[0].weight.grad.any()


def test_another_reference_is_the_same_view(unlabelled, gnn):
    """So the reference is no augmentation."""
    task = contrastive(dropout=0.0, line_noise=0.0)
    other = replace(unlabelled, data=unlabelled.data - unlabelled.data[:, :1])
    first, second = (
        task.training_loss(gnn, batch, None, rng())["loss"] for batch in (unlabelled, other)
    )
    assert torch.allclose(first, second, rtol=1e-4)


def test_line_noise_of_the_right_power(unlabelled):
    task = contrastive(line_noise=2.0)
    long = replace(unlabelled, data=torch.zeros(400, 16, 25), starts=torch.zeros(400).long())
    noise = task._with_line_noise(long, rng()) / unlabelled.head.noise_level
    # Uniform amplitudes up to 2: mean square 4 / 3, less the reference.
    assert noise.square().mean().item() == pytest.approx(4 / 3 * 15 / 16, rel=0.1)
    assert noise.mean(1).abs().max() < 1e-5


def test_settings_of_contrastive():
    with pytest.raises(ValueError, match="temperature must be above 0.*got 0, 1.0, 0.25, 0.3"):
        contrastive(temperature=0)


# Features


def test_features_of_a_named_layer(unlabelled, gnn):
    estimate, features = LayerFeatures("cross", 2, 0)(gnn, unlabelled.data, unlabelled.inputs)
    assert features.shape == (8, 16)
    assert torch.equal(estimate.mean, gnn(unlabelled.data, unlabelled.inputs).mean)
    states = LayerFeatures("blocks.0", 1, 2)(gnn, unlabelled.data, unlabelled.inputs)[1]
    assert states.shape == (8, 16)  # the first entry of a tuple
    assert not gnn.cross._forward_hooks
    one = LayerFeatures("cross", 2, 0)(gnn, unlabelled.data[3:4], unlabelled.inputs)[1]
    assert torch.allclose(one[0], features[3], atol=1e-5)


def test_layers_that_do_not_fit(unlabelled, gnn):
    with pytest.raises(ValueError, match=r"SensorGNN has no layer 'crossing'\. Choose one of \['"):
        LayerFeatures("crossing", 2, 0)(gnn, unlabelled.data, unlabelled.inputs)
    with pytest.raises(ValueError, match=r"shape \(16, 84, 8\), whose axis 0 is not that of the 8"):
        LayerFeatures("cross", 0, 2)(gnn, unlabelled.data, unlabelled.inputs)


# Domain adaptation


def test_coral_in_closed_form():
    """Shifted features, and scaled ones: covariance ``4 C`` against ``C``."""
    source, coral = torch.randn(50, 3, generator=rng()), Coral()
    cov = torch.cov(source.T)
    assert coral(source, source + 7).item() == pytest.approx(0, abs=1e-9)
    expected = 9 * cov.square().sum().item() / 36
    assert coral(source, 2 * source).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("distance", [Coral(), MaximumMeanDiscrepancy()])
def test_alignment_adds_a_weighted_distance(distance, simulate, gnn):
    features = LayerFeatures("cross", 2, 0)
    batch = MixedRecordings(
        simulate(gnn.head_inputs), simulate(gnn.head_inputs, seed=1, snr_db=(20, 20))
    ).batch(5)

    def objective(estimate, simulated):
        assert isinstance(simulated, Batch)
        return estimate.mean.abs().mean(), {}

    values = [
        Alignment(features, distance, weight, ramp=10).training_loss(gnn, batch, objective, rng())
        for weight in (0.0, 2.0)
    ]
    found = values[0]["distance"]
    assert found > 0
    added = values[1]["loss"] - values[0]["loss"]
    assert added.item() == pytest.approx(2.0 * 5 / 10 * found.item(), rel=1e-3)


@pytest.mark.parametrize("distance", [Coral(), MaximumMeanDiscrepancy()])
def test_a_rest_of_one_window_has_no_distance(distance, simulate, gnn):
    batch = MixedRecordings(
        simulate(gnn.head_inputs), simulate(gnn.head_inputs, seed=1, batch_size=1)
    ).batch(5)
    alignment = Alignment(LayerFeatures("cross", 2, 0), distance, 1.0, ramp=1)
    found = alignment.training_loss(gnn, batch, lambda e, b: (e.mean.abs().mean(), {}), rng())
    assert found["distance"] == 0
    assert torch.isfinite(found["loss"])


def test_settings_of_alignment():
    with pytest.raises(ValueError, match="weight must be 0 or more and ramp 1 or more, got -1"):
        Alignment(LayerFeatures("cross", 2, 0), Coral(), weight=-1)


# Data and tasks that do not fit


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        (None, Unlabelled, "recordings without targets .* need a task"),
        (None, Mixed, "recordings without targets .* need a task"),
        (
            MaskedChannels(),
            Batch,
            "task MaskedChannels needs recordings without targets: data=real",
        ),
        (
            Alignment(LayerFeatures("x", 0, 1), Coral()),
            Unlabelled,
            "Alignment needs simulated data and",
        ),
    ],
)
def test_task_and_data_that_do_not_fit(task, kind, message):
    with pytest.raises(ValueError, match=message):
        check_batches(task, kind)


def test_task_and_data_that_fit():
    check_batches(None, Batch)
    check_batches(MaskedChannels(), Unlabelled)
    check_batches(Alignment(LayerFeatures("x", 0, 1), Coral()), Mixed)


# Runs


def network(checkpoint):
    return {k: v for k, v in weights(checkpoint).items() if k.startswith("model.")}


SIZES = [f"model.{key}={value}" for key, value in WIDE.items()]


def compose(toy_path, folder, *overrides):
    """A run on the toy head; of the toy's overrides only those that fit any data."""
    keep = ("trainer.steps_per_epoch", "trainer.validation", "trainer.max", "trainer.log")
    words = [word for word in TOY if word.startswith(keep)]
    fixed = ["name=x", f"head.name={toy_path}", f"logger.save_dir={folder}", "compare=false"]
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose("train", [*overrides, *words, *fixed, "export=false", *SIZES])


@pytest.fixture(scope="module")
def files(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_raws(folder, toy, 2, seconds=6)
    return folder


REAL = ["trainer.n_validation_batches=1", "data.n_times=4", "data.batch_size=4"]


@pytest.fixture(scope="module")
def pretrained(toy, toy_path, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    config = compose(toy_path, folder, "experiment=pretrain", f"data.files={files}", *REAL)
    fit(config, Cohort.single(toy), folder)
    return folder


def test_pretraining(pretrained, toy):
    best = load(pretrained / "checkpoints" / "best.ckpt")
    model, identity = load_network(pretrained / "checkpoints" / "best.ckpt", toy.space)
    assert isinstance(model, SensorGNN)
    assert identity["trained"] is None
    assert best["global_step"] == 2
    assert "val/loss" in (pretrained / "metrics.csv").read_text().splitlines()[0]


def test_pretraining_resumes_with_the_same_batches(toy, toy_path, files, tmp_path, monkeypatch):
    common = ["experiment=pretrain", f"data.files={files}", *REAL, "trainer.checkpoint_every=1"]
    straight = compose(toy_path, tmp_path / "a", *common)
    straight.trainer.max_steps = 4
    fit(straight, Cohort.single(toy), tmp_path / "a")
    draw, drawn = RealRecordings.batch, []

    def interrupted(self, step, rank=0):
        drawn.append(step)
        if drawn == [0, 0, 1, 2, 3]:  # the first is for validation
            raise RuntimeError("the machine stops")
        return draw(self, step, rank)

    monkeypatch.setattr(RealRecordings, "batch", interrupted)
    stopped = compose(toy_path, tmp_path / "b", *common, "ckpt=auto")
    stopped.trainer.max_steps = 4
    with pytest.raises(RuntimeError, match="the machine stops"):
        fit(stopped.copy(), Cohort.single(toy), tmp_path / "b")
    fit(stopped, Cohort.single(toy), tmp_path / "b")
    assert drawn[5:] == [0, 3]
    first = tmp_path / "a" / "checkpoints" / "last.ckpt"
    assert same(weights(first), weights(tmp_path / "b" / "checkpoints" / "last.ckpt"))


def test_a_run_over_other_recordings_is_not_resumed(toy, toy_path, tmp_path):
    save_raws(tmp_path / "files", toy, 2, seconds=6)
    words = ["experiment=pretrain", f"data.files={tmp_path / 'files'}", *REAL]
    fit(compose(toy_path, tmp_path / "a", *words), Cohort.single(toy), tmp_path / "a")
    (more,) = save_raws(tmp_path / "one", toy, 1, seconds=6)
    shutil.copy(more, tmp_path / "files" / "new_raw.fif")
    again = compose(toy_path, tmp_path / "a", *words, "ckpt=auto")
    again.trainer.max_steps = 3
    with pytest.raises(ValueError, match=r"recordings.new_raw.fif was None, now \d+"):
        fit(again, Cohort.single(toy), tmp_path / "a")


def test_contrastive_run_keeps_the_trunk_only(toy, toy_path, files, tmp_path):
    config = compose(
        toy_path, tmp_path, "experiment=pretrain", "task=contrastive", f"data.files={files}", *REAL
    )
    best = fit(config, Cohort.single(toy), tmp_path)
    assert [key for key in weights(best) if key.startswith("task.project")]
    model, _ = load_network(best, toy.space)
    assert model.state_dict().keys() == SensorGNN(**WIDE).state_dict().keys()


FEW = ["data.batch_size=4", "data.setups.montages=[biosemi16]", "data.n_times=1"]
SIMULATED = [*FEW, "data.sources.radius=[0.03,0.06]", "trainer.n_validation_batches=1"]


def test_finetuning_starts_from_the_pretrained_weights(pretrained, toy, toy_path, tmp_path):
    still = ["trainer.learning_rate=1e-30", "trainer.weight_decay=0", "trainer.ema_decay=null"]
    config = compose(
        toy_path,
        tmp_path,
        "experiment=finetune",
        f"pretrained={pretrained}/checkpoints/best.ckpt",
        *SIMULATED,
        *still,
    )
    best = fit(config, Cohort.single(toy), tmp_path)
    before = network(pretrained / "checkpoints" / "best.ckpt")
    assert all(torch.allclose(v, before[k], atol=1e-20) for k, v in network(best).items())


def test_a_trunk_of_another_architecture(pretrained, toy, toy_path, tmp_path):
    config = compose(
        toy_path,
        tmp_path,
        "experiment=finetune",
        f"pretrained={pretrained}/checkpoints/best.ckpt",
        *SIMULATED,
        "model.hidden=8",
    )
    with pytest.raises(ValueError, match=r"another architecture: model.hidden was 16, now 8"):
        fit(config, Cohort.single(toy), tmp_path)


@pytest.mark.parametrize("task", [slow("coral"), slow("mmd"), "dann"])
def test_adaptation_to_real_recordings(task, toy, toy_path, files, tmp_path):
    other = ["data@unlabelled=real", f"unlabelled.files={files}", "unlabelled.batch_size=4"]
    config = compose(toy_path, tmp_path, "experiment=adapt", f"task={task}", *other, *SIMULATED)
    best = fit(config, Cohort.single(toy), tmp_path)
    assert isinstance(load_network(best, toy.space)[0], SensorGNN)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert "train/distance" in header
    assert "val/nemd" in header


@pytest.mark.parametrize("bound", ["source_only", "target_only"])
def test_bounds_of_adaptation(bound, toy_path, tmp_path):
    config = compose(toy_path, tmp_path, f"experiment={bound}")
    assert config.task is None
    assert config.unlabelled is None
    assert (config.data.setups.anatomy is not None) == (bound == "target_only")
    adapt = compose(toy_path, tmp_path, "experiment=adapt")
    assert adapt.trainer == config.trainer
    assert adapt.unlabelled.setups.anatomy is not None


def test_supervised_training_on_real_recordings_is_refused(toy, toy_path, files, tmp_path):
    config = compose(toy_path, tmp_path, "data=real", f"data.files={files}", "model=gnn", *REAL)
    with pytest.raises(ValueError, match="need a task"):
        fit(config, Cohort.single(toy), tmp_path)


def test_stream_has_no_sources(files, toy):
    batch = RealRecordings(files, toy, ConvDip(84).head_inputs, n_times=5).batch(0)
    assert not hasattr(batch, "sources")
