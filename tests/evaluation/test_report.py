"""Pages of the benchmark: self-contained, in words, nothing by its path or as a repr."""

import csv
import json
import re
import subprocess
import time
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import deepesi
from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.artifacts import Blinks
from deepesi.data_gen.caps import CapRanges
from deepesi.data_gen.noise import NoiseRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.waveforms import Burst, Gabor, Mixture
from deepesi.evaluation import examples_page
from deepesi.evaluation import leaderboard as board
from deepesi.evaluation.benchmark import REFERENCE, Benchmark
from deepesi.evaluation.calibration import CalibrationRow
from deepesi.evaluation.compare import assumptions_table
from deepesi.evaluation.descriptions import describe_scenario
from deepesi.evaluation.examples_page import write_examples
from deepesi.evaluation.explanations import explanations
from deepesi.evaluation.figures import axis_panels, binned_panel, source_panels, styles
from deepesi.evaluation.gallery import (
    gallery,
    middle_cell,
    point_spread_map,
    points_at,
    true_peaks,
    worked_examples,
)
from deepesi.evaluation.intervals import bootstrap_interval
from deepesi.evaluation.report import write_report
from deepesi.metrics.table import METRICS
from deepesi.physics.atlas import parcel_names
from deepesi.physics.cohort import Cohort
from deepesi.viz.viewer import LARGEST
from tests.evaluation.conftest import LONG


@pytest.fixture(scope="session")
def page(benchmark, models, scenarios, toy, tmp_path_factory):
    folder, cohort = tmp_path_factory.mktemp("report"), Cohort.single(toy)
    where = ("MNE", "toy", "toy", "10", "conformal", "prediction_set")
    calibration = [
        CalibrationRow(*where, "coverage", 0.9, 0.87, 0.84, 0.9, 100),
        CalibrationRow(*where, "area_cm2", 0.9, 61.5, 60.0, 63.0, 100),
    ]
    words = {
        name: describe_scenario([s for s in scenarios if s.name == name], cohort)
        for name in ("toy", "montages")
    }
    facts = {"seed": "0", "command": "a < b"}
    methods = {"What is assumed": assumptions_table(models)}
    drawn = gallery(models, benchmark, cohort)
    write_report(benchmark, drawn, words, facts, methods, folder / "report.html", calibration)
    assert [p.name for p in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text()


def test_report_is_self_contained(page):
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", page)
    for part in (
        "Scenario toy",
        "Scenario montages",
        "a &lt; b",
        "Point spread",
        "A point",
        "Where the errors are",
        f"Worst example of {LONG}",
        "loc. error (mm)",
        "Time of one recording",
        "Prediction sets",
        "61.5 [60.0, 63.0]",
    ):
        assert part in page, part


def test_report_shows_nobody_elses_marks(page):
    """MNE's report carries its logo, its badges and a megabyte of scripts."""
    assert "mne-tools" not in page
    assert "<svg viewBox" not in page
    assert len(re.findall("<script>", page)) == 1
    assert len(re.search("<script>(.*?)</script>", page, re.DOTALL)[1]) < 2000


def test_names_are_escaped(page):
    assert "<MNE>" not in page
    assert "&lt;MNE&gt;" in page


def test_examples_page_has_the_explanations_of_the_report(
    benchmark, models, toy, tmp_path, monkeypatch
):
    """Below the cortex of each example; without room, the page says where they are."""
    drawn = gallery(models, benchmark, Cohort.single(toy))
    path = tmp_path / "examples.html"
    write_examples(drawn, toy, path)
    page = path.read_text()
    parts = re.split("<h2 ", page)[1:]
    for part, worked in zip(parts, drawn.examples, strict=True):
        assert part.index("<canvas") < part.index(explanations(worked))
    assert page.count("data:image/png;base64") == 3 * 3  # examples and inverse models
    assert len(page) < LARGEST
    # As if only the first explanation fitted.
    one = len(examples_page.WHY + explanations(drawn.examples[0]))
    monkeypatch.setattr(examples_page, "room_for_samples", lambda views: examples_page.SPARE + one)
    write_examples(drawn, toy, path)
    page = path.read_text()
    assert page.count("data:image/png;base64") == 3  # inverse models
    assert "of the first 1 examples; all 3 are in report.html, section Examples" in page


class Boxes(HTMLParser):
    """Tables of data, and those that stand in no box that scrolls."""

    def __init__(self):
        super().__init__()
        self.open, self.data, self.outside = [], 0, 0

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "br", "meta", "line"):
            self.open.append((tag, dict(attrs).get("class")))
        if tag == "table" and dict(attrs).get("class") == "data":
            self.data += 1
            self.outside += ("div", "scroll") not in self.open

    def handle_endtag(self, tag):
        if tag not in ("line",):
            assert self.open.pop()[0] == tag


