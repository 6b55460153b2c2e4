"""What one term of the loss brings: small trainings with and without it, over the same seeds.

    python -m benchmarks.loss_terms convdip spectral --out loss_terms_runs.csv
    python -m benchmarks.loss_terms volume --head HEAD.npz --out loss_terms_runs.csv
    python -m benchmarks.loss_terms --out loss_terms_runs.csv --table loss_terms.csv

Arms of a study differ in the loss only: same initial weights, same recordings in the
same order, same test recordings. So they are compared seed by seed. Runs that the file has already
are not repeated. `volume` needs a head of a volume (``deepesi head build --spacing vol14``).
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.without_labels import configured, mean_text, trained
from deepesi.cli.loading import load_scenarios
from deepesi.composition import compose
from deepesi.core.contracts import InverseModel
from deepesi.losses.anatomy import OffCortexRidge
from deepesi.metrics.example import Geometry
from deepesi.metrics.source_metric import examples
from deepesi.metrics.table import METRICS
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template
from deepesi.training.weights import load_network
from deepesi.utils.rows import append_rows, read_rows, write_rows

#: Mean scores of a run.
SCORES = ("localization_error", "nemd")
COLUMNS = ("study", "arm", "seed", "test", *SCORES)
TABLE = ("term; network; test", "error without it, mm", "change, mm", "nEMD without it", "change")
CURE = "Write to another file."


@dataclass(frozen=True)
class Study:
    """Trainings that differ in the loss only, and their test.

    Args:
        network: Network and windows, in words.
        steps: Steps of a training.
        words: Overrides of the training.
        arms: Name of an arm to its overrides; the first is the training without any of the terms.
        test: Overrides of the scenario.

    """

    network: str
    steps: int
    words: tuple[str, ...]
    arms: dict[str, tuple[str, ...]]
    test: tuple[str, ...]


def added(name: str, term: str, weight: float) -> tuple[str, str]:
    """Overrides that add a term to the loss."""
    return f"+loss.terms.{name}._target_=deepesi.losses.{term}", f"+loss.weights.{name}={weight}"


SMALL = ("data.batch_size=64", "data.setups.montages=[biosemi32]", "data.pool_size=4")
MONTAGE = "scenario.setups.montages=[biosemi32]"
RADIUS = "sources.radius=[0.015,0.03]"
STUDIES = {
    "convdip": Study(
        "ConvDip",
        200,
        (*SMALL, "model.hidden=128"),
        {
            "without": (),
            "MMD of estimates for two skulls 0.1": ("loss=aligned",),
            "adversary of the skull 0.1": ("loss=adversarial",),
            "smoothness by curvature 0.03": added("curvature", "anatomy.CurvatureSmoothness", 0.03),
            "the same smoothness everywhere 0.03": ("loss.weights.laplacian=0.03",),
        },
        ("scenario=snr", "scenario.snr_db=[5]", "scenario.n_examples=150", MONTAGE),
    ),
    "spectral": Study(
        "transformer, windows of 1 s",
        60,
        (
            "experiment=transformer",
            "loss=default",
            *SMALL,
            "data.n_times=[250]",
            "data.window_batch_size=8",
        ),
        {
            "without": (),
            "spectral distance 0.1": ("loss=spectral",),
        },
        ("scenario=oscillation", "scenario.snr_db=[-5]", "scenario.n_examples=60", MONTAGE),
    ),
    "volume": Study(
        "U-Net, volume",
        60,
        (
            "experiment=piunet",
            "loss=no_laplacian",
            *SMALL,
            "data.n_times=1",
            "data.batch_size=32",
            f"data.{RADIUS}",
            "data.sources.orientation=random",
            "model.smallest=0.015",
            "model.largest=0.03",
        ),
        {
            "without": (),
            "ridge off the cortex 0.1": added("off_cortex", "anatomy.OffCortexRidge", 0.1),
        },
        (
            "scenario=snr",
            "scenario.snr_db=[5]",
            "scenario.n_examples=100",
            MONTAGE,
            f"scenario.{RADIUS}",
            "+scenario.sources.orientation=random",
        ),
    ),
}


def runs(
    name: str, study: Study, seeds: Sequence[int], cohort: Cohort, known: Sequence[Sequence[str]]
) -> Iterator[list[Any]]:
    """Rows of the trainings that are not known yet."""
    for seed, (arm, words) in product(seeds, study.arms.items()):
        if [name, arm, str(seed)] in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            config = configured(study.steps, seed, *study.words, *words)
            path = trained(config, cohort, Path(folder))
            model, _ = load_network(path, cohort.template.space)
        for test, values in scores(model, study, cohort).items():
            row = [name, arm, seed, test, *(f"{value:.4g}" for value in values)]
            print(*row, sep="  ", flush=True)
            yield row


def scores(model: InverseModel, study: Study, cohort: Cohort) -> dict[str, NDArray[np.float64]]:
    """Mean scores of every test set; in volumes of sources on the cortex and of others."""
    volume = cohort.template.space.n_orient == 3
    found: dict[str, list[list[float]]] = {}
    for scenario in load_scenarios([compose("evaluate", [*study.test]).scenario]):
        snr_db = float(scenario.snr_db[0])
        test = scenario.level or f"{snr_db:g} dB"
        # A loss term declares head inputs as a model does.
        ridge = OffCortexRidge()
        for batch in scenario.batches(cohort, snr_db, [model, ridge]):
            with torch.no_grad():
                estimate = model(batch.data, batch.inputs)
            off, geometry = ridge.share(batch.inputs) > 0, Geometry(batch.head)
            for example in examples(estimate, batch):
                place = ("on the cortex", "off the cortex")[off[example.peaks[0]]]
                own = [METRICS[score].function(example, geometry) for score in SCORES]
                found.setdefault(place if volume else test, []).append(own)
    return {test: np.mean(values, axis=0) for test, values in found.items()}


def table(rows: Sequence[dict[str, str]]) -> Iterator[list[str]]:
    """Per arm and test: scores without the term, and the mean change with its 95 % t interval."""
    for name, study in STUDIES.items():
        base, *others = study.arms
        own = [row for row in rows if row["study"] == name]
        for arm in others:
            for test in dict.fromkeys(row["test"] for row in own):
                cells = [f"{arm}; {study.network}; {test}"]
                for score, decimals in zip(SCORES, (1, 4), strict=True):
                    before, after = (
                        np.array(
                            [float(r[score]) for r in own if r["arm"] == a and r["test"] == test]
                        )
                        for a in (base, arm)
                    )
                    cells += [
                        f"{before.mean():.{decimals}f}",
                        mean_text(after - before, decimals, "+"),
                    ]
                yield cells


def main(words: Sequence[str] | None = None) -> None:
    """Train what is missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--head", default="fsaverage-ico3")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("loss_terms_runs.csv"))
    parser.add_argument("--table", type=Path, help="write the table of all runs here")
    options = parser.parse_args(words)
    if not options.out.exists():
        write_rows(options.out, COLUMNS, [])
    known = [list(row.values())[:3] for row in read_rows(options.out, COLUMNS, CURE)]
    cohort = Cohort.single(load_template(options.head))
    for name in options.studies:
        for row in runs(name, STUDIES[name], options.seeds, cohort, known):
            append_rows(options.out, [row])
    if options.table is not None:
        write_rows(options.table, TABLE, table(read_rows(options.out, COLUMNS, CURE)))


if __name__ == "__main__":
    main()
