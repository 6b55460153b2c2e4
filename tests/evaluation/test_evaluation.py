import csv
import dataclasses
import json
import time
from dataclasses import replace

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.baselines.oracle import WithTrueLeadField
from deepesi.baselines.other_orientation import FixedOrientation
from deepesi.cli.evaluate import started_run
from deepesi.cli.loading import known_scenarios, load_scenarios
from deepesi.cli.overrides import check_one_scenario, chosen_scenarios, named_scenarios
from deepesi.composition import compose
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.onnx_model import OnnxModel
from deepesi.data_gen.artifacts import Blinks
from deepesi.data_gen.coils import CoilRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.benchmark import (
    REFERENCE,
    Row,
    run_benchmark,
    summarize,
    write_csv,
)
from deepesi.evaluation.explanations import explanations
from deepesi.evaluation.figures import axis_panels, explanation_panels, styles
from deepesi.evaluation.gallery import middle_cell, point_spreads, worked_examples
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.scores import COLUMNS, read_scores, units_of
from deepesi.evaluation.table import (
    best_method,
    differences,
    is_better,
    latency_layout,
    layout,
    markdown_table,
)
from deepesi.export.to_onnx import export_onnx
from deepesi.interpret.any_model.targets import Share, neighbourhood
from deepesi.interpret.networks.example import explain_example
from deepesi.metrics.table import IN_TABLES, METRICS
from deepesi.models.convdip import ConvDip
from deepesi.physics.channel_check import channel_precision, predicted_channels
from deepesi.physics.cohort import Cohort
from deepesi.physics.noise import whitener
from deepesi.physics.template import load_template
from tests.conftest import slow
from tests.core.flow import ToyFlow


@pytest.fixture
def scenario():
    return Scenario(
        name="toy",
        snr_db=[0, 20],
        n_examples=30,
        sources=PatchSources((1, 1), (0.03, 0.06)),
        setups=SetupRanges(montages=["biosemi32"]),
    )


#: One sample has no temporal correlation, and linear inverses claim no uncertainty.
WITHOUT = {"temporal_correlation", "crps", "energy_score"}


def classical(*names):
    """Linear inverses; by default two, of which one stands under the name of the reference."""
    if names:
        return {name: MinimumNorm(name) for name in names}
    return {"MNE": MinimumNorm("MNE"), REFERENCE: MinimumNorm("eLORETA")}


@pytest.fixture
def benchmark(scenario, toy, tmp_path):
    return run_benchmark(classical(), [scenario], Cohort.single(toy), tmp_path / "scores")


def test_every_method_metric_and_snr_has_a_row(benchmark):
    """But for the correlation over time, which a single sample does not have."""
    assert len(benchmark.rows) == 2 * 2 * (len(METRICS) - len(WITHOUT))
    for row in benchmark.rows:
        assert row.ci_low <= row.value <= row.ci_high
        assert row.n == 30
        assert row.n_sources == "1"
        assert row.level == f"{row.snr_db:g}"


def test_more_signal_less_error(benchmark):
    error = {
        (r.method, r.snr_db): r.value for r in benchmark.rows if r.metric == "localization_error"
    }
    assert error[REFERENCE, 20] < error[REFERENCE, 0]
    assert error[REFERENCE, 20] < error["MNE", 20]


@pytest.mark.slow
def test_knowing_the_true_lead_field_helps(scenario, toy, tmp_path):
    """An oracle stands beside methods; at 20 dB mismatch is nearly all that is between them."""
    bayes = BayesSinglePatch(smallest=0.03, largest=0.06, n_radii=3)
    models = {"nominal": bayes, "true": WithTrueLeadField(bayes)}
    loud = replace(scenario, snr_db=[20], n_examples=200)
    rows = run_benchmark(models, [loud], Cohort.single(toy), tmp_path).rows
    error = {(r.method, r.metric): r.value for r in rows}
    for metric in ("localization_error", "nemd"):
        assert error["true", metric] < 0.95 * error["nominal", metric]