def test_every_table_is_in_a_box_that_scrolls(page):
    boxes = Boxes()
    boxes.feed(page)
    assert boxes.open == []
    # Two scenarios, their differences, forward checks, times, assumptions, prediction sets.
    assert boxes.data == 2 + 2 + 3 + 1 + 1 + 1
    assert boxes.outside == 0


def test_pictures_fit_a_phone(page):
    """None is wider than 360 pixels but in a box that scrolls."""
    for figure in re.findall(r"<figure style='width:(\d+)px'>", page):
        assert int(figure) <= 358
    scenario_curves, n_methods = 4 + 4, 4
    error_maps, spread_maps = 1 + n_methods, 2 * (1 + 3)  # an oracle is shown no point
    worked = 3 * (2 + n_methods) + 3 * (2 + 3)
    explained = 3 * 3  # examples and inverse models
    by_source, regions = 2 + 2, 2  # depth and angle of errors, depth of two metrics of points
    expected = scenario_curves + error_maps + spread_maps + worked + explained + by_source + regions
    assert page.count("data:image/png;base64") == expected


def test_what_was_measured_is_in_words(page, scenarios, toy):
    assert not re.findall(r"\b(?:PatchSources|SetupRanges|TissueRanges|NoiseRanges)\(", page)
    facts = describe_scenario(scenarios[1:], Cohort.single(toy))
    assert facts["varies"] == "channels of the cap: 16, 32"
    assert facts["recordings"] == (
        "16: biosemi16; one time point; white noise of known covariance\n"
        "32: biosemi32; one time point; white noise of known covariance"
    )
    assert facts["sources"] == (
        "2 sources in every recording; Gaussian patches of 30 to 60 mm radius; every vertex as "
        "likely; centres at least 30 mm apart"
    )
    assert facts["what methods assume"] == (
        "the recorded head's own anatomy; skull 10 mS/m and 6 mm thick, scalp 0.33 S/m, brain 0.33 "
        "S/m; electrodes 5 mm off on average, every electrode by itself"
    )


def test_everything_that_can_vary_has_its_words(scenarios, toy):
    rich = replace(
        scenarios[0],
        n_times=20,
        artifacts=[Blinks(0.5, (0.0, 10.0))],
        sources=PatchSources(
            (1, 3),
            shapes=["point", "field", "irregular", "split"],
            extent=["geodesic", "euclidean"],
            placement="depth",
            correlation=(0.2, 0.8),
            depth=(0.02, 0.03),
            time_course=Mixture([Gabor(), Burst()]),
        ),
        setups=SetupRanges(
            ["biosemi16", "biosemi32"],
            noise=NoiseRanges(brain=(0.5, 1.0), line=(0.1, 0.2)),
            coregistration_shift=0.003,
            coregistration_rotation=2.0,
            electrode_error=(0.0, 1.2),
            subset=0.3,
            dropout=(0.0, 0.1),
            references=["electrode"],
            baseline=(50, 200),
            own_anatomy=False,
        ),
    )
    facts = describe_scenario([rich], Cohort.single(toy))
    for part in (
        "1 to 3 sources",
        "smooth random fields or irregular patches or patches split over a sulcus of 10 to 25 mm",
        "radius along the cortex or in straight distance",
        "every depth as likely",
        "20 to 30 mm below the scalp",
        "0.2 to 0.8 of their ampl",
        "evoked waves or bursts of oscillations",
    ):
        assert part in facts["sources"], part
    for part in (
        "biosemi16 or biosemi32",
        "0 to 10 % of the channels missing",
        "only in 30 %",
        "recorded against electrode",
        "20 samples at 250 Hz",
        "white noise, background activity of the cortex, mains interference of a "
        "covariance estimated from 50 to 200 samples",
        "blinks in 50 % of the recordings, 0 to 10 dB over the noise",
    ):
        assert part in facts["recordings"], part
    for part in (
        "the template's anatomy",
        "0 to 6 mm off on average, every electrode by itself",
        "0 to 3.6 mm off on average, all together",
        "0 to 2.4 degrees off",
    ):
        assert part in facts["what methods assume"], part


