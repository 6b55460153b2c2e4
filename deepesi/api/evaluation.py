"""`deepesi.evaluate`: compares networks and classical methods; results are rows."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepesi.api.settings import Head, checked, head_of, plain_errors
from deepesi.baselines.tuned import Tuned
from deepesi.cli.config_errors import usual_config
from deepesi.cli.config_types import check_config
from deepesi.cli.loading import load_baselines, load_named, load_scenarios
from deepesi.cli.overrides import chosen_scenarios
from deepesi.composition import compose
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.benchmark import Row, run_benchmark
from deepesi.evaluation.compare import compare
from deepesi.evaluation.methods import Model
from deepesi.evaluation.tuning import tune
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template

#: A network, a path (run directory, checkpoint, exported file), or a packaged name.
Network = InverseModel | str | Path


def evaluate(
    models: Network | Sequence[Network] | Mapping[str, Network],
    head: Head = "fsaverage-ico3",
    scenario: str | Sequence[str] = "snr",
    baselines: Sequence[str] = ("eloreta",),
    *,
    out: str | Path | None = None,
    processes: int = 1,
    overrides: Sequence[str] = (),
) -> list[Row]:
    """Compare networks and classical methods on simulated recordings.

    The same as ``deepesi evaluate``. ``pandas.DataFrame(rows)`` makes a table of the rows.

    Args:
        models: Networks; paths of run directories, checkpoints or exported files; names of packaged
            files; ``"untrained:NAME"``. The keys of a mapping are the names in the table.
        head: A head, or an argument of `deepesi.load_head`.
        scenario: Name of a scenario, or several.
        baselines: Names of classical methods, as in ``baselines=[...]``.
        out: Folder for tables, report and the scores of each example; None: nothing is written.
        processes: Number of processes; results do not depend on it.
        overrides: Further settings, as on the command line of ``deepesi evaluate``:
            ``["scenario.n_examples=100"]``.

    Returns:
        One row for each method, test set, SNR and metric.

    Raises:
        TypeError: A model is none of these.
        ValueError: An unknown name or setting, or nothing to evaluate.

    """
    others, template = checked(overrides, {"head", "models"}), head_of(head)
    names = [scenario] if isinstance(scenario, str) else list(scenario)
    words = [f"baselines=[{','.join(baselines)}]", *others]
    with plain_errors("evaluate"):
        chosen = chosen_scenarios([f"scenario=[{','.join(names)}]", *words])
        config = compose("evaluate", words)
        for config.scenario in chosen:
            check_config(config, usual_config("evaluate"))
        scenarios, cohort = load_scenarios(chosen), Cohort.single(template)
        methods: dict[str, Model | Tuned] = {**_named(models, template), **load_baselines(config)}
    if not methods:
        raise ValueError("evaluate: nothing to evaluate. Give models or baselines.")
    if out is not None:
        command = f"deepesi.evaluate in Python: scenario=[{','.join(names)}] {' '.join(words)}"
        return compare(methods, scenarios, cohort, Path(out), processes, command).rows
    tuned, _ = tune(methods, scenarios, cohort, processes)
    with tempfile.TemporaryDirectory() as scores:
        return run_benchmark(tuned, scenarios, cohort, Path(scores), processes).rows


def _named(
    models: Network | Sequence[Network] | Mapping[str, Network], template: Template
) -> dict[str, InverseModel]:
    """Models by their names in a table."""
    if isinstance(models, Mapping):
        return {
            name: model
            for name, given in models.items()
            for model in _named(given, template).values()
        }
    several = [models] if isinstance(models, InverseModel | str | Path) else list(models)
    paths = [str(model) for model in several if isinstance(model, str | Path)]
    named, _ = load_named(paths, template, "evaluate")
    for model in several:
        if isinstance(model, str | Path):
            continue
        name = type(model).__name__
        if not isinstance(model, InverseModel):
            raise TypeError(f"evaluate: got a {name}, expected a network, a path or a name.")
        if name in named:
            raise ValueError(
                f"evaluate: two models are called {name!r}. Give each a name: {{'first': ...}}."
            )
        named[name] = model
    return named