def test_benchmark_is_reproducible(benchmark, scenario, toy, tmp_path):
    """Whatever stands beside a method; only the reference must be there to be compared with."""
    again = run_benchmark(classical("MNE"), [scenario], Cohort.single(toy), tmp_path / "again").rows
    alone = dict.fromkeys(("difference", "difference_low", "difference_high")) | {"best": False}
    assert again == [replace(r, **alone) for r in benchmark.rows if r.method == "MNE"]


def test_test_set_is_paired_over_snr_and_held_out(scenario, toy, simulate):
    low, high = (next(scenario.batches(Cohort.single(toy), snr, [])) for snr in (0.0, 20.0))
    assert torch.equal(low.scene.peaks, high.scene.peaks)
    assert torch.equal(low.true_leadfield.coefficients, high.true_leadfield.coefficients)
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


def test_gallery_shows_the_examples_that_were_scored(benchmark, toy):
    """Drawn anew, each has the error its title says."""
    cell = middle_cell(benchmark.cells)
    best, median, worst = worked_examples(classical(), cell, Cohort.single(toy))
    for worked in (best, median, worst):
        found = worked.estimates["MNE"].mean[0, :, 0].abs().argmax()
        peak = worked.batch.scene.peaks[0, 0]
        off = 1e3 * np.linalg.norm(toy.source_pos[found] - toy.source_pos[peak])
        assert f"{off:.0f} mm off" in worked.title
    errors = cell.values("MNE", "localization_error")
    assert f"{errors.max():.0f} mm" in worst.title


def test_gallery_explains_networks_by_saliency(benchmark, toy):
    """By the derivative of the share near the strongest source, which a small step confirms."""
    torch.manual_seed(0)
    network = ConvDip(n_dipoles=84, height=8, width=8, hidden=8)
    torch.nn.init.normal_(network.last.weight)
    cell = middle_cell(benchmark.cells)
    models = {**classical(), "net": network}
    worked = worked_examples(models, cell, Cohort.single(toy))[0]
    assert [x.method for x in worked.explanations.values()] == ["occlusion"] * 2 + ["saliency"]
    batch, found = worked.batch, worked.explanations["net"].by_sensor
    assert found.shape == batch.data.shape[1:2]
    std = np.sqrt(batch.head.noise_cov.diagonal())
    row = int(np.abs(found).argmax())
    peak = int(worked.estimates["net"].mean[0, :, 0].abs().argmax())
    target = Share(neighbourhood(batch.head.source_pos, peak), 1)
    step = torch.zeros_like(batch.data)
    step[0, row] = 0.05 * std[row]
    with torch.no_grad():
        shares = [
            float(target(network(batch.data + sign * step, batch.inputs).mean[..., 0])[0])
            for sign in (1, -1)
        ]
    assert found[row] == pytest.approx(100 * (shares[0] - shares[1]) / 0.1, rel=0.05)
    captions = [caption for caption, _ in explanation_panels(worked)]
    assert captions == ["MNE, occlusion", f"{REFERENCE}, occlusion", "net, saliency"]
    assert explanations(worked).count("data:image/png;base64") == 3


def test_a_network_of_fixed_orientation_on_a_free_head_is_explained_by_occlusion(
    free_toy, simulate
):
    """Its wrapper is no network, so it has no gradients, though the network inside has weights."""
    model = FixedOrientation(ConvDip(n_dipoles=84, height=8, width=8, hidden=8)).eval()
    batch = simulate(model.head_inputs, heads=free_toy, montage="biosemi32", batch_size=1).batch(0)
    with torch.no_grad():
        mean = model(batch.data, batch.inputs).mean
    found = explain_example(model, batch, mean)
    assert found.method == "occlusion"
    assert np.isfinite(found.by_sensor).all()


