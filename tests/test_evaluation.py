import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.baselines.knowing_truth import KnowingTruth
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.contracts import Estimate, InverseModel
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.benchmark import (
    METRICS,
    Row,
    Scenario,
    bootstrap_interval,
    run_benchmark,
    write_csv,
)
from deepesi.evaluation.report import write_report
from deepesi.evaluation.table import best_method, differences, is_better, layout, rich_table
from deepesi.physics.cohort import Cohort


@pytest.fixture
def scenario():
    return Scenario(
        name="toy",
        snr_db=[0, 20],
        n_examples=30,
        sources=PatchSources((1, 1), (0.03, 0.06)),
        setups=SetupRanges(montages=["biosemi32"]),
    )


@pytest.fixture
def benchmark(scenario, toy):
    models = {name: MinimumNorm(name) for name in ("MNE", "eLORETA")}
    return run_benchmark(models, scenario, Cohort.single(toy))


def test_every_method_metric_and_snr_has_a_row(benchmark):
    assert len(benchmark.rows) == 2 * 2 * len(METRICS)
    for row in benchmark.rows:
        assert row.ci_low <= row.value <= row.ci_high
        assert row.n == 30
        assert row.n_sources == "1"


def test_more_signal_less_error(benchmark):
    error = {
        (r.method, r.snr_db): r.value for r in benchmark.rows if r.metric == "localization_error"
    }
    assert error["eLORETA", 20] < error["eLORETA", 0]
    assert error["eLORETA", 20] < error["MNE", 20]


def test_knowing_the_true_lead_field_helps(scenario, toy):
    """An oracle stands beside methods; at 20 dB mismatch is nearly all that is between them."""
    bayes = BayesSinglePatch(smallest=0.03, largest=0.06, n_radii=3)
    models = {"nominal": bayes, "true": KnowingTruth(bayes)}
    loud = replace(scenario, snr_db=[20], n_examples=200)
    rows = run_benchmark(models, loud, Cohort.single(toy)).rows
    error = {(r.method, r.metric): r.value for r in rows}
    for metric in ("localization_error", "nemd"):
        assert error["true", metric] < 0.95 * error["nominal", metric]


def test_benchmark_is_reproducible(benchmark, scenario, toy):
    """Whatever stands beside a method; only the reference must be there to be compared with."""
    again = run_benchmark({"MNE": MinimumNorm("MNE")}, scenario, Cohort.single(toy)).rows
    empty = dict.fromkeys(("difference", "difference_low", "difference_high"))
    assert again == [replace(r, **empty) for r in benchmark.rows if r.method == "MNE"]


def test_test_set_is_paired_over_snr_and_held_out(scenario, toy, simulate):
    low, high = (next(scenario.batches(Cohort.single(toy), snr, [])) for snr in (0.0, 20.0))
    assert torch.equal(low.scene.peaks, high.scene.peaks)
    assert torch.equal(low.truth.coefficients, high.truth.coefficients)
    assert low.scene.key[1] == "test"
    trained = simulate(seed=scenario.seed, montage="biosemi32", batch_size=30).batch(0)
    assert not torch.equal(trained.scene.tissues, low.scene.tissues)


def test_csv_is_long_format(benchmark, tmp_path):
    write_csv(benchmark.rows, tmp_path / "benchmark.csv")
    with (tmp_path / "benchmark.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:9] == (
        "method scenario snr_db n_sources metric value ci_low ci_high median".split()  # noqa: SIM905
    )
    assert [float(line["value"]) for line in lines] == [row.value for row in benchmark.rows]


def test_report_is_self_contained(benchmark, toy, tmp_path):
    write_report(benchmark, toy.display, {"seed": "0"}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for part in ("Error against SNR", "One worked example", "loc. error (mm)", "eLORETA"):
        assert part in text
    assert text.count("data:image/") >= 2
    assert 'src="http' not in text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_bootstrap_interval_covers_the_mean_at_its_level():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.normal(3, 1, size=80), n_resamples=500) for _ in range(400)]
    coverage = np.mean([low <= 3 <= high for low, high in intervals])
    assert 0.91 <= coverage <= 0.98


def row(method, value, low, high, metric="nemd"):
    return Row(method, "s", 0.0, "1", metric, value, low, high, value, 10)


def test_best_is_marked_only_beyond_the_intervals():
    clear = [row("a", 0.2, 0.1, 0.3), row("b", 0.5, 0.4, 0.6)]
    overlapping = [row("a", 0.2, 0.1, 0.45), row("b", 0.5, 0.4, 0.6)]
    assert best_method(clear, "nemd") == "a"
    assert best_method(overlapping, "nemd") is None
    higher = [row("a", 0.2, 0.1, 0.3, "auc"), row("b", 0.5, 0.4, 0.6, "auc")]
    assert best_method(higher, "auc") == "b"
    assert best_method(clear[:1], "nemd") is None


def test_difference_to_the_reference_is_paired(benchmark):
    """Of the same examples: less spread than either, and the means subtract."""
    value = {(r.method, r.metric, r.snr_db): r for r in benchmark.rows}
    for (method, metric, snr_db), row in value.items():
        reference = value["eLORETA", metric, snr_db]
        assert row.difference == pytest.approx(row.value - reference.value, abs=1e-9)
        assert row.difference_low <= row.difference <= row.difference_high
        if method == "eLORETA":
            assert row.difference_low == row.difference_high == 0
    dispersion = value["MNE", "spatial_dispersion", 0.0]
    own = dispersion.ci_high - dispersion.ci_low
    assert dispersion.difference_high - dispersion.difference_low < own


def test_better_needs_the_whole_interval():
    def compared(metric, low, high):
        return Row("a", "s", 0.0, "1", metric, 0, 0, 0, 0, 9, (low + high) / 2, low, high)

    assert is_better(compared("nemd", -0.3, -0.1))
    assert not is_better(compared("nemd", -0.3, 0.1))
    assert is_better(compared("auc", 0.1, 0.3))
    assert not is_better(row("a", 0.2, 0.1, 0.3))


def test_differences_leave_the_reference_out(benchmark):
    _, lines = differences(benchmark.rows)
    assert [line[1][0] for line in lines] == ["MNE", "MNE"]
    without = [replace(r, difference=None) for r in benchmark.rows]
    assert differences(without)[1] == []


def test_table_has_a_line_per_method_and_snr(benchmark):
    header, lines = layout(benchmark.rows)
    assert len(lines) == 4
    assert all(len(line) == len(header) for line in lines)
    assert rich_table(benchmark.rows).row_count == 4


def test_model_that_gives_nan_is_named(scenario, toy):
    class Broken(InverseModel):
        head_inputs = ()

        def forward(self, eeg, inputs):
            return Estimate(torch.full((len(eeg), 84, eeg.shape[2]), float("nan")))

    with pytest.raises(FloatingPointError, match="Broken gave NaN"):
        run_benchmark({"x": Broken()}, scenario, Cohort.single(toy))


def test_empty_scenario_is_refused():
    with pytest.raises(ValueError, match="needs at least one SNR and 2 examples"):
        Scenario("x", [], 1, PatchSources(), SetupRanges())
