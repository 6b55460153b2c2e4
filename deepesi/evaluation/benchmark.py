"""Runs inverse models side by side on a scenario and summarizes each metric with an interval."""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.contracts import Batch, Estimate, InverseModel, Oracle
from deepesi.data_gen.artifacts import Artifact
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.metrics.classes import (
    AUC,
    NEMD,
    Geometry,
    LocalizationError,
    SourceMetric,
    SpatialDispersion,
    examples,
)
from deepesi.physics.cohort import Cohort
from deepesi.physics.files import atomic

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """A test set: what is drawn, from a seed of its own.

    The draws come from the split ``"test"``, which no training or validation stream uses, so the
    lead fields, electrode displacements, sources and noise are others than any seen in training.

    Args:
        name: Of the scenario.
        snr_db: SNRs, dB; the same sources, lead fields and noise (but for its size) at each.
        n_examples: Examples per SNR, drawn in batches of at most 256.
        sources: What sources are drawn.
        setups: What set-ups are drawn from.
        tissues: What true tissues are drawn from.
        artifacts: Kinds of artifacts.
        n_times: Samples per example.
        sfreq: Sampling rate, Hz.
        seed: Of the scenario.

    Raises:
        ValueError: No SNR, or fewer than 2 examples.

    """

    name: str
    snr_db: Sequence[float]
    n_examples: int
    sources: PatchSources
    setups: SetupRanges
    tissues: TissueRanges = field(default_factory=TissueRanges)
    artifacts: Sequence[Artifact] = ()
    n_times: int = 1
    sfreq: float = 250.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.snr_db or self.n_examples < 2:
            raise ValueError(
                f"Scenario {self.name}: needs at least one SNR and 2 examples, got "
                f"snr_db={list(self.snr_db)}, n_examples={self.n_examples}."
            )

    def batches(
        self, cohort: Cohort, snr_db: float, models: Sequence[InverseModel | Oracle]
    ) -> Iterator[Batch]:
        """The test batches at one SNR on the test heads, with the inputs these models declare."""
        size = min(self.n_examples, 256)
        recordings = SimulatedRecordings(
            cohort.of("test"),
            self.sources,
            self.setups,
            [d for model in models for d in model.head_inputs],
            analyst=cohort.template,
            snr_db=(snr_db, snr_db),
            tissues=self.tissues,
            artifacts=self.artifacts,
            batch_size=size,
            n_times=self.n_times,
            sfreq=self.sfreq,
            seed=self.seed,
            split="test",
            pool_size=1,
            pool_period=1,
        )
        for step in range(-(-self.n_examples // size)):
            yield recordings.batch(step)


METRICS: dict[str, type[SourceMetric]] = {
    "localization_error": LocalizationError,
    "nemd": NEMD,
    "auc": AUC,
    "spatial_dispersion": SpatialDispersion,
}


#: The method that all others are compared with, example by example, where it is among them.
REFERENCE = "eLORETA"


@dataclass(frozen=True)
class Row:
    """One line of ``benchmark.csv``: a mean with its 95 % bootstrap interval, and the median.

    ``difference`` is the mean over the same examples of this method's value less the reference's,
    with its own interval: examples differ far more than methods do on one, so it tells methods
    apart whose own intervals overlap. None without the reference.
    """

    method: str
    scenario: str
    snr_db: float
    n_sources: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    median: float
    n: int
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


class WorkedExample(NamedTuple):
    """One test example with every method's estimate, to draw."""

    batch: Batch
    index: int
    estimates: dict[str, Estimate]


class Benchmark(NamedTuple):
    """What a run of the benchmark gives."""

    rows: list[Row]
    worked_example: WorkedExample


def bootstrap_interval(
    values: Array, seed: int = 0, n_resamples: int = 2000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(n_resamples, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def run_benchmark(
    models: Mapping[str, InverseModel | Oracle],
    scenario: Scenario,
    cohort: Cohort,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Benchmark:
    """Score every model on the scenario.

    Args:
        models: Name to model; all get the same recordings and the same nominal head.
        scenario: The test set.
        cohort: The heads; the test is on its test heads.
        on_progress: Called with a line before each SNR.

    """
    rows: list[Row] = []
    worked: WorkedExample | None = None
    low, high = scenario.sources.n_sources
    n_sources = str(low) if low == high else f"{low}-{high}"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for snr_db in scenario.snr_db:
            on_progress(f"{scenario.name}: {snr_db:g} dB")
            scores: dict[tuple[str, str], list[float]] = {}
            drawn = 0
            for batch in scenario.batches(cohort, snr_db, list(models.values())):
                geometry = Geometry(batch.head)
                estimates = {name: _apply(model, batch) for name, model in models.items()}
                keep = min(len(batch.eeg), scenario.n_examples - drawn)
                drawn += keep
                for name, estimate in estimates.items():
                    cases = list(examples(estimate, batch))[:keep]
                    for metric, kind in METRICS.items():
                        values = pool.map(kind.value, cases, [geometry] * len(cases))
                        scores.setdefault((name, metric), []).extend(values)
                if snr_db == sorted(scenario.snr_db)[len(scenario.snr_db) // 2]:
                    worked = worked or WorkedExample(batch, 0, estimates)
            for (name, metric), values in scores.items():
                rows.append(
                    Row(
                        name,
                        scenario.name,
                        float(snr_db),
                        n_sources,
                        metric,
                        *_summary(np.array(values)),
                        *_difference(np.array(values), scores.get((REFERENCE, metric))),
                    )
                )
    assert worked is not None, "a scenario has at least one SNR"
    return Benchmark(rows, worked)


def _summary(values: Array) -> tuple[float, float, float, float, int]:
    """Mean, interval, median and number."""
    return (
        float(values.mean()), *bootstrap_interval(values), float(np.median(values)), len(values),
    )  # fmt: skip


def _difference(
    values: Array, reference: list[float] | None
) -> tuple[float, float, float] | tuple[()]:
    """Mean paired difference to the reference with its interval, if there is a reference."""
    if reference is None:
        return ()
    paired = values - np.array(reference)
    return (float(paired.mean()), *bootstrap_interval(paired))


def _apply(model: InverseModel | Oracle, batch: Batch) -> Estimate:
    model.eval()
    with torch.no_grad():
        shown = (batch,) if isinstance(model, Oracle) else (batch.eeg, batch.inputs)
        estimate: Estimate = model(*shown)
    if not torch.isfinite(estimate.mean).all():
        raise FloatingPointError(
            f"benchmark: {type(model).__name__} gave NaN or infinite dipole moments at "
            f"{batch.scene.snr_db[0]:g} dB. Its training diverged or its file is damaged."
        )
    return estimate


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write ``benchmark.csv``, long format, one line per method, SNR and metric."""
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
