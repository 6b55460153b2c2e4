"""Fine-tuning: a run that starts from the weights of another, and runs that only train."""

import shlex
from dataclasses import replace

import hydra
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from deepesi.cli.main import build_parser
from deepesi.cli.train import run, run_contents
from deepesi.physics.cohort import Cohort
from deepesi.training import callbacks
from deepesi.training.checkpoints import best_checkpoint_text
from deepesi.training.run import fit
from deepesi.training.trainer import resolve_max_steps
from deepesi.training.weights import load_network
from tests.training.toy import TOY, compose, load, same, weights


@pytest.fixture(scope="module")
def trained(toy, toy_path, tmp_path_factory):
    """A run directory whose name has to be quoted."""
    folder = tmp_path_factory.mktemp("runs") / "lr=1e-3 [1]"
    fit(compose(toy_path, folder), Cohort.single(toy), folder)
    return folder / "checkpoints" / "last.ckpt"


def test_weights_only(toy, toy_path, tmp_path, trained):
    """Other data; the optimizer is new, the step is 0 and the weights are those of before."""
    still = ["trainer.learning_rate=1e-30", "trainer.weight_decay=0", "data.snr_db=[0,5]", "seed=4"]
    config = compose(toy_path, tmp_path, f"init_from='{trained}'", *still)
    best = fit(config, Cohort.single(toy), tmp_path)
    assert same(weights(best), weights(trained))
    assert load(best)["global_step"] == 2
    assert load(best)["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 1e-30
    other = fit(compose(toy_path, tmp_path / "b", *still), Cohort.single(toy), tmp_path / "b")
    assert not same(weights(other), weights(trained))


def test_a_network_that_follows_any_head_is_tuned_on_another(toy, toy_path, tmp_path):
    free = ["model=gnn", "model.hidden=16", "loss=default"]
    first = fit(small(toy_path, tmp_path / "a", *free), Cohort.single(toy), tmp_path / "a")
    turned = tuple(v[::-1] for v in toy.space.vertices)
    other = replace(toy, name="other", space=replace(toy.space, vertices=turned))
    again = [*free, f"init_from={first}", "trainer.learning_rate=1e-30", "trainer.weight_decay=0"]
    best = fit(small(toy_path, tmp_path / "b", *again), Cohort.single(other), tmp_path / "b")
    assert same(weights(best), weights(first))


def small(toy_path, folder, *overrides):
    """Without the sizes of ConvDip, which other networks do not have."""
    sizes = ("model.height", "model.width", "model.hidden")
    toy = [word for word in TOY if not word.startswith(sizes)]
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose(
            "train",
            [*toy, f"head.name={toy_path}", "name=x", f"logger.save_dir={folder}", *overrides],
        )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden=8", r"another architecture: model.hidden was 16, now 8\. Use"),
        ("model.n_hidden=1", r"another architecture: .*model.n_hidden was 2, now 1"),
        ("model.heteroscedastic=true", r"model.heteroscedastic was False, now True"),
    ],
)
def test_other_architecture_is_named(toy, toy_path, tmp_path, trained, override, message):
    config = compose(toy_path, tmp_path, f"init_from='{trained}'", override)
    with pytest.raises(ValueError, match=message):
        fit(config, Cohort.single(toy), tmp_path)


def test_settings_that_change_no_weight_are_reported(toy, toy_path, tmp_path, trained, capsys):
    config = compose(toy_path, tmp_path, f"init_from='{trained}'", "model.output_scale=0.5")
    fit(config, Cohort.single(toy), tmp_path)
    assert (
        "init_from: model.output_scale was 0.1, now 0.5; all weights fit."
        in capsys.readouterr().out
    )


def test_other_head_of_a_bound_network_is_refused(toy, template, toy_path, tmp_path, trained):
    config = compose(toy_path, tmp_path, f"init_from='{trained}'")
    with pytest.raises(ValueError, match="trained for the source space fsaverage-ico1"):
        fit(config, Cohort.single(template), tmp_path)


