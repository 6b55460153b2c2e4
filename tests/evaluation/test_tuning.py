"""Constants of classical methods are chosen on validation recordings, and on no test set."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import deepesi.configs
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.tuned import Tuned
from deepesi.cli import loading
from deepesi.cli.main import main
from deepesi.core.contracts import AS_IN_TRAINING, InverseModel
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation import tuning
from deepesi.evaluation.benchmark import REFERENCE, run_benchmark
from deepesi.evaluation.methods import PerScenario, of_scenario
from deepesi.evaluation.observation import heads_to_fit
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.tuning import choose, tune, write_csv
from deepesi.metrics.source_metric import SourceMetric
from deepesi.physics.cohort import Cohort

#: Baselines with no constant to tune: it is fixed, chosen per recording, or taken
#: from the true head.
WITHOUT = {
    "dipole_scan",
    "bayes_single_patch",
    "bayes_patches",
    "bayes_patches_fixed",
    "bayes_patches_true",
    "bayes_single_patch_fixed",
    "bayes_single_patch_true",
    "bayes_stranger",
    "champagne_noise",
    "dipole_scan_fixed",
    "eloreta_fixed",
    *(f"{m}_{rule}" for m in ("mne", "dspm", "sloreta", "eloreta") for rule in ("gcv", "best")),
}


@pytest.fixture
def scenario():
    return Scenario(
        name="toy",
        snr_db=[0, 20],
        n_examples=20,
        sources=PatchSources((1, 1), (0.03, 0.06)),
        setups=SetupRanges(montages=["biosemi32"]),
    )


@pytest.fixture
def tuned():
    return Tuned(functools.partial(MinimumNorm, "eLORETA", "constant"), "snr_db", [-10, 0, 20], 30)


def compose(*overrides):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose("evaluate", list(overrides))


def packaged(name):
    """A baseline as its file says, without Hydra, which takes longer."""
    file = Path(deepesi.configs.__file__).parent / "baselines" / f"{name}.yaml"
    return OmegaConf.create({"baselines": OmegaConf.load(file)})


def test_snrs_of_a_test_set_share_their_set_ups(scenario, tuned, toy):
    """Head inputs are prepared once, and errors are those of set-ups drawn anew."""
    harder = replace(scenario, snr_db=[5], seed=1)
    trial = tuning._Trial(tuned, [scenario, harder], Cohort.single(toy))
    for task in (tuning._Task(0, 0.0), tuning._Task(0, 20.0), tuning._Task(1, 5.0)):
        before = dict(trial.streams)
        _, errors = trial(task)
        (streams,) = trial.streams.values()
        assert (before.get(task.test_set) is streams) == (task.snr_db == 20)
        ((recordings, n),) = streams
        assert n == len(errors) == 30
        assert len(recordings.pool._drawn) == 1
        anew = tuning._Trial(tuned, [scenario, harder], Cohort.single(toy))
        assert np.array_equal(anew(task)[1], errors)


def test_the_value_of_least_error_is_chosen(scenario, tuned, toy, tmp_path):
    """The test computes the errors again, on recordings of the split validation."""
    choice = choose("x", tuned, [scenario], Cohort.single(toy), cache=tmp_path)
    errors = []
    for value in tuned.values:
        model, metric = tuned.at(value), SourceMetric("localization_error")
        for snr_db in scenario.snr_db:
            recordings = SimulatedRecordings(
                toy,
                scenario.sources,
                scenario.setups,
                model.head_inputs,
                snr_db=(snr_db, snr_db),
                batch_size=30,
                seed=scenario.seed,
                split="validation",
                pool_size=1,
                pool_period=1,
                n_times=1,
            )
            batch = recordings.batch(0)
            metric.update(model(batch.data, batch.inputs), batch)
        errors.append(float(metric.compute()))
    assert choice.errors_mm == pytest.approx(errors, abs=1e-3)
    assert choice.value == tuned.values[int(np.argmin(errors))]
    assert choice.n == 60


def test_no_test_recording_enters(scenario, tuned, toy, tmp_path, monkeypatch):
    """Everything that is drawn while a constant is chosen is of the split 'validation'."""
    keys, draw = [], SimulatedRecordings.batch

    def watched(self, step):
        batch = draw(self, step)
        keys.append(batch.scene.key)
        return batch

    monkeypatch.setattr(SimulatedRecordings, "batch", watched)
    choose("x", tuned, [scenario], Cohort.single(toy), cache=tmp_path)
    assert {split for _, split, *_ in keys} == {"validation"}
    tested = next(scenario.batches(Cohort.single(toy), 0.0, []))
    assert keys[-1][1] == "test"
    assert tested.scene.key not in keys[:-1]


def test_heads_that_are_tested_on_are_not_tuned_on(scenario, toy, template):
    """A scenario with test heads of its own names validation heads."""
    (config,) = [compose("scenario=head").scenario]
    for head in loading.load_scenarios([config]):
        fitted = heads_to_fit(head, Cohort.single(template))
        tested = head.true_heads(Cohort.single(template))
        assert [h.warp_seed for h in fitted] == [8, 18, 28]
        assert not {h.fingerprint for h in fitted} & {h.fingerprint for h in tested}
    assert heads_to_fit(scenario, Cohort.single(toy)) == (toy,)
    alone = replace(Cohort.single(toy), validation=())
    assert heads_to_fit(scenario, alone) == (toy,)
    same = replace(scenario, heads=["warp9-ico3"], validation_heads=["warp9-ico3"])
    with pytest.raises(ValueError, match=r"\['warp9-ico3'\] are to be tested on and to be tuned"):
        heads_to_fit(same, Cohort.single(template))


def test_what_was_chosen_is_kept(scenario, tuned, toy, tmp_path, monkeypatch):
    cohort = Cohort.single(toy)
    first = choose("x", tuned, [scenario], cohort, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["errors_mm"] == list(first.errors_mm)

    def fails(*_):
        raise AssertionError("drawn anew")

    monkeypatch.setattr(tuning, "share_out", fails)
    assert choose("x", tuned, [scenario], cohort, cache=tmp_path) == first
    # How many test recordings there are decides nothing; all that is drawn does.
    more = replace(scenario, n_examples=500)
    assert choose("x", tuned, [more], cohort, cache=tmp_path) == first
    others = {
        "seed": replace(scenario, seed=1),
        "SNR": replace(scenario, snr_db=[0]),
        "sources": replace(scenario, sources=PatchSources((1, 1), (0.03, 0.05))),
    }
    for other in others.values():
        with pytest.raises(AssertionError, match="drawn anew"):
            choose("x", tuned, [other], cohort, cache=tmp_path)
    another = Cohort.single(replace(toy, fingerprint="another"))
    with pytest.raises(AssertionError, match="drawn anew"):
        choose("x", tuned, [scenario], another, cache=tmp_path)
    mne = Tuned(functools.partial(MinimumNorm, "MNE", "constant"), "snr_db", [-10, 0, 20], 30)
    with pytest.raises(AssertionError, match="drawn anew"):
        choose("x", mne, [scenario], cohort, cache=tmp_path)
    monkeypatch.setattr(tuning, "code_digest", lambda folders: "of other code")
    with pytest.raises(AssertionError, match="drawn anew"):
        choose("x", tuned, [scenario], cohort, cache=tmp_path)


@pytest.mark.slow
def test_the_choice_does_not_depend_on_processes(scenario, tuned, toy, tmp_path):
    cohort = Cohort.single(toy)
    one = choose("x", tuned, [scenario], cohort, cache=tmp_path / "1")
    assert choose("x", tuned, [scenario], cohort, 2, cache=tmp_path / "2") == one


def test_every_scenario_has_its_own_constant(scenario, tuned, toy, tmp_path):
    """Loud point-like sources on a known head ask for less regularization than quiet ones."""
    quiet, loud = replace(scenario, snr_db=[-10]), replace(scenario, name="loud", snr_db=[30])
    models = {"x": tuned, "MNE": MinimumNorm("MNE")}
    methods, choices = tune(models, [quiet, loud], Cohort.single(toy), cache=tmp_path)
    assert list(methods) == ["x", "MNE"]
    assert methods["MNE"] is models["MNE"]
    assert isinstance(methods["x"], PerScenario)
    for choice in choices:
        (kernels,) = (
            d
            for d in of_scenario(methods, choice.scenario)["x"].head_inputs
            if hasattr(d, "n_steps")
        )
        assert (kernels.snr_db_low, kernels.n_steps) == (choice.value, 1)
    write_csv(choices, tmp_path / "tuning.csv")
    lines = (tmp_path / "tuning.csv").read_text().splitlines()
    assert lines[0] == "method,scenario,parameter,value,localization_error,n,chosen"
    assert len(lines) == 1 + 2 * 3
    assert sum(line.endswith("True") for line in lines) == 2
    rows = run_benchmark(methods, [quiet, loud], Cohort.single(toy), tmp_path / "scores").rows
    assert {row.scenario for row in rows if row.method == "x"} == {"toy", "loud"}


def test_equal_errors_choose_the_middle_value():
    choice = tuning.Choice("x", "s", "k", (1, 2, 3, 4), (5.0, 4.0, 4.0, 4.0), 9)
    assert choice.value == 3
    assert not choice.is_at_an_end
    assert replace(choice, errors_mm=(1.0, 4.0, 4.0, 4.0)).is_at_an_end


def test_too_little_to_choose_from_is_refused():
    make = functools.partial(MinimumNorm, "eLORETA", "constant")
    with pytest.raises(
        ValueError, match="two or more different values of 'snr_db'.*got \\[0, 0\\]"
    ):
        Tuned(make, "snr_db", [0, 0])
    with pytest.raises(ValueError, match="at least one validation recording, got .* n_examples=0"):
        Tuned(make, "snr_db", [0, 1], 0)


@pytest.mark.parametrize("name", loading.names_in("baselines"))
def test_every_baseline_with_a_constant_has_a_tuned_row(name):
    """And every one says by itself what it assumes."""
    ((title, model),) = loading.load_baselines(packaged(name)).items()
    assert model.assumptions != AS_IN_TRAINING
    if name.endswith("_tuned"):
        assert isinstance(model, Tuned)
        ((of, same),) = loading.load_baselines(packaged(name.removesuffix("_tuned"))).items()
        assert type(same) is type(model.candidates[0])
        for detail in (")", " (cross-validated", " 0.2"):
            of = of.removesuffix(detail)
        assert title.startswith(of)
        values = np.atleast_1d(model.values[0])
        for parameter, value in zip(model.parameters, values, strict=True):
            assert getattr(model.candidates[0], parameter, value) == value
        assert ("loose" in model.parameters) == ("_loose" in name)
    else:
        assert (f"{name}_tuned" in loading.names_in("baselines")) == (name not in WITHOUT)


def test_several_parameters_are_chosen_together(scenario, free_toy, tmp_path):
    """All combinations; the one of least error is the method of the scenario."""
    make = functools.partial(MinimumNorm, "MNE", "constant")
    tuned = Tuned(make, "snr_db", [-10, 20], 20, {"loose": [0.2, 1.0]})
    assert tuned.values == ((-10, 0.2), (-10, 1), (20, 0.2), (20, 1))
    assert [(m.kernels.snr_db_low, m.kernels.loose) for m in tuned.candidates] == [*tuned.values]
    scenario = replace(scenario, setups=SetupRanges(montages=["biosemi16"]))
    methods, (choice,) = tune({"x": tuned}, [scenario], Cohort.single(free_toy), cache=tmp_path)
    assert choice.value == tuned.values[int(np.argmin(choice.errors_mm))]
    chosen = of_scenario(methods, "toy")["x"].kernels
    assert (chosen.snr_db_low, chosen.loose) == choice.value
    assert choice.range_tried == "4 from -10 to 20 and 0.2 to 1"
    write_csv([choice], tmp_path / "tuning.csv")
    assert 'x,toy,"snr_db, loose","20, 0.2",' in (tmp_path / "tuning.csv").read_text()
    with pytest.raises(ValueError, match="different values of 'loose'.*got \\[0.2\\]"):
        Tuned(make, "snr_db", [0, 1], further={"loose": [0.2]})
    with pytest.raises(ValueError, match="'snr_db' is given twice"):
        Tuned(make, "snr_db", [0, 1], further={"snr_db": [0, 2]})


def test_nothing_lies_beyond_free_orientation():
    tried = ((0, 0.2), (0, 1.0), (5, 0.2), (5, 1.0), (9, 0.2), (9, 1.0))
    choice = tuning.Choice("x", "s", "snr_db, loose", tried, (3, 3, 2, 1, 3, 3), 9)
    assert choice.value == (5, 1)
    assert not choice.is_at_an_end
    assert replace(choice, errors_mm=(3, 3, 1, 2, 3, 3)).is_at_an_end


def test_loose_orientation_on_a_fixed_head_is_refused_before_anything_is_drawn(
    scenario, tuned, toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(SimulatedRecordings, "batch", lambda *_: pytest.fail("drawn"))
    models = {"x": tuned, "eLORETA (loose 0.2)": MinimumNorm("eLORETA", loose=0.2)}
    message = r"'eLORETA \(loose 0.2\)' cannot be compared on this head: .*head.name=.*-free"
    with pytest.raises(ValueError, match=message):
        tune(models, [scenario], Cohort.single(toy), cache=tmp_path)


@pytest.mark.parametrize("config", ["train", "evaluate"])
def test_the_reference_is_a_default_baseline(config):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        composed = hydra.compose(config)
    assert REFERENCE in loading.load_baselines(composed)


def test_constant_regularization_is_one_kernel(simulate):
    model = MinimumNorm("eLORETA", "constant", snr_db=5.0)
    batch = simulate(model.head_inputs, snr_db=(20, 20)).batch(0)
    (kernel,) = batch.inputs[model.kernels.key]
    assert torch.equal(model(batch.data, batch.inputs).mean, kernel @ batch.data)
    with pytest.raises(ValueError, match="snr_db if and only if regularization='constant'"):
        MinimumNorm("eLORETA", "constant")
    with pytest.raises(ValueError, match=r"got snr_db=5 with 'gcv'"):
        MinimumNorm("eLORETA", "gcv", snr_db=5)


@pytest.mark.slow
def test_untrained_networks_and_what_every_method_assumes(
    scenario, toy, toy_path, tmp_path, monkeypatch
):
    """``models=[untrained:NAME]`` by the command, its table of assumptions beside it."""
    monkeypatch.setenv("DEEPESI_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    main(
        [
            "evaluate",
            "models=[untrained:unrolled_ista]",
            "baselines=[eloreta_tuned,lcmv]",
            f"head.name={toy_path}",
            "scenario.snr_db=[10]",
            "scenario.n_examples=4",
            "scenario.setups.montages=[biosemi16]",
            f"hydra.run.dir={out}",
        ]
    )
    text = (out / "benchmark.md").read_text()
    assert "| unrolled_ista (untrained) |" in text
    assert "| LCMV | points | any | covariance and level | nominal | none |" in text
    assert "| snr_db on validation recordings |" in text
    assert " [-] |" in text  # four examples have no interval
    assert "| eLORETA (tuned) | - | - |" in text  # nor a latency
    assert "eLORETA (tuned),snr,snr_db," in (out / "tuning.csv").read_text()
    report = (out / "report.html").read_text()
    for part in (
        "What each method assumes",
        "Constants chosen on validation recordings",
        "number of sources",
        "<td class='word'>covariance and level</td>",
    ):
        assert part in report, part
    assert [p.suffix for p in (tmp_path / "cache" / "tuning").iterdir()] == [".json"]


def test_unknown_untrained_network_names_the_nearest(toy):
    with pytest.raises(ValueError, match=r"no network 'gn' .*Nearest: gnn; all: .*matched_filter"):
        loading.load_named(["untrained:gn"], toy, "evaluate")


def test_untrained_weights_are_the_first_ones(template):
    """Drawn from one seed: two calls give one network."""
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        first, second = (
            loading.load_named(["untrained:convdip"], template, "evaluate")[0] for _ in range(2)
        )
    assert isinstance(first["convdip (untrained)"], InverseModel)
    for a, b in zip(*(m["convdip (untrained)"].parameters() for m in (first, second)), strict=True):
        assert torch.equal(a, b)
