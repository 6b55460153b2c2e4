"""Options of a training run: averages, accumulation, early stopping, precision, compile."""

import csv
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import LightningModule

from deepesi.physics.cohort import Cohort
from deepesi.training.callbacks import weight_average
from deepesi.training.data import RecordingStream
from deepesi.training.run import build_data, build_module, fit
from deepesi.training.trainer import check_sweep, device_of
from deepesi.training.weights import load_network
from tests.conftest import slow
from tests.training.toy import compose, load, same, weights


@pytest.fixture
def train(toy, toy_path, tmp_path):
    def run(*overrides: str, name: str = "a"):
        fit(compose(toy_path, tmp_path / name, *overrides), Cohort.single(toy), tmp_path / name)
        return tmp_path / name / "checkpoints"

    return run


def rows(folder):
    with (folder.parent / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def module_of(config, toy):
    """The Lightning module of a run, and its data."""
    cohort = Cohort.single(toy)
    module = build_module(config, cohort)
    return module, build_data(config, cohort, module, torch.device("cpu"))


def test_average_follows_the_weights():
    class One(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

    network = One()
    callback, expected = weight_average(0.3), 0.0
    callback.setup(None, network, "fit")
    for step in range(1, 7):
        with torch.no_grad():
            network.weight.fill_(float(step**2))
        for _ in range(2):  # two batches of one step count once
            trainer = type("Trainer", (), {"global_step": step})()
            callback.on_train_batch_end(trainer, network, None, None, 0)
        # 1/10, 2/11, 3/12, then 0.3: the first takes the weights as they are.
        decay = 0.0 if step == 1 else min(0.3, step / (step + 9))
        expected += (1 - decay) * (step**2 - expected)
        assert callback._average_model.module.weight.item() == pytest.approx(expected)


def test_average_is_what_is_validated_and_kept(train, toy, toy_path, tmp_path):
    folder = train("trainer.ema_decay=0.9")
    best = load(folder / "best.ckpt")
    assert not same(best["state_dict"], best["current_model_state"])
    network, _ = load_network(folder / "best.ckpt", toy.space)
    average = {key.removeprefix("model."): value for key, value in best["state_dict"].items()}
    assert same(network.state_dict(), average)
    module, data = module_of(compose(toy_path, tmp_path), toy)
    batches = data.validation_set
    for weights_of, equal in ((best["state_dict"], True), (best["current_model_state"], False)):
        module.load_state_dict(weights_of)
        with torch.no_grad():
            values = [module.loss(module.model(b.data, b.inputs), b)[0].item() for b in batches]
        logged = float(rows(folder)[-1]["val/loss"])
        assert (sum(values) / 4 == pytest.approx(logged, rel=1e-6)) == equal


@pytest.mark.parametrize("decay", [0, 1, 1.5])
def test_average_out_of_range_is_refused(train, decay):
    with pytest.raises(ValueError, match=f"ema_decay must lie between 0 and 1, got {decay}.*null"):
        train(f"trainer.ema_decay={decay}")


def test_accumulated_step_is_that_of_the_mean_gradient(train, toy, toy_path, tmp_path):
    overrides = ["trainer.accumulate=3", "trainer.max_steps=1", "trainer.warmup_steps=1"]
    after = weights(train(*overrides) / "last.ckpt")
    module, data = module_of(compose(toy_path, tmp_path, *overrides), toy)
    batches = [data.train.batch(0, rank=number) for number in range(3)]
    assert len({float(batch.data.sum()) for batch in batches}) == 3
    optimizer = module.configure_optimizers()["optimizer"]
    for batch in batches:
        (module.loss(module.model(batch.data, batch.inputs), batch)[0] / 3).backward()
    torch.nn.utils.clip_grad_norm_(module.model.parameters(), 1.0)
    optimizer.step()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("world", "accumulate"), [slow(1, 6), (2, 3), slow(3, 2), slow(6, 1)])
def test_the_same_batches_however_they_are_shared_out(simulate, world, accumulate):
    seen = []
    for rank in range(world):
        data = RecordingStream(
            simulate(pool_size=2, pool_period=2), simulate(split="validation"), 4, 1
        )
        data.trainer = type(
            "Trainer",
            (),
            {
                "global_step": 2,
                "global_rank": rank,
                "world_size": world,
                "accumulate_grad_batches": accumulate,
            },
        )()
        stream = data.train_dataloader()
        assert len(stream) == 4 * accumulate
        batches = list(stream)
        seen += [(b.scene.key, b.data.sum().item()) for b in batches]
        steps = [b.scene.key[3] for b in batches]
        assert steps == [2] * accumulate + [3] * accumulate
        assert data.seconds_drawing > 0
    keys = {key for key, _ in seen}
    assert keys == {(0, "train", number, step) for number in range(6) for step in (2, 3)}
    whole = simulate(pool_size=2, pool_period=2)
    assert dict(seen) == {key: whole.batch(key[3], rank=key[2]).data.sum().item() for key in keys}
    assert len(whole.pool._drawn) <= 12


def test_stops_early_when_nothing_becomes_better(train, capsys):
    """The learning rate is next to nothing, so the first validation stays the best."""
    folder = train("trainer.learning_rate=1e-30", "trainer.patience=2", "trainer.max_steps=12")
    assert load(folder / "last.ckpt")["global_step"] == 6
    assert load(folder / "best.ckpt")["global_step"] == 2
    assert "Stopped early after step 6: 2 validations without" in capsys.readouterr().out


def test_mixed_precision(train):
    slow = ["trainer.max_steps=4", "trainer.learning_rate=1e-4"]  # Adam steps by the sign at first
    folder = train("trainer.precision=bf16-mixed", *slow)
    single = train(*slow, name="b")
    first, second = weights(folder / "last.ckpt"), weights(single / "last.ckpt")
    assert not same(first, second)
    for name, value in first.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, second[name], rtol=0.05, atol=1e-3)
    losses = [[float(r["val/loss"]) for r in rows(f) if r["val/loss"]] for f in (folder, single)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


COMPILED = """
import sys
from pathlib import Path
from deepesi.training.run import fit
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template
from tests.training.toy import compose
toy, folder = map(Path, sys.argv[1:])
config = compose(toy, folder, "trainer.compile=true", "trainer.ema_decay=0.9")
fit(config, Cohort.single(load_template(toy)), folder)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_network_has_the_same_weights_and_keys(train, toy_path, tmp_path):
    """In a process of its own, where no shapes are checked: that cannot be compiled."""
    command = [sys.executable, "-c", COMPILED, toy_path, tmp_path / "b"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    plain = weights(train() / "best.ckpt")
    compiled = load(tmp_path / "b" / "checkpoints" / "best.ckpt")
    assert plain.keys() == compiled["state_dict"].keys() == compiled["current_model_state"].keys()
    for name, value in plain.items():
        torch.testing.assert_close(
            value, compiled["current_model_state"][name], rtol=1e-4, atol=1e-6
        )


def test_share_of_the_time_in_the_generator_is_logged(train):
    shares = [float(row["data_share"]) for row in rows(train()) if row["data_share"]]
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)
    norms = [float(row["gradient_norm"]) for row in rows(train(name="b")) if row["gradient_norm"]]
    assert all(math.isfinite(norm) and norm > 0 for norm in norms)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.accumulate=0", "trainer.accumulate must be 1 or more, got 0"),
        ("trainer.checkpoint_every=0", "trainer.checkpoint_every must be 1 or more, got 0"),
        ("trainer.patience=0", "trainer.patience must be 1 or more, got 0"),
        ("trainer.precision=16-mixed", r"precision=16-mixed is unknown, expected one of .*auto"),
        ("trainer.learning_rate=0", "learning_rate must be positive, got 0.*1e-3"),
    ],
)
def test_settings_that_cannot_be_are_refused(train, override, message):
    with pytest.raises(ValueError, match=message):
        train(override)


def test_each_process_draws_on_its_own_gpu():
    own = torch.device("cuda:1")
    assert device_of("cuda", own) == own
    assert device_of("cuda:0", own) == torch.device("cuda:0")
    assert device_of("cpu", own) == torch.device("cpu")


@pytest.mark.parametrize("kind", ["cpu", "gpu", "ddp", "slurm"])
def test_every_trainer_has_the_same_keys(toy_path, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SLURM_NNODES", "3")
    settings = compose(toy_path, tmp_path, f"trainer={kind}").trainer
    assert settings.keys() == compose(toy_path, tmp_path).trainer.keys()
    assert settings.num_nodes == (3 if kind == "slurm" else 1)


def test_sweep_of_several_processes_is_left_to_the_cluster(toy_path, tmp_path, monkeypatch):
    settings = compose(toy_path, tmp_path, "trainer=ddp").trainer
    with pytest.raises(ValueError, match=r"a sweep \(-m\) cannot start.*submitit_slurm"):
        check_sweep(settings)
    check_sweep(compose(toy_path, tmp_path).trainer)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    check_sweep(settings)
