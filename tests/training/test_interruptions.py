"""Runs that are stopped or fail: what they leave, what they say, and that they go on from it."""

import csv
import re
import signal
from dataclasses import replace

import pytest
import torch

from deepesi.physics.cohort import Cohort
from deepesi.training.failures import error_with_advice
from deepesi.training.resume import checkpoint_of
from deepesi.training.run import fit
from tests.conftest import slow
from tests.training.toy import Trap, compose, load, same, trap, weights

RUN = ["trainer.steps_per_epoch=4", "trainer.max_steps=8", "trainer.checkpoint_every=1000"]


@pytest.fixture
def train(toy, toy_path, tmp_path):
    """Trains on the toy head in a folder, with or without the trap; gives the folder."""

    def run(name: str, *overrides: str, armed: bool = False, head=toy):
        Trap.armed = armed
        config = compose(toy_path, tmp_path / name, *RUN, *overrides)
        fit(config, Cohort.single(head), tmp_path / name)
        return tmp_path / name / "checkpoints"

    yield run
    Trap.armed = False


@pytest.mark.parametrize(
    ("action", "step", "options"),
    [
        ("SIGTERM", 5, []),
        slow("SIGINT", 4, ["trainer.accumulate=2"]),
        slow("SIGUSR1", 3, ["trainer.ema_decay=0.9"]),
        slow("memory", 6, ["trainer.accumulate=2", "trainer.ema_decay=0.9"]),
    ],
)
def test_stopped_run_goes_on_bit_for_bit(train, tmp_path, capsys, action, step, options):
    """In mid-epoch, at its first and at its last step; in the first batch of several of a step."""
    options = [*options, *trap(step, 0, action)]
    whole = train("whole", *options)
    expected = MemoryError if action == "memory" else SystemExit
    with pytest.raises(expected) as stopped:
        train("stopped", *options, armed=True)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    if action == "memory":
        assert re.search(r"out of memory with data.batch_size=4.*can't alloc", str(stopped.value))
        assert f"resume with ckpt={last} data.batch_size=2" in str(stopped.value)
        assert load(last)["global_step"] == step  # the step in which it happened is done again
    else:
        assert stopped.value.code == 128 + signal.Signals[action]
        assert f"stopped by {action} after step {step + 1}. Resume with ckpt={last}" in (
            capsys.readouterr().out
        )
        assert load(last)["global_step"] == step + 1
    resumed = train("resumed", *options, f"ckpt={last}")
    for name in ("last", "best"):
        first, second = (load(folder / f"{name}.ckpt") for folder in (whole, resumed))
        assert first["global_step"] == second["global_step"]
        assert same(first["state_dict"], second["state_dict"])
    rows = [
        list(csv.DictReader((folder.parent / "metrics.csv").open())) for folder in (whole, resumed)
    ]
    assert [row["step"] for row in rows[1]] == [row["step"] for row in rows[0]][-len(rows[1]) :]


