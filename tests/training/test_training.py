"""Training on the toy head: every path in seconds, killed and resumed runs included."""

import csv
import functools
import hashlib
import time
from pathlib import Path

import hydra
import lightning
import pytest
import torch
from hydra.errors import ConfigCompositionException, InstantiationException
from omegaconf import OmegaConf

from deepesi.cli.export import export_path
from deepesi.cli.overrides import this_command
from deepesi.cli.train import run
from deepesi.core.contracts import Estimate
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.losses.base import WeightedSum
from deepesi.losses.supervised import NormalizedL1
from deepesi.models.convdip import ConvDip
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template
from deepesi.runtime.contract import TrainingRanges
from deepesi.training.data import RecordingStream
from deepesi.training.module import InverseTraining
from deepesi.training.run import fit
from deepesi.training.saved import load_any
from deepesi.training.weights import load_network, save_network
from tests.training.toy import TOY, compose, load, same, start, wait_for, weights


def test_the_whole_road(toy_path, tmp_path, capsys):
    blinks = "data.artifacts=[{_target_: deepesi.data_gen.artifacts.Blinks}]"
    run(compose(toy_path, tmp_path, blinks), tmp_path)
    expected = (
        "config.yaml checkpoints/last.ckpt checkpoints/best.ckpt metrics.csv model/model.yaml "
        "model/weights.safetensors benchmark.csv leaderboard.csv report.html "
        "export/model.onnx export/head.npz export/card.md"
    )
    for name in expected.split():
        assert (tmp_path / name).stat().st_size > 0, name
    assert not list(tmp_path.rglob("*partial*"))
    paths = [tmp_path / "checkpoints" / "best.ckpt", tmp_path, tmp_path / "export" / "model.onnx"]
    models = [load_any(path, load_template(toy_path)) for path in paths]
    settings = {"batch_size": 3, "pool_size": 1, "pool_period": 1}
    batch = SimulatedRecordings(
        load_template(toy_path), PatchSources(), SetupRanges(), models[0].head_inputs, **settings
    ).batch(0)
    contract = models[2].opened.contract
    assert contract.trained == TrainingRanges((13, 16), (1, 1), 250.0, (-5, 20))
    assert contract.montages == ("biosemi16",)
    used = (tmp_path / "config.yaml").read_bytes()
    assert contract.config_sha256 == hashlib.sha256(used).hexdigest()
    estimates = [model(batch.data, batch.inputs).mean for model in models]
    assert torch.equal(estimates[0], estimates[1])
    assert torch.allclose(
        estimates[0], estimates[2], rtol=1e-3, atol=1e-4 * estimates[0].abs().max().item()
    )
    printed = capsys.readouterr().out
    for part in ("loc. error", "ConvDip", "eLORETA", "largest difference", "deepesi apply"):
        assert part in printed
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    for name in ("cosine", "reprojection", "laplacian"):
        assert {f"train/raw/{name}", f"train/weighted/{name}", f"val/raw/{name}"} <= set(header)
    assert {"loss", "lr", "samples/s", "val/localization_error", "val/nemd"} <= set(header)
    check_cards(tmp_path, toy_path)


def check_cards(run_dir, toy_path):
    """Cards of the run and of the same network exported again: the model and its training."""
    sha256 = hashlib.sha256((run_dir / "config.yaml").read_bytes()).hexdigest()
    again = export_path(str(run_dir), run_dir / "again.onnx", str(toy_path), "biosemi16")
    cards = [(run_dir / "export" / "card.md").read_text(), again.with_suffix(".md").read_text()]
    for card, file in zip(cards, ("model.onnx", "again.onnx"), strict=True):
        for part in (
            "# ConvDip\n",
            "| channels | 13 to 16 |",
            "| SNR | -5 to 20 dB |",
            "biosemi16",
            "Seed 0, 2 steps of 4 simulated examples",
            sha256,
            "data_gen.artifacts.Blinks",
            "```\ndeepesi ",
            "| eLORETA |",
            f"deepesi apply {file} ",
            "It gives no uncertainty",
        ):
            assert part in card, part
    assert "Scenario `snr`: sources on the analyst's grid" in cards[0]
    assert "### snr" in cards[1]  # benchmark.md
    assert "\n# Benchmark" not in cards[1]

    # The directory was used again, for another training: its records are not this network's.
    with (run_dir / "config.yaml").open("a") as file:
        file.write("other: 1\n")
    export_path(str(run_dir / "model"), again, str(toy_path), "biosemi16")
    card = again.with_suffix(".md").read_text()
    assert "Not measured yet: `deepesi evaluate 'models=[again.onnx]'`" in card
    assert "Seed 0" not in card
    assert sha256 in card