def test_gallery_explains_classical_methods_and_files_by_occlusion(benchmark, toy, tmp_path):
    """What is missing if a channel reads what the others predict; a file as its model."""
    model = MinimumNorm("MNE", regularization="constant", snr_db=10)
    path = tmp_path / "mne.onnx"
    export_onnx(model, toy.montage_head("biosemi32"), path)
    cell, cohort = middle_cell(benchmark.cells), Cohort.single(toy)
    worked = worked_examples({"MNE": model, "file": OnnxModel(path)}, cell, cohort)[0]
    own, of_file = (worked.explanations[name] for name in ("MNE", "file"))
    assert own.method == of_file.method == "occlusion"
    np.testing.assert_allclose(of_file.by_sensor, own.by_sensor, atol=1e-2)
    batch, estimate = worked.batch, worked.estimates["MNE"].mean[0, :, 0].double().numpy()
    data, head = batch.data[0].double().numpy(), batch.head
    row = int(np.abs(own.by_sensor).argmax())
    changed = data.copy()
    changed[row] = predicted_channels(channel_precision(head), data, [row])
    changed = torch.tensor(changed - changed.mean(0), dtype=torch.float32)
    with torch.no_grad():
        without = model(changed[None], batch.inputs).mean[..., 0].double().numpy()
    target = Share(neighbourhood(head.source_pos, int(np.abs(estimate).argmax())), 1)
    missing = float(target(estimate[None])[0] - target(without)[0])
    assert own.by_sensor[row] == pytest.approx(100 * missing, abs=1e-2)
    white = whitener(head.noise_cov)
    rest = white @ (data[:, 0] - head.leadfield @ estimate)
    share = 1 - (rest @ rest) / np.sum((white @ data[:, 0]) ** 2)
    assert own.check.share == pytest.approx(share, abs=1e-3)
    page = explanations(worked)
    assert page.count("data:image/png;base64") == 2
    assert f"<td class='word'>file</td><td>{100 * share:.0f}</td>" in page


def test_slow_methods_are_left_out_of_the_explanations_by_name(benchmark, toy):
    cell, cohort = middle_cell(benchmark.cells), Cohort.single(toy)
    worked = worked_examples(classical(), cell, cohort, budget=0)[0]
    assert all(found.by_sensor is None for found in worked.explanations.values())
    page = explanations(worked)
    assert f"Left out, as it would take too long: MNE, {REFERENCE}." in page
    assert "data:image/png" not in page
    assert "after the best scaling" in page
    assert explanations(worked._replace(explanations={})) == ""


def test_point_spread_of_eloreta_peaks_at_the_point(scenario, toy):
    """It has no localization bias for a point without noise (Pascual-Marqui 2007)."""
    for worked in point_spreads(classical(), scenario, Cohort.single(toy)):
        found = worked.estimates[REFERENCE].mean[0, :, 0].abs().argmax()
        assert found == worked.batch.scene.peaks[0, 0]


