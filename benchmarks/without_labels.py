"""Gains without labels and their controls, in small trainings.

    python -m benchmarks.without_labels curves --files FILES... --out curves.csv
    python -m benchmarks.without_labels adaptation --shift noise --out adaptation.csv
    python -m benchmarks.without_labels curriculum --out curriculum.csv

`curves`: errors after a share of the supervised steps, from pretrained weights and from scratch.
`adaptation`: errors in another domain, of the bounds, of every distance, and of `SiteWhitening`
and small entropy per recording.
`curriculum`: errors after ranges that widen during training, and after the full ranges.

Errors are localization errors, mm. Every training is one of `deepesi.training.run.fit`. Test
recordings are the same for all. The table has one line per method, with the mean over seeds and
the 95 % interval (Student's t) of the difference to the control, paired over seeds.
"""

import argparse
import copy
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from scipy import stats

from deepesi.composition import compose
from deepesi.core.batch import Batch
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.intervals import interval_text
from deepesi.evaluation.scores import metric_values
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template
from deepesi.training.run import fit
from deepesi.training.site_whitening import SiteWhitening
from deepesi.training.weights import load_network
from deepesi.utils.rows import write_rows

#: Values of the data of every simulated stream, small enough for minutes on one core.
SMALL = ("batch_size=32", "pool_size=4")
#: Single samples of one montage.
SNAPSHOTS = (*SMALL, "n_times=1", "setups.montages=[biosemi32]")
WHITE_ONLY = ("setups.noise.coloured=null", "setups.noise.brain=null")
BAD_ELECTRODES = (
    "artifacts=[{_target_:deepesi.data_gen.artifacts.BadElectrode,"
    "probability:1.0,relative_db:[5,15]}]"
)
#: Training domain and the other domain: group of the data, and its values.
SHIFTS = {
    "stranger": (
        ("windows", (*SNAPSHOTS, "snr_db=[-5,20]")),
        ("stranger", (*SNAPSHOTS, "snr_db=[-5,20]")),
    ),
    "noise": (
        ("windows", (*SNAPSHOTS, "snr_db=[10,20]", *WHITE_ONLY)),
        ("windows", (*SNAPSHOTS, "snr_db=[-10,0]", "setups.noise.white=[0.02,0.03]")),
    ),
    # Noise of single electrodes that is not in the noise covariance.
    "electrodes": (
        ("windows", (*SNAPSHOTS, "snr_db=[5,20]")),
        ("windows", (*SNAPSHOTS, "snr_db=[5,20]", BAD_ELECTRODES)),
    ),
    "montage": (
        ("windows", (*SNAPSHOTS, "snr_db=[5,20]")),
        ("windows", (*SMALL, "n_times=1", "setups.montages=[10-20-19]", "snr_db=[5,20]")),
    ),
}
#: Values of the curriculum's data: every aspect of ``data=everything``, with fewer montages.
EVERYTHING = (*SMALL, "n_times=10", "setups.montages=[biosemi64,biosemi32,10-20-19,easycap-M1]")
#: A small network without the lead field, which learns the domain that it is trained on.
CONVDIP = ("model=convdip", "model.hidden=64")
#: Its layer of features.
LAYER, BATCH_AXIS, FEATURE_AXIS = "norm", 0, 1
DISTANCES = {"CORAL": "coral", "MMD": "mmd", "DANN": "dann"}
#: Windows of a site that `SiteWhitening` takes statistics from, and windows that are scored.
N_SITE, N_SCORED = 512, 64
#: Steps of training for small entropy.
ENTROPY_STEPS = 20
#: Smallest share of a source in a map: at 0 the entropy has no derivative.
LEAST_SHARE = 1e-12
#: Steps between two draws of the set-ups, with and without curriculum, as a share of the training.
REDRAWN = 1 / 20


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


def of_group(group: str, values: Sequence[str]) -> list[str]:
    """Values as overrides of a group."""
    return [f"{group}.{value}" for value in values]


def trained(config: DictConfig, cohort: Cohort, folder: Path) -> Path:
    """Last weights of a run, so that all runs are compared at the same step."""
    config.logger.save_dir = str(folder)
    fit(config, cohort, folder)
    return folder / "checkpoints" / "last.ckpt"


def recordings(
    data: DictConfig, cohort: Cohort, model: InverseModel, split: str, n: int, size: int
) -> list[Batch]:
    """Batches of a domain, each with a set-up of its own."""
    stream = instantiate(data, _convert_="all")(
        heads=cohort.of(split),
        nominal_head=cohort.template,
        declarations=model.head_inputs,
        batch_size=size,
        pool_size=n,
        seed=0,
        split=split,
    )
    return [stream.batch(step) for step in range(n)]