def test_files_that_are_no_network(toy, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "x.ckpt").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match="exported file and cannot be loaded as a network"):
        load_network(str(tmp_path / "x.onnx"), toy.space)
    with pytest.raises(ValueError, match=r"x.ckpt: not a readable checkpoint .*Give last.ckpt"):
        load_network(str(tmp_path / "x.ckpt"), toy.space)


def test_paths_are_texts_as_well(toy, trained):
    assert load_network(str(trained), toy.space)[1] == load_network(trained, toy.space)[1]


def test_train_only(toy_path, tmp_path, capsys):
    """No comparison, no export; the end says by what the best was chosen, and what to do next."""
    run(compose(toy_path, tmp_path, "compare=false", "export=false"), tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert {"checkpoints", "model", "config.yaml", "metrics.csv"} <= left
    assert not left & {"export", "scores", "report.html", "benchmark.csv"}
    printed = capsys.readouterr().out
    best = tmp_path / "checkpoints" / "best.ckpt"
    assert f"checkpoints/best.ckpt   weights of {best_checkpoint_text(best)}" in printed
    assert best_checkpoint_text(best).startswith("step 2, lowest val/nemd: ")
    assert f"deepesi export {tmp_path} --out model.onnx" in printed
    assert "report.html" not in printed


@pytest.mark.parametrize("exported", ["true", "false"])
def test_printed_commands_are_read_back(toy_path, tmp_path, trained, exported):
    """Pasted into a shell, whatever characters the folder has."""
    run_dir = tmp_path / "lr=1e-3,seed=2 [it's]"
    config = compose(toy_path, tmp_path, f"export={exported}")
    lines = run_contents(config, run_dir, trained.parent / "best.ckpt")
    command, *words = shlex.split(lines[-1])
    assert command == "deepesi"
    model = build_parser().parse_args(words).model
    assert str(model) == str(run_dir / "export" / "model.onnx" if exported == "true" else run_dir)
    (resume,) = shlex.split(lines[1].split("resumes with ")[1])
    (override,) = OverridesParser.create().parse_overrides([resume])
    assert override.value() == str(run_dir / "checkpoints" / "last.ckpt")


@pytest.mark.slow
def test_exported_without_a_comparison(toy_path, tmp_path):
    run(compose(toy_path, tmp_path, "compare=false"), tmp_path)
    card = (tmp_path / "export" / "card.md").read_text()
    assert "Not measured: the run has compare=false." in card
    assert not (tmp_path / "benchmark.csv").exists()


@pytest.mark.parametrize(
    ("steps", "between", "warmup"),
    [(2, 2, 1), (1000, 250, 100), (1600, 400, 100), (100, 100, 25), (4000, 400, 100), (7, 7, 1)],
)
def test_validation_and_warmup_follow_the_steps(toy_path, tmp_path, steps, between, warmup):
    """Only `max_steps` is given."""
    settings = small(toy_path, tmp_path, f"trainer.max_steps={steps}").trainer
    settings.steps_per_epoch = 400  # as it comes; the toy has another
    notes = resolve_max_steps(settings)
    assert (settings.steps_per_epoch, settings.warmup_steps) == (between, warmup)
    assert steps % settings.steps_per_epoch == 0
    assert len(notes) == (between != 400) + (warmup != 100)


def test_expected_time_is_said_once(toy, toy_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(callbacks.ExpectedTime.__init__, "__defaults__", (0.0,))
    fit(compose(toy_path, tmp_path, "trainer.max_steps=6"), Cohort.single(toy), tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("examples/s: about ") == 1
    assert "of training to go" in printed


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(12, "about 12 s"), (100, "about 2 min"), (5300, "about 88 min"), (7500, "about 2 h 05 min")],
)
def test_durations_in_words(seconds, words):
    assert callbacks.describe(seconds) == words


def test_optimizer_begins_anew(toy, toy_path, tmp_path, trained):
    config = compose(toy_path, tmp_path, f"init_from='{trained}'", "trainer.max_steps=4")
    fit(config, Cohort.single(toy), tmp_path)
    states = load(tmp_path / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"]
    assert all(torch.equal(state["step"], torch.tensor(4.0)) for state in states.values())
