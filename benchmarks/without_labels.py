"""Gains without labels and their controls, in small trainings.

    python -m benchmarks.without_labels curves --files FILES... --out curves.csv
    python -m benchmarks.without_labels adaptation --out adaptation.csv

`curves`: localization error after few supervised steps, from pretrained weights and from scratch.
`adaptation`: errors on other people's heads, of the bounds and of every distance. Every training is
one of `deepesi.training.run.fit`, with one montage and single samples. Test recordings are the same
for all.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from deepesi.composition import compose
from deepesi.metrics.example import Geometry
from deepesi.metrics.source_metric import examples
from deepesi.metrics.table import METRICS
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template
from deepesi.training.run import fit
from deepesi.training.weights import load_network
from deepesi.utils.rows import write_rows

#: Overrides of every simulated stream, small enough for minutes on one core.
SMALL = ("n_times=1", "batch_size=32", "setups.montages=[biosemi32]", "pool_size=4")
#: Steps of the largest supervised training; shares of it are the budgets.
FULL = 1000


def configured(steps: int, seed: int, *overrides: str) -> DictConfig:
    """Configuration of a small run."""
    words = [
        "trainer.n_validation_batches=1",
        f"trainer.max_steps={steps}",
        f"trainer.steps_per_epoch={steps}",
        "trainer.ema_decay=null",
        "compare=false",
        "export=false",
        "logger.save_dir=.",
        "name=study",
        f"seed={seed}",
    ]
    return compose("train", [*overrides, *words])


def trained(config: DictConfig, cohort: Cohort, folder: Path) -> Path:
    """Last weights of a run, so that all runs are compared at the same step."""
    config.logger.save_dir = str(folder)
    fit(config, cohort, folder)
    return folder / "checkpoints" / "last.ckpt"


def errors(path: Path, config: DictConfig, cohort: Cohort, n_batches: int) -> np.ndarray:
    """Localization errors of a network on test recordings, mm."""
    model, _ = load_network(path, cohort.template.space)
    stream = instantiate(config, _convert_="all")(
        heads=cohort.test,
        nominal_head=cohort.template,
        declarations=model.head_inputs,
        batch_size=64,
        seed=0,
        split="test",
    )
    found: list[float] = []
    function = METRICS["localization_error"].function
    for step in range(n_batches):
        batch = stream.batch(step)
        with torch.no_grad():
            estimate = model(batch.data, batch.inputs)
        geometry = Geometry(batch.head)
        found += [function(example, geometry) for example in examples(estimate, batch)]
    return np.array(found)


def run_curves(options: argparse.Namespace, cohort: Cohort, folder: Path) -> list[dict[str, Any]]:
    """Supervised training of shares of `FULL` steps, with every start."""
    files = f"data.files=[{','.join(options.files)}]"
    starts: dict[str, str | None] = {"scratch": None}
    for task in ("masked", "contrastive"):
        n_times = 1 if task == "masked" else 8
        config = configured(
            options.steps,
            0,
            "experiment=pretrain",
            f"task={task}",
            files,
            f"data.n_times={n_times}",
        )
        config.data.batch_size = 32
        starts[task] = str(trained(config, cohort, folder / task))
    rows = []
    for share in options.shares:
        for seed in range(options.seeds):
            for start, path in starts.items():
                simulated = [f"data.{word}" for word in SMALL]
                config = configured(
                    round(share * FULL), seed, "experiment=finetune", "pretrained=null", *simulated
                )
                config.init_from = path
                last = trained(config, cohort, folder / f"{start}{share}{seed}")
                values = errors(last, config.data, cohort, options.batches)
                rows.append(row(start, seed, values, share=share))
    return rows


def run_adaptation(
    options: argparse.Namespace, cohort: Cohort, folder: Path
) -> list[dict[str, Any]]:
    """Bounds and distances, tested on other people's heads and on the template."""
    arms = {
        "source only": ["experiment=source_only"],
        "CORAL": ["experiment=adapt", "task=coral"],
        "MMD": ["experiment=adapt", "task=mmd"],
        "DANN": ["experiment=adapt", "task=dann"],
        "target only": ["experiment=target_only"],
    }
    test = configured(1, 0, "experiment=target_only", *(f"data.{word}" for word in SMALL)).data
    rows = []
    for seed in range(options.seeds):
        for name, words in arms.items():
            adapt = "experiment=adapt" in words
            small = [f"data.{word}" for word in SMALL]
            small += [f"unlabelled.{word}" for word in SMALL] if adapt else []
            config = configured(options.steps, seed, *words, *small)
            last = trained(config, cohort, folder / f"{name}{seed}")
            rows.append(row(name, seed, errors(last, test, cohort, options.batches)))
    return rows


def row(name: str, seed: int, values: np.ndarray, **more: Any) -> dict[str, Any]:
    """Mean error and its standard error over examples, printed as well."""
    mean, error = values.mean(), values.std() / np.sqrt(len(values))
    print(f"{name:12s} {more} seed {seed}: {mean:.1f} +- {error:.1f} mm", flush=True)
    return {"start": name, **more, "seed": seed, "error_mm": mean, "standard_error": error}


def main(words: Sequence[str] | None = None) -> None:
    """Run a study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=["curves", "adaptation"])
    parser.add_argument("--files", nargs="*", default=[], help="real recordings, for curves")
    parser.add_argument("--steps", type=int, default=100, help="of pretraining, or of adaptation")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.01, 0.1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=2, help="test batches of 64")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(words)
    cohort = Cohort.single(load_template())
    study = {"curves": run_curves, "adaptation": run_adaptation}[options.study]
    with tempfile.TemporaryDirectory() as folder:
        rows = study(options, cohort, Path(folder))
    write_rows(options.out, list(rows[0]), (row.values() for row in rows))


if __name__ == "__main__":
    main()
