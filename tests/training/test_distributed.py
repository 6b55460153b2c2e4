"""Several processes: as one in what they compute, in one directory, and when one is lost."""

import csv
import functools
import signal
import socket
import sys

import pytest

from deepesi.physics.cohort import Cohort
from deepesi.training.checkpoints import LastCheckpoint
from deepesi.training.run import fit
from tests.training.toy import compose, load, start, wait_for, weights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and processes")
LONG = ["trainer.steps_per_epoch=60", "trainer.max_steps=60"]

SLURM = [
    *LONG,
    "trainer=slurm",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.devices=2",
]


@pytest.fixture(scope="module")
def one(toy, toy_path, tmp_path_factory):
    """Trains in this process, two batches a step; gives the folder of the checkpoints."""

    def train(*overrides: str):
        folder = tmp_path_factory.mktemp("one")
        config = compose(toy_path, folder, *LONG, "trainer.accumulate=2", *overrides)
        fit(config, Cohort.single(toy), folder)
        return folder / "checkpoints"

    return functools.cache(train)


def close(first, second) -> bool:
    """But for the order of sums."""
    return first.keys() == second.keys() and all(
        (first[key] - second[key]).norm() <= 1e-5 * second[key].norm() for key in first
    )


@pytest.mark.slow
def test_two_processes_are_as_one(one, toy_path, tmp_path):
    """Stopped in mid-epoch, resumed by one process and by two: the weights of one throughout."""
    ddp = [*LONG, "trainer=ddp", "trainer.devices=2", f"hydra.run.dir={tmp_path / 'two'}"]
    last = tmp_path / "two" / "checkpoints" / "last.ckpt"

    two = start(tmp_path, toy_path, *ddp, "ckpt=auto")
    wait_for(last, two)
    two.send_signal(signal.SIGTERM)  # to the first only
    output, _ = two.communicate(timeout=250)  # until the second is gone too
    assert two.returncode == 128 + signal.SIGTERM, output
    assert f"stopped by SIGTERM after step {load(last)['global_step']}" in output
    assert 0 < load(last)["global_step"] < 60

    resumed = weights(one(f"ckpt={last}") / "best.ckpt")
    again = start(tmp_path, toy_path, *ddp, "ckpt=auto")
    output, _ = again.communicate(timeout=250)
    assert again.returncode == 0, output
    assert output.count("Head toy") == output.count("step 60/60") == 1
    assert (tmp_path / "two" / "export" / "model.onnx").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"two"}

    whole = weights(one() / "best.ckpt")
    assert close(resumed, whole)
    assert close(weights(tmp_path / "two" / "checkpoints" / "best.ckpt"), whole)
    with (tmp_path / "two" / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)][-1] == "59"


def slurm(rank: int, port: int) -> dict[str, str]:
    """Environment variables that SLURM sets for the two processes of a job."""
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_lost_process_leaves_a_checkpoint_and_a_message(one, toy_path, tmp_path):
    """One of two processes is killed, as under SLURM; the other prints how to continue."""
    run = [*SLURM, f"hydra.run.dir={tmp_path / 'a'}"]
    port, last = free_port(), tmp_path / "a" / "checkpoints" / "last.ckpt"
    first, second = (start(tmp_path, toy_path, *run, **slurm(rank, port)) for rank in (0, 1))
    wait_for(last, first, second)
    second.kill()
    output, _ = first.communicate(timeout=250)
    second.communicate()
    assert first.returncode == 1, output
    assert "another process of this run was lost" in output
    assert f"resume with ckpt={last}" in output
    assert 0 < load(last)["global_step"] < 60
    assert close(weights(one(f"ckpt={last}") / "best.ckpt"), weights(one() / "best.ckpt"))


def test_processes_in_different_directories_are_refused(tmp_path):
    class First:
        """Answer for the second of two processes."""

        broadcast = staticmethod(lambda _: str(tmp_path / "one"))
        reduce_boolean_decision = staticmethod(lambda decision: decision)

    trainer = type("Trainer", (), {"strategy": First()})()
    LastCheckpoint(tmp_path / "one", 1).setup(trainer, None, "fit")
    with pytest.raises(ValueError, match=r"first has .*one, this one .*two.*hydra.run.dir=PATH"):
        LastCheckpoint(tmp_path / "two", 1).setup(trainer, None, "fit")


@pytest.mark.slow
def test_sweep_through_submitit(toy, toy_path, tmp_path):
    sweep = start(
        tmp_path,
        toy_path,
        "seed=1,2",
        "hydra/launcher=submitit_local",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        options=("-m",),
    )
    output, _ = sweep.communicate(timeout=250)
    assert sweep.returncode == 0, output
    for number, seed in enumerate((1, 2)):
        folder = tmp_path / "sweep" / str(number)
        assert (folder / "report.html").is_file()
        config = compose(toy_path, tmp_path / str(seed), f"seed={seed}")
        fit(config, Cohort.single(toy), tmp_path / str(seed))
        first, second = (
            weights(f / "checkpoints" / "best.ckpt") for f in (folder, tmp_path / str(seed))
        )
        assert close(first, second)  # the jobs run on one thread
