"""``deepesi calibrate`` on the toy head: what it writes, what it refuses."""

import csv
import io
import json

import hydra
import pytest
import torch
from rich.console import Console

from deepesi.calibration.intervals import Intervals
from deepesi.cli import calibrate
from deepesi.evaluation.calibration import COLUMNS, CalibrationRow, read_csv, write_csv
from deepesi.evaluation.observation import RANKED, batches_to_fit, batches_to_test, observe
from deepesi.metrics.calibration import GROUPS, LEVELS
from deepesi.models.convdip import ConvDip
from deepesi.physics.cohort import Cohort
from deepesi.training.weights import load_network, save_network
from deepesi.uncertainty.tempered import Tempered

SMALL = [
    "scenario.n_examples=20",
    "n_validation=20",
    "n_bins=2",
    "scenario.snr_db=[5,20]",
    "scenario.setups.montages=[biosemi16]",
    "scenario.sources.radius=[0.03,0.06]",
]


def compose(*overrides):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose("calibrate", list(overrides))


def test_the_whole_road(toy, toy_path, tmp_path, simulate):
    torch.manual_seed(0)
    config = {
        "_target_": "deepesi.models.convdip.ConvDip",
        "n_dipoles": 84,
        "height": 6,
        "width": 6,
        "hidden": 16,
        "heteroscedastic": True,
    }
    identity = {"model": config, "space": toy.space.name}
    identity |= {"space_fingerprint": toy.space.fingerprint}
    save_network(hydra.utils.instantiate(config), identity, tmp_path / "run" / "model")
    settings = compose(
        *SMALL,
        f"head.name={toy_path}",
        f"models=[{tmp_path / 'run'}]",
        "baselines=[bayesian_minimum_norm,eloreta]",
    )
    calibrate.run(settings, tmp_path / "out")
    with (tmp_path / "out" / "calibration.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["snr_db"] for r in rows} == {"all", "5", "20"}
    claiming = {r["method"] for r in rows if r["group"] in GROUPS}
    assert claiming == {"ConvDip 8.8 k (run run)", "Bayesian minimum norm"}
    prediction_sets = [
        r for r in rows if r["group"] == "prediction_set" and r["metric"] == "coverage"
    ]
    assert {r["method"] for r in prediction_sets} == claiming | {"eLORETA"}
    off = {
        (r["recalibration"], r["group"]): float(r["value"])
        for r in rows
        if (r["method"], r["snr_db"], r["metric"]) == ("Bayesian minimum norm", "all", "deviation")
    }
    assert set(off) == {
        (way, group) for way in ("none", "temperature", "isotonic", "balanced") for group in GROUPS
    }
    assert off["balanced", "active"] < off["none", "active"]
    assert off["balanced", "inactive"] < 0.05 < off["none", "inactive"]
    page = (tmp_path / "out" / "calibration.html").read_text()
    # Sets (2), expected coverage, recordings unlike the others, intervals of two methods.
    assert page.count("data:image/png") == 4 + 2 * len(GROUPS)
    assert f"ConvDip 8.8 k (run run): {tmp_path / 'run'}" in page  # the path stands in the facts
    assert "Gaussian patches of" in page
    assert "PatchSources(" not in page

    scored = {r["method"]: r for r in rows if (r["metric"], r["snr_db"]) == ("crps", "all")}
    assert scored.keys() == claiming
    for row in scored.values():
        assert f"{float(row['value']):.3f} [{float(row['ci_low']):.3f}, " in page
    posterior = {r["method"] for r in rows if r["metric"] in ("energy_score", "contraction")}
    assert posterior == {"Bayesian minimum norm"}
    assert "contraction, peak / norm" in page
    measured = read_csv(tmp_path / "out" / "calibration.csv")
    assert [str(row.value) for row in measured] == [r["value"] for r in rows]
    assert {row.level is None for row in measured} == {True, False}

    first = tmp_path / "out" / "fitted" / "0"
    fitted = json.loads((first / "calibration.json").read_text())
    assert len(fitted["thresholds"]) == 2
    assert Intervals.load(first / "intervals.json").half_widths.shape == (3, len(LEVELS))
    again, _ = load_network(first, toy.space)
    assert isinstance(again, Tempered)
    assert float(again.temperature) == pytest.approx(fitted["temperature"])
    before, _ = load_network(tmp_path / "run", toy.space)
    batch = simulate(before.head_inputs).batch(0)
    expected = fitted["temperature"] * before(batch.data, batch.inputs).std
    torch.testing.assert_close(again(batch.data, batch.inputs).std, expected)


def test_held_out_heads_are_packaged_and_never_fitted_on():
    cohort = calibrate.heads_of(compose("head=held_out").head)
    assert [head.warp_seed for head in cohort.test] == [9, 19, 29]
    assert [head.warp_seed for head in cohort.validation] == [8, 18, 28]


def test_what_cannot_be_calibrated_is_refused(toy, toy_path, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPESI_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no head 'warp.*head build.*Or take head=held_out"):
        calibrate.heads_of(compose("head=cohort").head)
    with pytest.raises(
        ValueError, match="none of the split 'validation'. Take head=fsaverage, hea"
    ):
        calibrate.heads_of(compose("head=held_out", "head.validation=[]").head)
    cohort = calibrate.heads_of(compose(f"head.name={toy_path}").head)
    with pytest.raises(ValueError, match="nothing to calibrate. Name files with models="):
        calibrate.load_models(compose("baselines=[]"), cohort)
    with pytest.raises(ValueError, match=r"'eLORETA \(best lambda\)' is an oracle"):
        calibrate.load_models(compose("baselines=[eloreta_best]"), cohort)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("n_bins=8", r"validation recordings in each of n_bins=8 .* too few for level=0.9, which"),
        ("level=0.999", r"too few for level=0.999, which needs 999. Take fewer bins"),
        ("level=90", "level must be between 0 and 1, got 90"),
        ("n_bins=0", "n_bins and n_validation must be 1 or more, got 0"),
        ("covers=some", "covers=some is unknown. Take all or strongest"),
    ],
)
def test_what_could_only_fail_at_the_end_is_refused_at_once(change, message, tmp_path):
    config = compose(*SMALL, "head.name=nowhere.npz", "baselines=[eloreta]", change)
    with pytest.raises(ValueError, match=message):
        calibrate.run(config, tmp_path)


