"""Probabilities of the number of sources: ``python -m benchmarks.source_counts RUN``.

Recordings of one to ten sources, with the share of single ones of `experiment=champagne`, from the
split ``test``. Written are a CSV with one line per SNR (log score in nats, of the model and of the
frequencies of the numbers themselves; accuracy; coverage of the 90 % set), a
CSV with the frequencies behind the reliability plot, one with the confusion of numbers, and the
plot.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.cli.loading import load_named, load_scenarios
from deepesi.composition import compose
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.parallel import one_thread
from deepesi.evaluation.scenario import Scenario
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template
from deepesi.utils.rows import write_rows

Array = NDArray[np.float64]
SETTINGS = (
    "scenario.sources.n_sources=[1,10]",
    "+scenario.sources.simple_share=0.3",
    "scenario.snr_db=[0,5,10,20]",
)
#: Edges of the bins of probabilities.
EDGES = np.array([0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0])
#: Probability of the set of numbers.
LEVEL = 0.9


def counts(
    model: InverseModel, scenario: Scenario, cohort: Cohort
) -> Iterator[tuple[float, Array, NDArray[np.int64]]]:
    """SNR, probabilities ``(B, K)`` and true numbers ``(B,)`` of every batch."""
    recordings = scenario.recordings(cohort, [model])
    for step, size in enumerate(scenario.sizes):
        for snr_db in map(float, scenario.snr_db):
            batch = recordings.at_snr(snr_db).batch(step)
            with torch.inference_mode():
                found = model(batch.data, batch.inputs).source_counts
            if found is None:
                raise ValueError(
                    f"source_counts: {type(model).__name__} counts no sources. Give a run of "
                    "experiment=champagne."
                )
            true = (batch.scene.peaks >= 0).sum(1)[:size]
            yield snr_db, found[:size].double().numpy(), true.numpy()


def in_set(probabilities: Array, true: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the true number is among the most probable ones that together have `LEVEL`."""
    own = probabilities[np.arange(len(true)), true - 1, None]
    return np.asarray((probabilities * (probabilities > own)).sum(1) < LEVEL)


def scores(probabilities: Array, true: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Log score of the model and of the frequencies (nats), accuracy, coverage of the set."""
    own = probabilities[np.arange(len(true)), true - 1]
    shares = np.bincount(true - 1, minlength=probabilities.shape[1]) / len(true)
    accurate = probabilities.argmax(1) + 1 == true
    return (
        -float(np.log(own.clip(1e-12)).mean()),
        -float(np.log(shares[true - 1]).mean()),
        float(accurate.mean()),
        float(in_set(probabilities, true).mean()),
    )


def reliability(
    probabilities: Array, true: NDArray[np.int64]
) -> Iterator[tuple[float, float, float, float, int]]:
    """Per bin of all probabilities: mean, frequency with its binomial error, and number."""
    is_true = np.arange(1, probabilities.shape[1] + 1) == true[:, None]
    which = np.digitize(probabilities, EDGES[1:-1])
    for number in range(len(EDGES) - 1):
        inside = which == number
        if n := int(inside.sum()):
            predicted, observed = probabilities[inside].mean(), is_true[inside].mean()
            error = 1.96 * np.sqrt(observed * (1 - observed) / n)
            yield predicted, observed, observed - error, observed + error, n


def draw(bins: list[tuple[float, float, float, float, int]], path: Path) -> None:
    """The reliability plot."""
    from matplotlib.figure import Figure

    predicted, observed, low, high, _ = np.array(bins).T
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    limits = [observed - low, high - observed]
    axes.errorbar(predicted, observed, limits, marker="o", linestyle="", capsize=2)
    axes.set(xlabel="probability of a number of sources", ylabel="observed frequency")
    axes.set_aspect("equal")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "model", help="run of experiment=champagne, or untrained:unrolled_champagne"
    )
    parser.add_argument("--head", default="fsaverage-ico3")
    parser.add_argument("--examples", type=int, default=400, help="per SNR")
    parser.add_argument("--samples", type=int, default=1, help="length of the windows")
    parser.add_argument("--out", type=Path, default=Path("source_counts"))
    arguments = parser.parse_args()
    template = load_template(arguments.head)
    ((_, model),) = load_named([arguments.model], template, "source_counts")[0].items()
    changes = ["scenario=several", *SETTINGS, f"scenario.n_examples={arguments.examples}"]
    changes += [f"scenario.n_times={arguments.samples}", "scenario.batch_size=50"]
    (scenario,) = load_scenarios([compose("evaluate", changes).scenario])
    with one_thread():
        found = list(counts(model, scenario, Cohort.single(template)))
    lines = []
    for snr_db in (*map(float, scenario.snr_db), None):
        chosen = [f for f in found if snr_db in (f[0], None)]
        probabilities, true = (np.concatenate(v) for v in list(zip(*chosen, strict=True))[1:])
        label = "all" if snr_db is None else f"{snr_db:g}"
        lines.append((label, len(true), *(f"{v:.3f}" for v in scores(probabilities, true))))
        print(*lines[-1])
    arguments.out.mkdir(parents=True, exist_ok=True)
    columns = ("SNR (dB)", "recordings", "log score", "log score of the frequencies", "accuracy")
    write_rows(arguments.out / "scores.csv", (*columns, "in the 90 % set"), lines)
    bins = list(reliability(probabilities, true))
    columns = ("probability", "frequency", "low", "high", "n")
    write_rows(arguments.out / "reliability.csv", columns, bins)
    most = probabilities.argmax(1)
    table = np.zeros((probabilities.shape[1],) * 2, dtype=int)
    np.add.at(table, (true - 1, most), 1)
    numbers = range(1, len(table) + 1)
    confusion = ((k, *row) for k, row in zip(numbers, table.tolist(), strict=True))
    write_rows(arguments.out / "confusion.csv", ("true", *numbers), confusion)
    draw(bins, arguments.out / "reliability.png")


if __name__ == "__main__":
    main()