def error(model: InverseModel, batches: Sequence[Batch]) -> float:
    """Mean localization error of the last `N_SCORED` examples of every batch, mm."""
    return float(
        np.mean([metric_values(model, batch.part(slice(-N_SCORED, None))) for batch in batches])
    )


def error_after(adapt: Callable[[Batch], InverseModel], batches: Sequence[Batch]) -> float:
    """The same, after every site has given its other windows to adapt to."""
    return float(np.mean([error(adapt(b.part(slice(-N_SCORED))), [b]) for b in batches]))


def whitened(whitening: SiteWhitening, site: Batch) -> SiteWhitening:
    """Network with the features of a site whitened."""
    whitening.adapt(site.data, site.inputs)
    return whitening


def of_small_entropy(model: InverseModel, site: Batch) -> InverseModel:
    """Network whose normalization layers were trained for small entropy of the maps of a site.

    A map is the magnitude of the sources divided by its sum.

    Source: Wang et al. 2021, arXiv:2006.10726 (Tent). Difference: maps instead of classes.
    """
    adapted = copy.deepcopy(model)
    layers = [m for m in adapted.modules() if isinstance(m, torch.nn.LayerNorm)]
    optimizer = torch.optim.Adam([p for m in layers for p in m.parameters()], lr=1e-3)
    for _ in range(ENTROPY_STEPS):
        magnitudes = adapted(site.data, site.inputs).mean.abs()
        share = (magnitudes / magnitudes.sum(1, keepdim=True)).clamp_min(LEAST_SHARE)
        optimizer.zero_grad()
        torch.special.entr(share).sum(1).mean().backward()
        optimizer.step()
    return adapted.eval()


class Errors(dict[str, list[float]]):
    """Errors of every method, one per seed; each is printed as well."""

    def add(self, name: str, value: float, where: str = "test") -> None:
        """Add the error of the next seed."""
        self.setdefault(name, []).append(value)
        print(f"{name}, {where}: seed {len(self[name]) - 1}: {value:.2f} mm", flush=True)

    def line(self, name: str, control: str) -> dict[str, Any]:
        """Mean over seeds, all seeds, and the gain over a control."""
        gain = np.subtract(self[control], self[name])
        return {
            "error_mm": f"{np.mean(self[name]):.1f}",
            "seeds": " / ".join(f"{value:.1f}" for value in self[name]),
            "gain_mm": "" if name == control else mean_text(gain, 1),
        }


def mean_text(values: NDArray[np.float64], decimals: int, sign: str = "") -> str:
    """Mean over seeds with the 95 % interval of Student's t; `sign` as in formats."""
    if len(values) < 2:
        return f"{values.mean():{sign}.{decimals}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return interval_text(values.mean(), values.mean() - half, values.mean() + half, decimals, sign)


def run_curves(options: argparse.Namespace, cohort: Cohort, folder: Path) -> list[dict[str, Any]]:
    """Supervised training of shares of the full number of steps, with every start."""
    files = f"data.files=[{','.join(options.files)}]"
    starts: dict[str, str | None] = {"scratch": None}
    for task, n_times in (("masked", 1), ("contrastive", 8)):
        words = ("experiment=pretrain", f"task={task}", files, f"data.n_times={n_times}")
        config = configured(options.pretraining, 0, *words, "data.batch_size=32")
        starts[task] = str(trained(config, cohort, folder / task))
    found, batches = Errors(), list[Batch]()
    simulated = ("experiment=finetune", "pretrained=null", *of_group("data", SNAPSHOTS))
    for share in options.shares:
        for seed in range(options.seeds):
            for start, path in starts.items():
                config = configured(round(share * options.steps), seed, *simulated)
                config.init_from = path
                last = trained(config, cohort, folder / f"{start}{share}{seed}")
                model, _ = load_network(last, cohort.template.space)
                batches = batches or recordings(
                    config.data, cohort, model, "test", options.setups, N_SCORED
                )
                found.add(f"{start}, {share:g}", error(model, batches))
    return [
        {"start": start, "examples_%": f"{100 * share:g}"}
        | found.line(f"{start}, {share:g}", f"scratch, {share:g}")
        for share in options.shares
        for start in starts
    ]