@pytest.mark.slow
def test_results_do_not_depend_on_processes_nor_on_interruptions(scenario, toy, tmp_path):
    cohort, several = Cohort.single(toy), [scenario, replace(scenario, name="two", seed=1)]
    whole = run_benchmark(classical(), several, cohort, tmp_path / "one")
    shared = run_benchmark(classical(), several, cohort, tmp_path / "two", processes=2)
    assert shared.rows == whole.rows
    files = sorted((tmp_path / "one").glob("*.csv"))
    assert len(files) == len(units_of(several)) == 2 * 2 * 2
    files[0].unlink()
    text = files[1].read_text()
    files[1].write_text(text[: len(text) // 2])  # torn in the middle of a line
    resumed = run_benchmark(classical(), several, cohort, tmp_path / "one")
    assert resumed.rows == whole.rows


def test_an_interruption_loses_the_example_in_flight_only(scenario, toy, tmp_path):
    class Stops(MinimumNorm):
        calls = 0

        def forward(self, data, inputs):
            Stops.calls += 1
            if Stops.calls == 15:  # the first is to warm up
                raise KeyboardInterrupt
            return super().forward(data, inputs)

    models = {"MNE": Stops("MNE")}
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(models, [scenario], Cohort.single(toy), tmp_path)
    (file,) = tmp_path.glob("*.csv")
    assert [score.example for score in read_scores(file, ["MNE"])] == list(range(13))
    run_benchmark(models, [scenario], Cohort.single(toy), tmp_path)
    assert Stops.calls == 60 + 1 + 2  # the interrupted one again, and twice to warm up


def test_half_an_example_is_no_score(tmp_path):
    line = ",".join(["1", "b", *["0"] * (len(COLUMNS) - 2)])
    rows = [",".join(COLUMNS), line.replace("1,b", "0,a"), line.replace("1,b", "0,b")]
    (tmp_path / "x.csv").write_text("\n".join([*rows, line.replace("1,b", "1,a"), ""]))
    assert [s.example for s in read_scores(tmp_path / "x.csv", ["a", "b"])] == [0, 0]


def test_posterior_models_are_scored_by_their_samples(scenario, toy, tmp_path):
    """Also one whose mean and standard deviation are in closed form; each example by its own."""
    models = {"flow": ToyFlow(), "Bayes": BayesianMinimumNorm(), "MNE": MinimumNorm("MNE")}
    small = replace(scenario, snr_db=[10], n_examples=2)
    benchmark = run_benchmark(models, [small], Cohort.single(toy), tmp_path / "one")
    scored = {(row.method, row.metric) for row in benchmark.rows}
    for metric in ("crps", "energy_score"):
        assert {method for method in models if (method, metric) in scored} == {"flow", "Bayes"}
        values = benchmark.cells[0].values("Bayes", metric)
        assert (values > 0).all()
        assert values[0] != values[1]
    again = run_benchmark(models, [small], Cohort.single(toy), tmp_path / "two")
    assert again.rows == benchmark.rows


def test_scores_of_another_version_are_refused(scenario, toy, tmp_path):
    """Scores of other metrics or names: nothing is computed, nothing is overwritten."""
    old = ",".join(COLUMNS).replace("half_maximum_area_distance", "region_localization_error")
    (tmp_path / "x.csv").write_text(f"{old}\n")
    with pytest.raises(ValueError, match="x.csv holds the columns .*region_localization_error"):
        read_scores(tmp_path / "x.csv", ["a", "b"])
    small = replace(scenario, snr_db=[0], n_examples=2)
    run_benchmark(classical("MNE"), [small], Cohort.single(toy), tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    (tmp_path / "run" / "settings.json").write_text(json.dumps({**settings, "metrics": ["auc"]}))
    with pytest.raises(ValueError, match="holds scores of other metrics. Choose another hydra.run"):
        run_benchmark(classical("MNE"), [small], Cohort.single(toy), tmp_path / "run")


def test_scores_of_other_models_or_scenarios_are_not_mixed(benchmark, scenario, toy, tmp_path):
    folder, cohort = tmp_path / "scores", Cohort.single(toy)
    with pytest.raises(ValueError, match="holds scores of other models.*another hydra.run.dir"):
        run_benchmark(classical("MNE"), [scenario], cohort, folder)
    with pytest.raises(ValueError, match="holds scores of other scenarios"):
        run_benchmark(classical(), [replace(scenario, seed=9)], cohort, folder)
    another = replace(toy, fingerprint="another")
    with pytest.raises(ValueError, match="holds scores of other heads"):
        run_benchmark(classical(), [scenario], Cohort.single(another), folder)


def test_every_set_up_is_scored_with_its_own_lead_field(scenario, toy, tmp_path):
    """Montages of one head differ in nothing else that metrics ask of it."""
    few, many = (
        replace(
            scenario, level=m, axis="montage", n_examples=3, snr_db=[20], setups=SetupRanges([m])
        )
        for m in ("biosemi16", "biosemi32")
    )
    together = run_benchmark(classical(), [few, many], Cohort.single(toy), tmp_path / "both").rows
    alone = run_benchmark(classical(), [many], Cohort.single(toy), tmp_path / "one").rows
    assert [row for row in together if row.level == "biosemi32"] == alone


def test_what_would_share_scores_is_refused(scenario, toy, tmp_path):
    with pytest.raises(ValueError, match="two test sets would share the scores toy_all_0dB"):
        run_benchmark(classical(), [scenario, scenario], Cohort.single(toy), tmp_path)
    with pytest.raises(ValueError, match="processes must be 1 or more, got 0"):
        run_benchmark(classical(), [scenario], Cohort.single(toy), tmp_path, processes=0)


def test_heads_without_magnetic_fields_are_refused_before_anything_is_scored(
    scenario, toy, tmp_path
):
    with_meg = replace(scenario, name="meg", setups=SetupRanges(["biosemi16"], coils=CoilRanges()))
    with pytest.raises(ValueError, match="'toy' has no magnetic fields"):
        run_benchmark(classical(), [scenario, with_meg], Cohort.single(toy), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    blinks = replace(with_meg, artifacts=[Blinks()])
    with pytest.raises(ValueError, match="artifacts are those of EEG"):
        run_benchmark(classical(), [scenario, blinks], Cohort.single(toy), tmp_path / "x")


def test_empty_folder_has_no_summary(scenario, tmp_path):
    with pytest.raises(ValueError, match="holds no scores. Give the folder of a run"):
        summarize([scenario], ["MNE"], tmp_path)
    with pytest.raises(ValueError, match="nothing to resume in .* no config.yaml"):
        started_run(tmp_path)
    (tmp_path / "config.yaml").write_text("trainer: {}")
    with pytest.raises(ValueError, match="config.yaml is not of an evaluation"):
        started_run(tmp_path)


@pytest.mark.slow
def test_exported_files_are_sent_to_other_processes(scenario, toy, tmp_path):
    export_onnx(MinimumNorm("eLORETA"), toy.montage_head("biosemi32"), tmp_path / "e.onnx")
    models = {"file": OnnxModel(tmp_path / "e.onnx"), REFERENCE: MinimumNorm("eLORETA")}
    quiet = replace(scenario, snr_db=[10], n_examples=4)
    rows = run_benchmark(models, [quiet], Cohort.single(toy), tmp_path / "s", processes=2).rows
    for row in rows:
        assert row.difference == pytest.approx(0, abs=1e-3 * max(1, abs(row.value)))


def test_an_example_is_the_batch_cut_down(scenario, toy):
    """The true sources with it: rendered again by their lead field, they leave only noise."""
    batch = next(scenario.batches(Cohort.single(toy), 100.0, []))
    one = batch.example(3)
    assert torch.equal(one.data, batch.data[3:4])
    assert torch.equal(one.scene.peaks, batch.scene.peaks[3:4])
    assert torch.allclose(one.true_leadfield.project(one.sources), one.data, rtol=1e-2, atol=1e-9)


def test_all_scenarios_but_those_with_needs_of_their_own():
    left_out = {*known_scenarios()} - {*named_scenarios(["scenario=all"])}
    assert left_out == {"all", "volume", "modality", "modality_stranger", "prior"}


def test_the_prior_is_what_training_draws():
    def values(part):
        return OmegaConf.create(dataclasses.asdict(part))

    scenario = hydra.utils.instantiate(compose("evaluate", ["scenario=prior"]).scenario)
    snapshot = compose("train", ["data=snapshot"]).data
    for name in ("sources", "setups", "tissues"):
        drawn = hydra.utils.instantiate(snapshot[name])
        assert values(getattr(scenario, name)) == values(drawn)
    low, high = snapshot.snr_db
    middles = low + (np.arange(5) + 0.5) * (high - low) / 5
    np.testing.assert_allclose(scenario.snr_db, middles)


#: Scenarios of other kinds of sources, noise, heads and sensors. The next test draws some others,
#: and the documented command ``scenario=all`` builds them all.
WITH_MEG = ("modality", "modality_stranger")
DRAWN = {"stranger", "artifacts", "neural_mass", "oscillation", *WITH_MEG}


@pytest.mark.parametrize(
    "name",
    [n if n in DRAWN else slow(n) for n in (*named_scenarios(["scenario=all"]), *WITH_MEG)],
)
def test_every_scenario_can_be_drawn(name, template):
    """Each has what its name says, at every level, on heads that no training uses."""
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        (config,) = chosen_scenarios([f"scenario={name}", "scenario.n_examples=2"])
    scenarios = load_scenarios([config])
    assert {s.name for s in scenarios} == {name}
    assert len({s.level for s in scenarios}) == len(scenarios)
    for scenario in scenarios:
        head = load_template(f"{template.name}-free") if name == "modality_stranger" else template
        batch = next(scenario.batches(Cohort.single(head), scenario.snr_db[0], []))
        assert batch.scene.key[:2] == (scenario.seed, "test")
        assert torch.isfinite(batch.data).all()


def drawn(name, template, n_examples=40):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        (config,) = chosen_scenarios([f"scenario={name}", f"scenario.n_examples={n_examples}"])
    for scenario in load_scenarios([config]):
        yield scenario, next(scenario.batches(Cohort.single(template), scenario.snr_db[0], []))


@pytest.mark.slow
def test_scenarios_vary_what_they_say(template):
    for scenario, batch in drawn("depth", template):
        low, high = map(float, scenario.level.split("-"))
        depth = 1e3 * template.depth[batch.scene.peaks[:, 0]]
        assert low - 1 < depth.min() <= depth.max() < high + 1
    for scenario, batch in drawn("conductivity", template, 4):
        assert torch.allclose(batch.scene.tissues[:, 0], torch.tensor(float(scenario.level)))
    for scenario, batch in drawn("montage", template, 2):
        assert abs(batch.head.n_channels - int(scenario.level)) <= 1
    for scenario, batch in drawn("n_sources", template, 4):
        assert ((batch.scene.peaks >= 0).sum(1) == int(scenario.level)).all()
    own, others = (batch for _, batch in drawn("head", template))
    assert own.scene.head_name.startswith("warp")
    assert not np.allclose(own.head.source_pos, template.source_pos)
    assert np.allclose(others.head.source_pos, template.source_pos)


def test_depth_that_no_source_has_is_refused(scenario, toy):
    deep = replace(scenario, sources=PatchSources(depth=(0.11, 0.12)))
    with pytest.raises(ValueError, match="no source of 'toy' lies 0.11-0.12 m below the scalp"):
        next(deep.batches(Cohort.single(toy), 0.0, []))


def test_unknown_scenario_names_the_nearest():
    with pytest.raises(ValueError, match=r"no scenario 'montages'. Nearest: montage.*; all: .*snr"):
        chosen_scenarios(["scenario=[snr,montages]"])


@pytest.mark.parametrize(("typed", "shown"), [("3", "3"), ("null", "None"), ("[snr,3]", "3")])
def test_what_names_no_scenario_is_refused(typed, shown):
    with pytest.raises(ValueError, match=rf"evaluate: no scenario '{shown}'"):
        chosen_scenarios([f"scenario={typed}"])


def test_training_takes_one_scenario():
    check_one_scenario(["scenario=window", "seed=3"], "train")
    with pytest.raises(ValueError, match=r"train: takes one scenario, got \['snr', 'head'\]"):
        check_one_scenario(["scenario=[snr,head]"], "train")


def test_heads_of_another_source_space_are_refused(scenario, toy, tmp_path):
    warped = replace(scenario, heads=["warp9-ico3"])
    with pytest.raises(ValueError, match="its head 'warp9-ico3' has the source space fsaverage-ic"):
        run_benchmark(classical(), [warped], Cohort.single(toy), tmp_path)


def test_latencies_are_relative_to_the_reference(benchmark):
    table = latency_layout(benchmark.latencies)
    assert [line[0][0] for line in table.lines] == ["MNE", REFERENCE]
    assert table.lines[1][2][0] == "1.0"
    assert all(ms > 0 for ms in benchmark.latencies.values())


def test_few_times_make_no_latency(benchmark):
    """Nor is the first estimate of a model among them, which takes longer."""
    cell = benchmark.cells[0]
    few = {method: scores[:19] for method, scores in cell.scores.items()}
    latencies = benchmark._replace(cells=[cell._replace(scores=few)]).latencies
    assert set(latencies.values()) == {None}
    assert latency_layout(latencies).lines[0] == [("MNE", False), ("-", False), ("-", False)]


def test_every_model_is_warmed_up(scenario, toy, tmp_path):
    class SlowStart(MinimumNorm):
        started = False

        def forward(self, data, inputs):
            time.sleep(0 if self.started else 0.5)
            self.started = True
            return super().forward(data, inputs)

    models = {"x": SlowStart("MNE")}
    short = replace(scenario, n_examples=2, snr_db=[0])
    (cell,) = run_benchmark(models, [short], Cohort.single(toy), tmp_path).cells
    assert max(score.latency_ms for score in cell.scores["x"]) < 500


def test_markdown_marks_the_best():
    table = layout(
        [
            row(m, v, v - 0.1, v + 0.1, metric, (m == "b") == METRICS[metric].higher_is_better)
            for metric in IN_TABLES
            for m, v in (("a", 1), ("b", 2))
        ]
    )
    text = markdown_table(table)
    assert "**1.000 [0.900, 1.100]**" in text  # least nEMD
    assert "**2.000 [1.900, 2.100]**" in text  # largest AUC


def row(method, value, low, high, metric="nemd", best=False):
    return Row(method, "s", 0.0, "1", metric, value, low, high, value, 10, best=best)


def test_best_is_what_the_comparison_says():
    rows = [row("a", 0.2, 0.1, 0.3, best=True), row("b", 0.5, 0.4, 0.6)]
    assert best_method(rows, "nemd") == "a"
    assert best_method([replace(r, best=False) for r in rows], "nemd") is None


def test_best_is_better_than_all_others(scenario, toy, tmp_path):
    """Exact Bayes beats MNE in loud recordings, but not itself under another name."""
    loud, cohort = replace(scenario, snr_db=[20]), Cohort.single(toy)
    bayes = BayesSinglePatch(smallest=0.03, largest=0.06, n_radii=3)
    models = {"MNE": MinimumNorm("MNE"), "Bayes": bayes}
    rows = run_benchmark(models, [loud], cohort, tmp_path / "two").rows
    assert best_method(rows, "nemd") == "Bayes"
    assert {row.metric for row in rows if row.best} <= set(IN_TABLES)
    rows = run_benchmark(models | {"same": bayes}, [loud], cohort, tmp_path / "three").rows
    assert best_method(rows, "nemd") is None


def test_few_examples_have_no_interval_and_no_mark(scenario, toy, tmp_path):
    few = replace(scenario, n_examples=3, snr_db=[20])
    rows = run_benchmark(classical(), [few], Cohort.single(toy), tmp_path).rows
    for found in rows:
        assert (
            found.ci_low is found.ci_high is found.difference_low is found.difference_high is None
        )
        assert not found.best
        assert not is_better(found)
    for table in (layout(rows), differences(rows)):
        assert all(text.endswith(" [-]") for line in table.lines for text, _ in line[2:])
    write_csv(rows, tmp_path / "benchmark.csv")
    with (tmp_path / "benchmark.csv").open() as file:
        assert {line["ci_low"] for line in csv.DictReader(file)} == {""}
    look = styles(row.method for row in rows)
    assert len(list(axis_panels(rows, look))) == 4  # drawn without bands


def test_difference_to_the_reference_is_paired(benchmark):
    """On the same examples: less spread than either, and the means subtract."""
    value = {(r.method, r.metric, r.snr_db): r for r in benchmark.rows}
    for (method, metric, snr_db), row in value.items():
        reference = value[REFERENCE, metric, snr_db]
        assert row.difference == pytest.approx(row.value - reference.value, abs=1e-9)
        if method == REFERENCE:
            assert row.difference == 0
            assert row.difference_low is row.difference_high is None
        elif row.difference_low is not None:  # where few differ, there is none
            assert row.difference_low <= row.difference <= row.difference_high
    dispersion = value["MNE", "spatial_dispersion", 0.0]
    own = dispersion.ci_high - dispersion.ci_low
    assert dispersion.difference_high - dispersion.difference_low < own


def test_better_needs_the_whole_interval():
    def compared(metric, low, high):
        return Row("a", "s", 0.0, "1", metric, 0, 0, 0, 0, 9, (low + high) / 2, low, high)

    assert is_better(compared("nemd", -0.3, -0.1))
    assert not is_better(compared("nemd", -0.3, 0.1))
    assert not is_better(compared("nemd", -0.3, 0.0))
    assert not is_better(compared("nemd", -0.3, -0.0004))  # printed as -0.000
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


def test_model_that_gives_nan_is_named(scenario, toy, tmp_path):
    class Broken(InverseModel):
        head_inputs = ()

        def forward(self, data, inputs):
            return Estimate(torch.full((len(data), 84, data.shape[2]), float("nan")))

    with pytest.raises(FloatingPointError, match="Broken gave NaN"):
        run_benchmark({"x": Broken()}, [scenario], Cohort.single(toy), tmp_path)


def test_empty_scenario_is_refused():
    with pytest.raises(ValueError, match="needs at least one SNR, 2 examples"):
        Scenario("x", [], 1, PatchSources(), SetupRanges())