def test_somebody_elses_head_has_its_words(scenarios, toy):
    own = describe_scenario(scenarios[:1], Cohort.single(toy))
    assert own["true cortex"] == "sources on the grid, along its normals (an inverse crime)"
    setups = SetupRanges(
        ["biosemi16"],
        anatomy=AnatomyRanges(share=0.5),
        cap=CapRanges(knowledge=["names", "digitized"]),
    )
    facts = describe_scenario([replace(scenarios[0], setups=setups)], Cohort.single(toy))
    assert facts["true cortex"] == (
        "somebody else's cortex in 50 % of the set-ups: sources between the points of the grid, "
        "displaced by 3 to 9 mm on average, normals turned with concentrations of 4 to 16 "
        "(smooth) and 8 to 16 (each)"
    )
    assert facts["what methods assume"].startswith("the template's anatomy; skull")
    assert facts["what methods assume"].endswith(
        "electrodes known by their names or digitization; cap pitched by -3.5 ± 5.5 degrees, each "
        "electrode 3 to 7 mm off on average"
    )
    warped = replace(scenarios[0], setups=SetupRanges(["biosemi16"], own_anatomy=False))
    facts = describe_scenario([warped], Cohort.single(toy))
    assert facts["true cortex"] == "sources on the grid, along its normals"


def test_true_sources_are_those_that_were_scored(benchmark, toy):
    """Depth and angle that were written with every score are those of the source drawn again."""
    cell = middle_cell(benchmark.cells)
    peaks = true_peaks(cell, Cohort.single(toy))
    depth = [score.depth_mm for score in cell.scores[REFERENCE]]
    assert peaks.shape == (24, 1)
    assert np.allclose(1e3 * toy.depth[peaks[:, 0]], depth)
    _, angle = toy.depth_and_angle(toy.source_pos, toy.source_normals)
    assert np.allclose(angle[peaks[:, 0]], [score.angle for score in cell.scores[REFERENCE]])


def test_point_spread_map_is_the_resolution_of_a_method(models, scenarios, toy):
    """sLORETA and eLORETA have no localization bias (Pascual-Marqui 2002, 2007); MNE has."""
    found = point_spread_map(models, scenarios[0], Cohort.single(toy))
    assert set(found.error_mm) == set(models) - {"oracle"}
    assert len(found.sources) == toy.is_cortex.sum()
    assert found.error_mm[REFERENCE].max() == found.error_mm[LONG].max() == 0
    assert found.error_mm["<MNE>"].mean() > 5
    assert np.allclose(found.depth_mm, 1e3 * toy.depth[found.sources])
    assert found.dispersion_mm[REFERENCE].min() > 0
    assert found.excluded == ()


def test_slow_methods_are_left_out_of_the_map_and_named(models, scenarios, toy):
    class Slow(MinimumNorm):
        def forward(self, data, inputs):
            time.sleep(2.0)
            return super().forward(data, inputs)

    some = {"slow": Slow("MNE"), "MNE": models["<MNE>"]}
    found = point_spread_map(some, scenarios[0], Cohort.single(toy), budget=3.0)
    assert found.excluded == ("slow",)
    assert list(found.error_mm) == ["MNE"]


def test_points_are_along_the_normal_and_equally_loud(scenarios, toy):
    batch = next(scenarios[0].batches(Cohort.single(toy), 20.0, [])).example(0)
    points = points_at(np.array([3, 50]), batch)
    power = (points.data.double() ** 2).sum((1, 2)).numpy()
    assert power == pytest.approx(100 * np.trace(batch.head.noise_cov))
    moments = points.sources[..., 0].double().numpy()
    assert [np.flatnonzero(moment).tolist() for moment in moments] == [[3], [50]]
    assert np.allclose(batch.head.project(moments.T), points.data[..., 0].numpy().T, rtol=1e-5)