def test_second_ctrl_c_stops_at_once(train, tmp_path):
    with pytest.raises(SystemExit):
        train("a", *trap(5, 0, "SIGINT+SIGINT"), armed=True)
    assert load(tmp_path / "a" / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_out_of_memory_goes_on_with_smaller_batches(train, tmp_path):
    """In the second batch of a step, so that the step must be begun anew."""
    options = ["trainer.accumulate=2", *trap(5, 1, "memory")]
    with pytest.raises(MemoryError, match=r"data.batch_size=2 trainer.accumulate=4. If") as error:
        train("a", *options, armed=True)
    advice = str(error.value).split("resume with ")[1].split(". ")[0].split()
    resumed = train("b", *options, *advice)
    assert load(resumed / "last.ckpt")["global_step"] == 8
    with pytest.raises(ValueError, match=r"examples_per_step was 8, now 4"):
        train("c", *options, advice[0], "trainer.accumulate=1")


def test_error_before_the_first_checkpoint_says_so(train):
    with pytest.raises(MemoryError, match="there was no checkpoint yet, so start again data.batch"):
        train("a", *trap(0, 0, "memory"), armed=True)


@pytest.mark.parametrize("average", [slow("null"), "0.9"])
def test_loss_that_is_not_finite_leaves_finite_weights(train, tmp_path, average):
    options = [f"trainer.ema_decay={average}", *trap(6, 1, "spoil"), "trainer.accumulate=2"]
    folder = tmp_path / "a" / "checkpoints"
    with pytest.raises(FloatingPointError) as error:
        train("a", *options, armed=True)
    advice = rf"nan at step 6.*smaller trainer.learning_rate.*resume with ckpt={folder}/last.ckpt"
    assert re.search(advice, str(error.value))
    for name, step in (("last", 4), ("failed", 6)):
        checkpoint = load(folder / f"{name}.ckpt")
        assert checkpoint["global_step"] == step
        for kept in ("state_dict", "current_model_state"):
            assert all(torch.isfinite(w).all() for w in checkpoint.get(kept, {}).values())
    resumed = load(
        train("b", *options, f"ckpt={folder / 'last.ckpt'}", "trainer.learning_rate=1e-4")
        / "last.ckpt"
    )
    assert resumed["global_step"] == 8
    assert resumed["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 1e-4
    assert resumed["lr_schedulers"][0]["base_lrs"] == [1e-4]


def test_run_goes_on_in_its_own_directory(train, tmp_path):
    with pytest.raises(SystemExit):
        train("a", "ckpt=auto", *trap(5, 0, "SIGTERM"), armed=True)
    folder = train("a", "ckpt=auto", *trap(5, 0, "SIGTERM"))
    whole = train("whole", *trap(5, 0, "SIGTERM"))
    assert same(weights(folder / "last.ckpt"), weights(whole / "last.ckpt"))
    steps = [
        [row["step"] for row in csv.DictReader((folder.parent / name).open()) if row["loss"]]
        for name in ("metrics.1.csv", "metrics.csv")
    ]
    assert steps == [list("01234"), list("67")]  # the step it stopped after went unlogged
    train("a", "ckpt=auto", *trap(5, 0, "SIGTERM"))  # nothing left to train
    assert same(weights(folder / "best.ckpt"), weights(whole / "best.ckpt"))


def test_absent_checkpoint_says_what_to_give(tmp_path):
    assert checkpoint_of(None, tmp_path) is None
    assert checkpoint_of("auto", tmp_path) is None
    with pytest.raises(FileNotFoundError, match=r"there is no ckpt=nowhere.*ckpt=auto"):
        checkpoint_of("nowhere", tmp_path)


def test_resuming_another_model_or_head_is_refused(train, toy, template):
    last = train("a") / "last.ckpt"
    with pytest.raises(ValueError, match=r"another model: model is .*'n_filters': 8.*: 4"):
        train("b", "model.n_filters=4", f"ckpt={last}")
    with pytest.raises(ValueError, match=r"another model: .*space is fsaverage-ico1, this run has"):
        train("c", f"ckpt={last}", head=template)
    other = replace(toy.space, vertices=tuple(v[::-1] for v in toy.space.vertices))
    with pytest.raises(ValueError, match=r"another model: space_fingerprint is"):
        train("d", f"ckpt={last}", head=replace(toy, space=other))
    with pytest.raises(ValueError, match=r"heads.train was \['toy .*, now \['mine \("):
        train("d", f"ckpt={last}", head=replace(toy, name="mine"))
    with pytest.raises(ValueError, match=r"other settings: loss.weights.cosine was 1.0, now 2.0"):
        train("e", f"ckpt={last}", "loss.weights.cosine=2.0")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"),
            MemoryError,
            r"data.batch_size=9 \(CUDA out.*start again data.batch_size=3 trainer.accumulate=6",
        ),
        (RuntimeError("NCCL communicator was aborted"), ConnectionError, "another process .* lost"),
        (
            FloatingPointError("training: nan."),
            FloatingPointError,
            "nan. For this run: there was no",
        ),
    ],
)
def test_advice(tmp_path, error, kind, message):
    found = error_with_advice(error, tmp_path, 9, 2)
    assert type(found) is kind
    assert re.search(message, str(found))
    assert error_with_advice(RuntimeError("size mismatch"), tmp_path, 9, 2) is None