def run_adaptation(
    options: argparse.Namespace, cohort: Cohort, folder: Path
) -> list[dict[str, Any]]:
    """Bounds, distances and whitening, tested in the other domain and in the training domain."""
    (source, own), (target, other) = SHIFTS[options.shift]
    sides = {
        "source only": ["experiment=source_only", f"data={source}", *of_group("data", own)],
        "target only": ["experiment=target_only", f"data={target}", *of_group("data", other)],
    }
    layer = [f"layer={LAYER}", f"batch_axis={BATCH_AXIS}", f"feature_axis={FEATURE_AXIS}"]
    arms = dict(sides)
    for name, task in DISTANCES.items() if not options.bounds else ():
        arms[name] = [
            "experiment=adapt",
            f"data={source}",
            f"data@unlabelled={target}",
            f"task={task}",
            f"task.weight={options.weight}",
            *of_group("data", own),
            *of_group("unlabelled", other),
            *of_group("task.features", layer),
        ]
    here, there = Errors(), Errors()
    domains: dict[str, list[Batch]] = {}
    for seed in range(options.seeds):
        for name, words in arms.items():
            config = configured(options.steps, seed, *words, *CONVDIP)
            last = trained(config, cohort, folder / f"{name}{seed}")
            model, _ = load_network(last, cohort.template.space)
            for side, words_of_side in sides.items() if not domains else ():
                data = configured(1, 0, *words_of_side).data
                domains[side] = recordings(
                    data, cohort, model, "test", options.setups, N_SITE + N_SCORED
                )
            here.add(name, error(model, domains["source only"]), "own domain")
            there.add(name, error(model, domains["target only"]), "other domain")
            if name == "source only" and not options.bounds:
                whitening = SiteWhitening(model, LAYER, FEATURE_AXIS)
                whitening.fit(recordings(config.data, cohort, model, "train", 16, N_SITE // 4))
                tested: dict[str, Callable[[Batch], InverseModel]] = {
                    "SiteWhitening": functools.partial(whitened, whitening),
                    "small entropy": functools.partial(of_small_entropy, model),
                }
                for title, adapt in tested.items():
                    here.add(title, error_after(adapt, domains["source only"]), "own domain")
                    there.add(title, error_after(adapt, domains["target only"]), "other domain")
    gap = np.mean(there["source only"]) - np.mean(there["target only"])
    lines = []
    for name in [name for name in there if name != "target only"] + ["target only"]:
        share = 100 * np.subtract(there["source only"], there[name]) / gap
        lines.append(
            {"method": name}
            | there.line(name, "source only")
            | {"gap_recovered_%": "" if name == "source only" else mean_text(share, 0)}
            | {"training_domain_mm": f"{np.mean(here[name]):.1f}"}
        )
    return lines


def run_curriculum(
    options: argparse.Namespace, cohort: Cohort, folder: Path
) -> list[dict[str, Any]]:
    """``data=curriculum`` and the full ranges from the start, with as many recording set-ups."""
    found, batches = Errors(), list[Batch]()
    period = max(4, round(REDRAWN * options.steps))
    values = (*EVERYTHING, f"pool_period={period}")
    words = ["loss=peaks", *CONVDIP, *of_group("data", values)]
    for seed in range(options.seeds):
        for name, data in {"none": "data=everything", "curriculum": "data=curriculum"}.items():
            config = configured(options.steps, seed, data, *words)
            last = trained(config, cohort, folder / f"{name}{seed}")
            model, _ = load_network(last, cohort.template.space)
            batches = batches or recordings(
                config.data, cohort, model, "test", options.setups, N_SCORED
            )
            found.add(name, error(model, batches))
    return [{"curriculum": name} | found.line(name, "none") for name in found]


def main(words: Sequence[str] | None = None) -> None:
    """Run a study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    studies = {
        "curves": run_curves,
        "adaptation": run_adaptation,
        "curriculum": run_curriculum,
    }
    parser.add_argument("study", choices=list(studies))
    parser.add_argument("--files", nargs="*", default=[], help="real recordings, for curves")
    parser.add_argument("--pretraining", type=int, default=100, help="its steps, for curves")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.01, 0.1, 1.0])
    parser.add_argument("--shift", choices=list(SHIFTS), default="noise", help="for adaptation")
    parser.add_argument("--weight", type=float, default=1.0, help="of the distance of domains")
    parser.add_argument("--bounds", action="store_true", help="adaptation: the bounds only")
    parser.add_argument("--steps", type=int, default=400, help="of the largest training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--setups", type=int, default=8, help="recording set-ups of the test")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(words)
    cohort = Cohort.single(load_template())
    with tempfile.TemporaryDirectory() as folder:
        rows = studies[options.study](options, cohort, Path(folder))
    write_rows(options.out, list(rows[0]), (row.values() for row in rows))


if __name__ == "__main__":
    main()
