"""Networks for ``deepesi explain``: they give gradients, which exported files do not."""

from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.runtime.inverse import Inverse
from deepesi.utils.optional import require

if TYPE_CHECKING:
    from deepesi.core.contracts import InverseModel


def open_network(model: Path, opened: Inverse) -> "InverseModel | None":
    """The network behind a model that was opened; None for a file or an iterative solver.

    Args:
        model: Directory of a run, a file, or the name of a solver.
        opened: The same, opened by `deepesi.cli.opening.open_named`.

    Raises:
        ModuleNotFoundError: A run or a solver, without torch or captum.
        ValueError: The exported file of the run needs other head inputs than its network.

    """
    if model.is_dir():
        return _network_of_run(model, opened)
    solver = getattr(opened.model, "model", None)  # of a `SolverModel`
    if solver is None or not solver.exportable:
        return None
    require("captum", "interpret", f"explain {model} by gradients")
    network: InverseModel = solver
    return network


def _network_of_run(run: Path, opened: Inverse) -> "InverseModel":
    for package, extra in (("torch", "train"), ("captum", "interpret")):
        require(package, extra, f"explain the network of {run}")
    from deepesi.training.weights import read_network

    network, _ = read_network(run)
    exported = {declaration.key for declaration in opened.contract.head_inputs}
    missing = sorted({declaration.key for declaration in network.head_inputs} - exported)
    if missing:
        raise ValueError(
            f"explain: the exported file of {run} lacks the head inputs {missing} of its network, "
            "so it was exported from another one. Export it again (deepesi export)."
        )
    return network