def test_a_run_goes_before_the_packaged_model_of_its_name(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ConvDip(84, hidden=8)
    identity = {
        "model": {"_target_": "deepesi.models.convdip.ConvDip", "n_dipoles": 84, "hidden": 8},
        "space": toy.space.name,
        "space_fingerprint": toy.space.fingerprint,
    }
    save_network(model, identity, tmp_path / "convdip" / "model")
    found = load_any(Path("convdip"), toy)
    assert torch.equal(found.first.weight, model.first.weight)


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["/home/me/train.py", "seed=3", "a=[1,2]"], "python train.py seed=3 'a=[1,2]'"),
        (["/usr/bin/deepesi", "train", "seed=3"], "deepesi train seed=3"),
        (["deepesi/cli/main.py", "train", "seed=3"], "deepesi train seed=3"),
    ],
)
def test_command_can_be_typed_again_elsewhere(monkeypatch, typed, command):
    monkeypatch.setattr("sys.argv", typed)
    assert this_command() == command


def test_student_of_a_teacher(toy, toy_path, tmp_path):
    """Any network or exported file teaches; what the student keeps is its own."""
    fit(compose(toy_path, tmp_path / "teacher", "seed=1"), Cohort.single(toy), tmp_path / "teacher")
    teacher = tmp_path / "teacher" / "checkpoints" / "last.ckpt"
    lesson = ["experiment=distill", f"teacher={teacher}", "model.hidden=8"]
    config = compose(toy_path, tmp_path / "student", *lesson)
    best = fit(config, Cohort.single(toy), tmp_path / "student")
    student, _ = load_network(best, toy.space)
    assert student.first.out_features == 8
    assert weights(best).keys() == weights(teacher).keys()
    header = (tmp_path / "student" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/raw/distillation", "val/raw/distillation"} <= set(header)
    lesson[1] = f"teacher={tmp_path / 'nobody.ckpt'}"
    with pytest.raises(InstantiationException, match="nobody.ckpt"):
        fit(compose(toy_path, tmp_path / "x", *lesson), Cohort.single(toy), tmp_path / "x")


def test_same_seed_same_weights(toy, toy_path, tmp_path):
    for name in "ab":
        fit(compose(toy_path, tmp_path / name, "seed=5"), Cohort.single(toy), tmp_path / name)
    first, second = (weights(tmp_path / n / "checkpoints" / "last.ckpt") for n in "ab")
    assert same(first, second)


LONG = ["trainer.steps_per_epoch=50", "trainer.max_steps=300"]


@pytest.fixture(scope="module")
def whole(toy_path, tmp_path_factory):
    """A run never killed, begun as early as possible; gives its folder once it has ended."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder, toy_path, *LONG, f"hydra.run.dir={folder}")

    def ended() -> Path:
        output, _ = process.communicate(timeout=250)
        assert process.returncode == 0, output
        return folder / "checkpoints"

    return functools.cache(ended)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 50])
def test_killed_and_resumed_ends_with_the_same_weights(whole, toy_path, tmp_path, every):
    """SIGKILL, then ``ckpt=``: bit for bit the weights of a run never killed, last and best.

    Resumed from mid-epoch (a checkpoint at every step) or from the end of an epoch (every 50).
    """
    options = [*LONG, f"trainer.checkpoint_every={every}"]
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    killed = start(tmp_path, toy_path, *options, f"hydra.run.dir={tmp_path / 'killed'}")
    wait_for(checkpoint, killed)
    deadline = time.monotonic() + 120
    while load(checkpoint)["global_step"] < (60 if every == 1 else 50):
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.stdout.read()
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert 50 <= load(checkpoint)["global_step"] < 300
    assert load(checkpoint)["global_step"] % every == 0
    assert (tmp_path / "killed" / "config.yaml").exists()
    run = [*options, f"hydra.run.dir={tmp_path / 'resumed'}", f"ckpt={checkpoint}"]
    resumed = start(tmp_path, toy_path, *run)
    output, _ = resumed.communicate(timeout=250)
    assert resumed.returncode == 0, output
    for name in ("last.ckpt", "best.ckpt"):
        paths = [whole() / name, tmp_path / "resumed" / "checkpoints" / name]
        first, second = map(load, paths)
        assert first["global_step"] == second["global_step"]
        assert same(first["state_dict"], second["state_dict"])


def test_resuming_with_other_settings_is_refused(toy, toy_path, tmp_path):
    fit(compose(toy_path, tmp_path), Cohort.single(toy), tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    other = compose(toy_path, tmp_path / "b", "seed=7", "data.batch_size=8", f"ckpt={last}")
    with pytest.raises(ValueError, match="data.batch_size was 4, now 8; seed was 0, now 7"):
        fit(other, Cohort.single(toy), tmp_path / "b")


def test_splits_must_not_mix(simulate):
    with pytest.raises(
        ValueError, match=r"expected the splits 'train' and 'validation', got 'test'"
    ):
        RecordingStream(simulate(split="test"), simulate(split="validation"))


def test_foreign_checkpoint_is_refused(toy, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="not written by deepesi"):
        load_network(tmp_path / "x.ckpt", toy.space)


def test_network_of_another_source_space_is_refused(toy, template, toy_path, tmp_path):
    best = fit(compose(toy_path, tmp_path), Cohort.single(toy), tmp_path)
    with pytest.raises(ValueError, match="trained for the source space fsaverage-ico1"):
        load_network(best, template.space)


def test_saved_network_comes_back(toy, toy_path, tmp_path, simulate):
    best = fit(compose(toy_path, tmp_path), Cohort.single(toy), tmp_path)
    model, identity = load_network(best, toy.space)
    save_network(model, identity, tmp_path / "model")
    again, _ = load_network(tmp_path, toy.space)
    batch = simulate(model.head_inputs).batch(0)
    assert torch.equal(model(batch.data, batch.inputs).mean, again(batch.data, batch.inputs).mean)


def test_absent_network_says_what_to_give(toy, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        load_network(tmp_path / "none.ckpt", toy.space)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no model.yaml; give a run directory"):
        load_network(tmp_path / "empty", toy.space)


def test_unknown_key_is_refused(toy_path, tmp_path):
    with pytest.raises(ConfigCompositionException, match="data.montage"):
        compose(toy_path, tmp_path, "data.montage=biosemi64")


def test_unknown_key_of_a_constructor_is_refused(toy, toy_path, tmp_path):
    config = compose(toy_path, tmp_path, "+model.n_heads=4")
    with pytest.raises(InstantiationException, match="n_heads"):
        fit(config, Cohort.single(toy), tmp_path)


def test_curriculum_is_logged(toy, toy_path, tmp_path):
    overrides = [
        "data=curriculum",
        "data.setups.montages=[biosemi16]",
        "data.n_times=2",
        "data.pool_size=1",
        "data.batch_size=4",
        "data.sfreq=500",
        "data.sources.shapes=[gaussian]",
    ]
    fit(compose(toy_path, tmp_path, *overrides), Cohort.single(toy), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["curriculum/tissues"]]
    assert rows
    # Two steps of two: closed at first, half-way of the straight lines after.
    assert [float(row["curriculum/noise"]) for row in rows] == [0.0, 1.0]
    assert [float(row["curriculum/tissues"]) for row in rows] == [0.0, 1.0]
    assert [float(row["curriculum/montages"]) for row in rows] == [0.0, 0.5]


@pytest.mark.slow
def test_cohort_and_own_forward_train_from_the_command_line(tmp_path, sample_data):
    """Cohort, forward solution, free orientation: the whole road, with comparison and export."""
    forward = sample_data / "derived/sample-oct5-eeg-fwd.fif"
    for name, overrides in {
        "cohort": ["head=cohort", "head.train=[null]", "head.validation=[null]"],
        "forward": ["head=forward", f"head.forward={forward}"],
        "free": ["head=forward", f"head.forward={forward}", "head.n_orient=3"],
    }.items():
        (tmp_path / name).mkdir()
        with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
            config = hydra.compose(
                "train", [*TOY, *overrides, "name=x", f"logger.save_dir={tmp_path / name}"]
            )
        run(config, tmp_path / name)
        assert (tmp_path / name / "export" / "model.onnx").is_file()
        assert (tmp_path / name / "report.html").is_file()


def test_steps_that_would_never_be_validated_are_refused(toy, toy_path, tmp_path):
    config = compose(toy_path, tmp_path, "trainer.max_steps=101", "trainer.steps_per_epoch=50")
    with pytest.raises(ValueError, match="max_steps=101 has no divisor near .*Use .*max_steps=100"):
        fit(config, Cohort.single(toy), tmp_path)


def test_loss_that_is_not_finite_stops_with_advice(toy, simulate):
    class Broken(NormalizedL1):
        def forward(self, estimate: Estimate, batch):
            return super().forward(estimate, batch) * float("nan")

    config = OmegaConf.create({"_target_": "deepesi.models.convdip.ConvDip", "n_dipoles": 84})
    model = hydra.utils.instantiate(config)
    module = InverseTraining(
        model, WeightedSum({"l1": Broken()}, {"l1": 1.0}), {}, toy.space, 1e-3, 0.0, 1, 2, {}
    )
    data = RecordingStream(
        simulate(model.head_inputs), simulate(model.head_inputs, split="validation"), 2, 1
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 0.*ckpt=PATH"):
        trainer.fit(module, data)
