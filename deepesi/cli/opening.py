"""Models for ``deepesi apply``: an exported file or, by its name, a solver."""

from pathlib import Path

from deepesi.runtime.inverse import Inverse
from deepesi.runtime.methods import NAMES, Method, solver_names
from deepesi.runtime.packaged import PACKAGED
from deepesi.runtime.setup import SetupOptions, open_file
from deepesi.utils.nearest import nearest
from deepesi.utils.optional import require


def open_named(model: Path, setup: SetupOptions) -> Inverse:
    """Open a model: an exported or packaged file, that of a run directory, or a solver.

    A solver is opened by its name if there is no file of that name.

    Raises:
        FileNotFoundError: As in `open_file`, or a run directory without an exported file.
        ValueError: As in `open_file`.

    """
    if model.is_dir():
        return open_file(_exported(model), setup)
    name = str(model).lower()
    known = (*NAMES, *solver_names())
    if model.exists() or name in PACKAGED or model.suffix:
        return open_file(model, setup)
    if name not in known:
        meant = nearest(name, [*PACKAGED, *known])
        raise FileNotFoundError(
            f"there is no file {model}, and no packaged network or solver of that name. {meant}"
        )
    _require_torch(f"apply {name}")
    from deepesi.evaluation.solvers import SolverModel

    return Inverse(SolverModel(name), setup.head)


def _exported(run: Path) -> Path:
    """The exported file of a run directory."""
    path = run / "export" / "model.onnx"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} is a folder without export/model.onnx. Give the directory of a run of 'deepesi "
            "train', or an .onnx file (deepesi export RUN --out FILE.onnx writes one)."
        )
    return path


def solver_method(name: str) -> Method:
    """A solver as a method of ``deepesi validate``."""
    _require_torch(f"validate {name}")
    from deepesi.evaluation.solvers import load_solver

    return load_solver(name)


def _require_torch(purpose: str) -> None:
    for package in ("hydra", "torch"):
        require(package, "train", purpose)