def test_panels_hold_what_was_measured(benchmark, toy):
    rows = [row for row in benchmark.rows if row.scenario == "montages"]
    look = styles(row.method for row in rows)
    (caption, figure), *others = axis_panels(rows, look)
    assert caption == "loc. error (mm) at 10 dB; lower is better"
    assert len(others) == 3
    own = [r.value for r in rows if (r.method, r.metric) == (REFERENCE, "localization_error")]
    assert any(np.allclose(line.get_ydata(), own) for line in figure.axes[0].lines)
    values = {REFERENCE: np.arange(80.0)}
    (line,) = binned_panel("depth", np.arange(80.0), values, look, "x", n_bins=4).axes[0].lines
    assert np.allclose(line.get_xydata(), [[x, x] for x in (9.5, 29.5, 49.5, 69.5)])
    # Twice the same source: its mean is drawn, once.
    sources = np.array([5, 5, 60])
    panels = source_panels(sources, {"a": np.array([1.0, 3.0, 8.0])}, toy.display, "mm")
    _, (caption, figure) = panels
    assert caption == "a: mean 5.0"
    dots = [c.get_array() for ax in figure.axes for c in ax.collections]
    drawn = [values for values in dots if values is not None]
    assert sorted({float(v) for values in drawn for v in values}) == [2.0, 8.0]


def test_leaderboard_has_a_line_per_method_and_scenario(benchmark, models, tmp_path):
    weights, paths = {LONG: 61_353}, {LONG: tmp_path / "run"}
    heads = {"toy": "toy", "montages": "warp9"}
    lines = board.leaderboard(benchmark, weights, paths, heads, "python evaluate.py x")
    board.write_leaderboard(lines, tmp_path / "leaderboard.csv")
    with (tmp_path / "leaderboard.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(r["method"], r["scenario"]) for r in read] == [
        (method, scenario) for scenario in ("toy", "montages") for method in models
    ]
    first, last = read[0], read[-1]
    assert (first["weights"], last["weights"]) == ("61353", "0")
    assert (first["snr_db"], first["n_examples"]) == ("0; 20", "24")
    assert (last["axis"], last["levels"]) == ("channels of the cap", "16; 32")
    assert (first["path"], last["path"]) == (str(tmp_path / "run"), "")
    assert (last["heads"], last["version"]) == ("warp9", deepesi.__version__)
    assert {r["command"] for r in read} == {"python evaluate.py x"}
    for line in read:
        own = [
            r
            for r in benchmark.rows
            if (r.method, r.scenario) == (line["method"], line["scenario"])
        ]
        for metric in METRICS:
            means = [row.value for row in own if row.metric == metric]
            if not means:  # one sample has no temporal correlation, these models no uncertainty
                assert metric in ("temporal_correlation", "crps", "energy_score")
                assert line[metric] == line[f"{metric}_low"] == ""
            else:
                assert float(line[metric]) == pytest.approx(np.mean(means), rel=1e-5)
                low, high = (float(line[f"{metric}_{end}"]) for end in ("low", "high"))
                assert low <= float(line[metric]) <= high


def test_intervals_do_not_leave_what_a_metric_can_be(benchmark, models, scenarios):
    """Errors that are 0 but for one: the bootstrap alone goes below 0."""
    assert bootstrap_interval(np.r_[np.zeros(39), 12.0])[0] < 0
    for row in benchmark.rows:
        low, high = METRICS[row.metric].limits
        assert low <= row.value <= high
        if row.ci_low is not None:
            assert low <= row.ci_low <= row.ci_high <= high
    many = [
        benchmark.cells[0]._replace(
            scores={
                "MNE": [
                    score._replace(values=(12.0 * (n == 0), *score.values[1:]))
                    for n, score in enumerate(benchmark.cells[0].scores[REFERENCE])
                ]
            }
        )
    ]
    (line,) = board.leaderboard(Benchmark([], many), {}, {}, {"toy": "toy"}, "x")
    assert float(line["localization_error_low"]) == 0


def test_interval_of_a_leaderboard_counts_repeated_examples_once(benchmark):
    """The same sources stand at every SNR: as many independent values as there are examples."""
    cells = [cell for cell in benchmark.cells if cell.scenario.name == "toy"]
    means = board.means_of_examples(cells, REFERENCE, "nemd")
    assert len(means) == 24
    assert np.allclose(means, np.mean([cell.values(REFERENCE, "nemd") for cell in cells], axis=0))


def test_commit_is_that_of_a_checkout_or_none(monkeypatch, tmp_path):
    def git(*words):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "deepesi"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr(deepesi, "__file__", str(package / "__init__.py"))
    assert board.commit() == ""  # no checkout
    git("init")
    (tmp_path / "other").write_text("x")
    git("add", "other")
    git("commit", "-m", "x")
    assert board.commit() == ""  # inside of a checkout that does not track it
    git("add", ".")
    git("commit", "-m", "y")
    assert board.commit() == git("rev-parse", "--short=12", "HEAD")
    (package / "__init__.py").write_text("a = 2\n")
    assert board.commit().endswith("+changes")


