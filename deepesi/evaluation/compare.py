"""Methods side by side on test sets: tuned, measured, and written as tables and a report."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepesi import __version__
from deepesi.baselines.tuned import Tuned
from deepesi.core.contracts import Assumptions
from deepesi.evaluation.benchmark import Benchmark, run_benchmark, write_csv
from deepesi.evaluation.calibration import CalibrationRow
from deepesi.evaluation.descriptions import describe_scenario
from deepesi.evaluation.examples_page import write_examples
from deepesi.evaluation.gallery import gallery
from deepesi.evaluation.leaderboard import leaderboard, write_leaderboard
from deepesi.evaluation.methods import Model, of_scenario
from deepesi.evaluation.naming import n_weights
from deepesi.evaluation.report import write_report
from deepesi.evaluation.scenario import Scenario
from deepesi.evaluation.table import Layout, by_scenario, markdown_table, write_markdown
from deepesi.evaluation.terminal import print_table
from deepesi.evaluation.tuning import CRITERION, Choice, in_words, tune
from deepesi.evaluation.tuning import write_csv as write_choices
from deepesi.metrics.table import METRICS
from deepesi.physics.cohort import Cohort
from deepesi.utils.files import atomic

console = Console()


def compare(
    models: Mapping[str, Model | Tuned],
    scenarios: Sequence[Scenario],
    cohort: Cohort,
    run_dir: Path,
    processes: int,
    command: str,
    calibration: Sequence[CalibrationRow] = (),
    paths: Mapping[str, Path] | None = None,
) -> Benchmark:
    """Choose constants, run the benchmark, print its tables, write CSV, Markdown and report.

    `paths` holds the file of every method that was read from one.
    """
    with console.status("Tuning") as status:
        methods, choices = tune(models, scenarios, cohort, processes, status.update)
    write_choices(choices, run_dir / "tuning.csv")
    columns = (TextColumn("Evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        benchmark = run_benchmark(
            methods,
            scenarios,
            cohort,
            run_dir / "scores",
            processes,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    write_csv(benchmark.rows, run_dir / "benchmark.csv")
    assumptions = assumptions_table(models)
    with atomic(run_dir / "benchmark.md") as partial:
        text = write_markdown(benchmark.rows, benchmark.latencies, command)
        partial.write_text(f"{text}\n## {ASSUMPTIONS}\n\n{markdown_table(assumptions)}\n")
    paths = {name: path.absolute() for name, path in (paths or {}).items()}
    by_name = {
        name: [s for s in scenarios if s.name == name] for name in [s.name for s in scenarios]
    }
    heads = {
        name: ", ".join(head.name for head in own[0].true_heads(cohort))
        for name, own in by_name.items()
    }
    first = of_scenario(methods, scenarios[0].name)
    weights = {name: n_weights(model) for name, model in first.items()}
    write_leaderboard(
        leaderboard(benchmark, weights, paths, heads, command), run_dir / "leaderboard.csv"
    )
    with console.status("Writing the report"):
        pictures = gallery(first, benchmark, cohort)
        if pictures is not None:
            write_examples(pictures, cohort.template, run_dir / "examples.html")
        write_report(
            benchmark,
            pictures,
            {name: describe_scenario(own, cohort) for name, own in by_name.items()},
            _facts(paths, command),
            {ASSUMPTIONS: assumptions, **({TUNED: tuned_table(choices)} if choices else {})},
            run_dir / "report.html",
            calibration,
        )
    for rows in by_scenario(benchmark.rows).values():
        print_table(console, rows)
    return benchmark


def _facts(paths: Mapping[str, Path], command: str) -> dict[str, str]:
    read = {"read from": "\n".join(f"{name}: {path}" for name, path in paths.items())}
    return {
        "held out": "lead fields, sensor displacements, sources and noise: split 'test'; a "
        "warped head (warp...) is in no training",
        "noise": "one covariance for every method; regularization follows from the whitened "
        "power of each recording, where a method does not choose it itself",
        **(read if paths else {}),
        "versions": f"deepesi {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}",
        "command": command,
    }


#: Heading of `assumptions_table`.
ASSUMPTIONS = "What each method assumes beside the recording and the nominal lead field"


def assumptions_table(models: Mapping[str, Model | Tuned]) -> Layout:
    """One line per method."""
    lines = []
    for name, model in models.items():
        tuned = isinstance(model, Tuned)
        chosen = f"{model.parameter} on validation recordings" if tuned else "none"
        lines.append([(text, False) for text in (name, *model.assumptions, chosen)])
    return Layout(
        ["method", *(field.replace("n_", "number of ") for field in Assumptions._fields), "tuned"],
        lines,
    )


#: Heading of `tuned_table`.
TUNED = "Constants chosen on validation recordings"


def tuned_table(choices: Sequence[Choice]) -> Layout:
    """One line per method and scenario."""
    metric = METRICS[CRITERION]
    header = ["method", "scenario", "constant", "chosen", "tried", metric.label, "recordings"]
    lines = [
        (
            choice.method,
            choice.scenario,
            choice.parameter,
            in_words(choice.value) + (", the last on that side" if choice.is_at_an_end else ""),
            choice.range_tried,
            f"{min(choice.errors_mm):.{metric.decimals}f}",
            str(choice.n),
        )
        for choice in choices
    ]
    return Layout(header, [[(text, False) for text in line] for line in lines])
