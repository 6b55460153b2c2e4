"""Writes the pages of the API reference: one for each room of the package.

A public name is what `deepesi` exports, and every class and function without a leading underscore
that is defined in a module of `ROOMS`; in some rooms classes only, because functions there are
steps of their classes. Everything else is internal.
"""

import inspect
import pkgutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import deepesi


class Room(NamedTuple):
    """A page of the reference.

    Attributes:
        title: Heading of the page.
        what: Sentence about it.
        modules: Modules, without ``deepesi.``; a package stands for all its modules.
        functions: Whether functions are public, too.

    """

    title: str
    what: str
    modules: Sequence[str]
    functions: bool = True


ROOMS = {
    "contracts": Room(
        "Contracts",
        "What every model, recording and estimate of the package is.",
        ["core.contracts", "core.batch", "core.onnx_model", "core.quantities", "core.invert"],
    ),
    "heads": Room(
        "Heads, sensors and noise",
        "Head models, lead fields, montages, noise covariances. No torch.",
        [
            "physics.loading",
            "physics.template",
            "physics.source_mesh",
            "physics.head",
            "physics.family",
            "physics.scalp_potential",
            "physics.sensors",
            "physics.montage",
            "physics.scalp",
            "physics.cap_placement",
            "physics.cap_check",
            "physics.noise",
            "physics.linear_inverse",
            "physics.simulated",
            "physics.forward_check",
            "physics.channel_check",
            "physics.similarity",
            "physics.atlas",
            "physics.graph",
            "physics.lobes",
            "physics.sphere",
            "physics.cohort",
            "physics.io.heads",
            "physics.io.forward_head",
            "physics.io.covariance",
        ],
    ),
    "head_inputs": Room(
        "Head inputs",
        "What a model may ask of a head. They are computed once per head and travel with the file.",
        ["physics.head_inputs"],
    ),
    "simulation": Room(
        "Simulation",
        "Sources, time courses, noise, heads and caps that are drawn.",
        ["data_gen"],
        False,
    ),
    "models": Room("Networks", "Trainable inverse models.", ["models"], False),
    "baselines": Room(
        "Classical methods", "Inverse models without training.", ["baselines"], False
    ),
    "losses": Room("Losses", "Terms of the training loss.", ["losses"], False),
    "metrics": Room("Metrics", "What an estimate is judged by.", ["metrics"]),
    "uncertainty": Room(
        "Uncertainty",
        "Ensembles, mixtures, dropout; calibration and prediction sets.",
        ["uncertainty", "calibration", "models.posterior.importance"],
    ),
    "evaluation": Room(
        "Evaluation",
        "Scenarios, benchmarks and intervals.",
        [
            "evaluation.scenario",
            "evaluation.benchmark",
            "evaluation.scores",
            "evaluation.intervals",
            "evaluation.solvers",
            "evaluation.gallery",
        ],
    ),
    "training": Room(
        "Parts of trainings",
        "Networks of configurations and runs, real recordings, learning without labels.",
        [
            "cli.loading",
            "training.saved",
            "training.real",
            "training.tasks.masked",
            "training.missing_channels",
            "training.test_time",
        ],
    ),
    "explanations": Room(
        "Explanations",
        "Attributions, counterfactuals, and grades of attributions. Needs torch.",
        [
            "interpret.any_model.frames",
            "interpret.any_model.targets",
            "interpret.networks.gradients",
            "interpret.networks.deep_lift",
            "interpret.any_model.occlusion",
            "interpret.networks.inside",
            "interpret.any_model.counterfactual",
            "interpret.networks.grading",
        ],
    ),
    "deployment": Room(
        "Deployment",
        "Exported files, and what applies them to recordings. Only the export needs torch.",
        [
            "export.to_onnx",
            "runtime.prepared_model",
            "runtime.packaged",
            "runtime.prepared_inverse",
            "runtime.estimates",
            "runtime.prediction_sets",
            "runtime.contract",
            "streaming.live",
            "streaming.source",
        ],
    ),
    "viz": Room("Figures", "Pictures of arrays, recordings and estimates. No torch.", ["viz"]),
}


def modules_of(room: Room) -> list[str]:
    """Full names of the modules of a room, packages expanded without what is named in a room."""
    named = {f"deepesi.{name}" for other in ROOMS.values() for name in other.modules}
    found = []
    for name in room.modules:
        module = import_module(f"deepesi.{name}")
        inside = pkgutil.walk_packages(getattr(module, "__path__", []), f"{module.__name__}.")
        own = [m.name for m in inside if not m.ispkg and m.name not in named]
        found += own or [module.__name__]
    return found


def public_names(module: str, functions: bool = True) -> list[str]:
    """Classes and functions that a module defines and `deepesi` does not export."""
    return [
        name
        for name, value in vars(import_module(module)).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or (functions and is_function(value)))
        and value.__module__ == module
        and name not in exported(module)
    ]


def is_function(value: object) -> bool:
    """Whether a value is a function, or one that keeps its results (`functools.cache`)."""
    return callable(value) and inspect.isfunction(inspect.unwrap(value))


def exported(module: str) -> set[str]:
    """Names of a module that `deepesi` exports."""
    return {n for n in deepesi.__all__ if getattr(getattr(deepesi, n), "__module__", "") == module}


def directive(full_name: str) -> str:
    """What documents a class or a function."""
    module, _, name = full_name.rpartition(".")
    value = getattr(import_module(module), name)
    if inspect.isclass(value):
        return f".. autoclass:: {full_name}\n   :members:\n   :show-inheritance:\n"
    return f".. autofunction:: {full_name}\n"


def heading(text: str, line: str) -> str:
    """A heading of reStructuredText."""
    return f"{text}\n{line * len(text)}\n"


def room_page(room: Room) -> str:
    """Page of a room: its names with one line each, then every module."""
    by_module = {m: public_names(m, room.functions) for m in modules_of(room)}
    names = [f"{module}.{name}" for module, found in by_module.items() for name in found]
    parts = [heading(room.title, "="), room.what + "\n", summary(names)]
    for module, found in by_module.items():
        if found:
            parts += [heading(module, "-"), f".. automodule:: {module}\n   :no-members:\n"]
            parts += [directive(f"{module}.{name}") for name in found]
    return "\n".join(parts)


def summary(names: Sequence[str]) -> str:
    """Table of names, with the first line of what they say."""
    lines = "".join(f"   ~{name}\n" for name in names)
    return f".. autosummary::\n   :nosignatures:\n\n{lines}"


def front_page() -> str:
    """What ``import deepesi`` offers, and the list of rooms."""
    names = [f"deepesi.{name}" for name in deepesi.__all__ if not name.startswith("_")]
    rooms = "".join(f"   {room}\n" for room in ROOMS)
    table = "".join(f"   * - :doc:`{file}`\n     - {room.what}\n" for file, room in ROOMS.items())
    parts = [
        heading("API reference", "="),
        "Names on these pages are public. Everything else in the package may change without "
        "notice.\n",
        f".. list-table::\n\n{table}",
        f".. toctree::\n   :hidden:\n\n{rooms}",
        heading("import deepesi", "-"),
        summary(names),
        *map(directive, names),
    ]
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Write the pages; one that is as it was keeps its time, so that Sphinx does not read it."""
    folder.mkdir(exist_ok=True)
    pages = {"index": front_page(), **{file: room_page(room) for file, room in ROOMS.items()}}
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