def test_examples_name_parcels_and_hold_standard_deviations(benchmark, models, toy, tmp_path):
    """Of the methods that give some; a line where the estimate is above two of them."""
    cohort = Cohort.single(toy)
    drawn = gallery({LONG: models[LONG]}, benchmark, cohort)
    with_std = {LONG: models[LONG], "<Bayes>": BayesianMinimumNorm()}
    drawn = replace(drawn, examples=worked_examples(with_std, drawn.cell, cohort))
    write_examples(drawn, toy, tmp_path / "examples.html")
    page = (tmp_path / "examples.html").read_text()
    assert "<option value='3'>&lt;Bayes&gt;: standard deviation</option>" in page
    views = [json.loads(n) for n in re.findall(r"'view'>(.*?)</script>", page)]
    for view, worked in zip(views, drawn.examples, strict=True):
        assert view["std_of"] == [-1, -1, 3]
        mean, std = (part[0, :, 0].abs().numpy() for part in worked.estimates["<Bayes>"][:2])
        shown = view["maps"][3]
        shares = np.frombuffer(b64decode(shown["values"]), np.uint8) / 255
        expected = 100 * std / mean.max()
        assert np.allclose(shown["maximum"] * shares**2, expected, atol=0.01 * expected.max())
        assert view["outlines"][1]["name"] == "<Bayes>: above 2 standard deviations"
        bits = np.frombuffer(b64decode(view["outlines"][1]["sources"]), np.uint8)
        assert np.array_equal(np.unpackbits(bits)[:84], mean > 2 * std)
        names = np.array([*view["parcels"], ""])[np.frombuffer(b64decode(view["parcel_of"]), "<i2")]
        assert names.tolist() == parcel_names(toy)[0]
        assert sum(map(bool, names)) > 60


def test_examples_of_a_head_without_mni_positions_have_no_parcels(benchmark, models, toy, tmp_path):
    unknown = replace(toy, source_mni=np.full_like(toy.source_mni, np.nan))
    drawn = gallery({LONG: models[LONG]}, benchmark, Cohort.single(toy))
    write_examples(drawn, unknown, tmp_path / "examples.html")
    page = (tmp_path / "examples.html").read_text()
    assert "parcels are not named: the head toy has no MNI positions" in page
    assert '"parcels":[]' in page


def test_head_without_a_cortex_has_no_maps(benchmark, models, scenarios, toy, tmp_path):
    cohort = Cohort.single(replace(toy, display=None))
    assert gallery(models, benchmark, cohort) is None
    words = {name: {"sources": "x"} for name in ("toy", "montages")}
    write_report(benchmark, None, words, {}, {}, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "Where the errors are" in text
    assert "Point spread" not in text
    assert isinstance(models[REFERENCE], MinimumNorm)


def test_examples_can_be_turned(benchmark, models, toy, tmp_path):
    """Target and every method of the three examples; their maps are those of the report."""
    drawn = gallery(models, benchmark, Cohort.single(toy))
    write_examples(drawn, toy, tmp_path / "examples.html")
    page = (tmp_path / "examples.html").read_text()
    assert f"Worst example of {LONG}" in page
    views = [json.loads(n) for n in re.findall(r"'view'>(.*?)</script>", page)]
    assert len(views) == 3
    for view, worked in zip(views, drawn.examples, strict=True):
        assert [shown["name"] for shown in view["maps"]] == ["target", *worked.estimates]
        found = [np.frombuffer(b64decode(shown["values"]), np.uint8) for shown in view["maps"]]
        target = worked.batch.sources[0, :, 0].abs()
        assert np.allclose(found[0] / 255, (target / target.max()).sqrt(), atol=0.003)
        estimate = next(iter(worked.estimates.values())).mean[0, :, 0].abs()
        assert np.allclose(found[1] / 255, (estimate / estimate.max()).sqrt(), atol=0.003)
        bits = np.frombuffer(b64decode(view["outlines"][0]["sources"]), np.uint8)
        assert np.array_equal(np.unpackbits(bits)[:84], target > 0.5 * target.max())
