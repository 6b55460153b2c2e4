"""Models for ``deepesi apply``: an exported file or, by its name, a solver."""

from pathlib import Path

from deepesi.runtime.apply import SetupOptions, open_file
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.methods import NAMES, Method, solver_names
from deepesi.utils.optional import require


def open_named(model: Path, setup: SetupOptions) -> Inverse:
    """Open an exported or packaged file or, if there is none of that name, a solver."""
    name = str(model).lower()
    if name not in (*NAMES, *solver_names()) or model.exists():
        return open_file(model, setup)
    _require_torch(f"apply {name}")
    from deepesi.evaluation.solvers import SolverModel

    return Inverse(SolverModel(name), setup.head)


def solver_method(name: str) -> Method:
    """A solver as a method of ``deepesi validate``."""
    _require_torch(f"validate {name}")
    from deepesi.evaluation.solvers import load_solver

    return load_solver(name)


def _require_torch(purpose: str) -> None:
    for package in ("hydra", "torch"):
        require(package, "train", purpose)