def test_terminal_of_a_calibration_is_whole_at_any_width(monkeypatch):
    """The two tables of the page, as wide as the terminal, in words."""
    where = ("3 x Net 61 k (run 2026-11-29_01-02-03)", "toy", "toy")
    rows = [
        CalibrationRow(
            *where, snr_db, "conformal", "prediction_set", metric, 0.9, value, low, high, 30
        )
        for snr_db in ("all", "0")
        for metric, value, low, high in (("coverage", 0.87, 0.84, 0.91), ("area_cm2", 61.5, 60, 63))
    ]
    for width in (40, 80, 200):
        console = Console(width=width, file=io.StringIO())
        monkeypatch.setattr(calibrate, "console", console)
        calibrate.print_summary(rows)
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        for part in ("61.5", "60.0", "63.0", "0.870", "0.840", "0.910", "area", "coverage"):
            assert part in text
        assert "area_cm2" not in text


#: A line of a version that called prediction sets regions.
OLD = "a,toy,toy,all,conformal,region,coverage,0.9,0.91,0.9,0.92,30"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "there is no .*calibration.csv. Give the run directory of 'deepesi calibrate'"),
        ("a,b\n1,2\n", r"has the columns \['a', 'b'\], expected"),
        (f"{','.join(COLUMNS)}\n{OLD}\n", r"has the groups \['region'\], expected some of .*_set'"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path, content, error):
    if content is not None:
        (tmp_path / "calibration.csv").write_text(content)
    with pytest.raises((FileNotFoundError, ValueError), match=error):
        read_csv(tmp_path / "calibration.csv")


def test_rows_of_every_group_come_back(tmp_path):
    where = ("a, b", "toy", "toy", "all")
    rows = [
        CalibrationRow(*where, "none", "active", "coverage", 0.9, 0.87, 0.8, 0.91, 30),
        CalibrationRow(*where, "conformal", "prediction_set", "area_cm2", 0.9, 12.5, None, None, 9),
        CalibrationRow(*where, "none", RANKED[0], "sbc_p", None, 0.4, None, None, 120),
    ]
    write_csv(rows, tmp_path / "calibration.csv")
    assert read_csv(tmp_path / "calibration.csv") == rows


def test_a_damaged_network_is_refused(toy, toy_path):
    config = compose(*SMALL, f"head.name={toy_path}")
    scenario = hydra.utils.instantiate(config.scenario, _convert_="all")
    model = ConvDip(n_dipoles=84, height=6, width=6, hidden=16)
    torch.nn.init.constant_(model.last.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="ConvDip gave NaN or infinite dipole moments"):
        observe(
            {"x": model},
            lambda snr: batches_to_fit(scenario, Cohort.single(toy), snr, [model], 4),
            [5],
            "all",
        )


def test_every_head_of_a_split_has_its_share():
    config = compose("head=held_out", "scenario.n_examples=5", "scenario.snr_db=[5]")
    cohort = calibrate.heads_of(config.head)
    scenario = hydra.utils.instantiate(config.scenario, _convert_="all")
    drawn = [(b.scene.head_name, k) for b, k in batches_to_test(scenario, cohort, 5, [])]
    assert drawn == [("warp9-ico3", 1), ("warp19-ico3", 2), ("warp29-ico3", 2)]
    fitted = list(batches_to_fit(scenario, cohort, 5, [], 5))
    drawn = [(batch.scene.head_name, kept) for batch, kept in fitted]
    assert drawn == [("warp8-ico3", 1), ("warp18-ico3", 2), ("warp28-ico3", 2)]
    assert {batch.scene.key[1] for batch, _ in fitted} == {"validation"}


def test_heads_whose_anatomy_nobody_knows_are_seen_as_the_template(tmp_path):
    config = compose(
        "head=held_out",
        "scenario.setups.own_anatomy=false",
        "scenario.n_examples=3",
        "scenario.snr_db=[10]",
        "n_validation=12",
        "n_bins=1",
        "baselines=[dipole_scan]",
    )
    cohort, scenario = (
        calibrate.heads_of(config.head),
        calibrate.one_scenario(config.scenario),
    )
    for batch, _ in batches_to_fit(scenario, cohort, 10, [], 3):
        assert batch.scene.head_name.startswith("warp")
        assert (batch.head.source_pos == cohort.template.source_pos).all()
    calibrate.run(config, tmp_path)
    fitted = json.loads((tmp_path / "fitted" / "0" / "calibration.json").read_text())
    assert fitted["fitted_on"].endswith("warp18-ico3, warp28-ico3, nominal head fsaverage-ico3")


def test_a_sweep_along_an_axis_is_refused():
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose("calibrate", ["scenario=depth"])
    with pytest.raises(ValueError, match="a test set for each depth below the scalp .*: 17-26, "):
        calibrate.one_scenario(config.scenario)
