"""A training run on the toy head, in this process or its own, and a way to make it fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra
import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.losses.base import LossTerm
from deepesi.training.overrides import quoted

TOY = [
    "model.hidden=16",
    "model.height=6",
    "model.width=6",
    "data.batch_size=4",
    "data.setups.montages=[biosemi16]",
    "data.sources.radius=[0.03,0.06]",
    "trainer.steps_per_epoch=2",
    "trainer.validation_batch_size=4",
    "trainer.max_steps=2",
    "trainer.checkpoint_every=1",
    "trainer.log_every=1",
    "scenario.n_examples=4",
    "strangers=null",
    "scenario.snr_db=[10]",
    "scenario.setups.montages=[biosemi16]",
    "scenario.sources.radius=[0.03,0.06]",
]


def compose(toy_path: Path, run_dir: Path, *overrides: str):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose(
            "train",
            [
                *TOY,
                f"head.name={toy_path}",
                "name=toy",
                f"logger.save_dir={quoted(run_dir)}",
                *overrides,
            ],
        )


def load(checkpoint: Path):
    return torch.load(checkpoint, weights_only=True)


def weights(checkpoint: Path):
    return load(checkpoint)["state_dict"]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def start(
    cwd: Path, toy_path: Path, *overrides: str, options: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen:
    """``deepesi train`` on the toy head as a process of its own."""
    command = [
        sys.executable,
        "-m",
        "deepesi.cli.main",
        "train",
        *options,
        *TOY,
        f"head.name={toy_path}",
        "name=toy",
        "baselines=[]",
        *overrides,
    ]
    return subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def wait_for(path: Path, *processes: subprocess.Popen) -> None:
    """Until a file is there, while the processes live."""
    deadline = time.monotonic() + 200
    while not path.exists():
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
            raise TimeoutError(f"no {path}")
        for process in processes:
            assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


class Trap(LossTerm):
    """Adds nothing to the objective; once, in one training batch, something happens.

    Args:
        step: Number of the step.
        number: Number of the batch in the step.
        action: ``"memory"``, ``"spoil"``, or names of signals to send to this process.

    """

    armed = False

    def __init__(self, step: int, number: int, action: str) -> None:
        super().__init__()
        self.step, self.number, self.action = step, number, action

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        _, split, number, step = batch.scene.key
        zero = torch.zeros(len(batch.data))
        if not Trap.armed or (split, step, number) != ("train", self.step, self.number):
            return zero
        Trap.armed = False
        if self.action == "memory":
            torch.empty(2**52)
        elif self.action == "spoil":
            return torch.nan * estimate.mean.sum((1, 2))
        else:
            for name in self.action.split("+"):
                os.kill(os.getpid(), signal.Signals[name])
        return zero


def trap(step: int, number: int, action: str) -> list[str]:
    """Overrides that set one."""
    values = f"step:{step},number:{number},action:{action}"
    return [
        f"+loss.terms.trap={{_target_:tests.training.toy.Trap,{values}}}",
        "+loss.weights.trap=1.0",
    ]
