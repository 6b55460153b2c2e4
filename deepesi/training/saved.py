"""Loading of any saved network or exported file."""

from dataclasses import replace
from pathlib import Path

from deepesi.baselines.other_orientation import FixedOrientation, FreeOrientation
from deepesi.core.contracts import InverseModel
from deepesi.core.onnx_model import load_onnx
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.runtime.packaged import model_path
from deepesi.training.weights import check_space, read_network


def load_any(path: str | Path, template: Template) -> InverseModel:
    """Load a network or an exported file by path, or a packaged file by name.

    A network that was trained for fixed orientation is used along the normals of a head with free
    orientation, and an exported one of free orientation on a head of fixed orientation, see
    `FixedOrientation` and `FreeOrientation`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is bound to the source space of another head.

    """
    path = Path(path)
    path = path if path.exists() else model_path(path)
    fixed, free = template.space.fixed, replace(template.space, n_orient=3)
    if path.suffix == ".onnx":
        model: InverseModel = (onnx := load_onnx(path))
        contract = onnx.opened.contract
        space = {1: fixed, 3: free}.get(contract.n_orient or 0, template.space)
        if contract.space_fingerprint not in (None, space.fingerprint):
            raise ValueError(
                f"evaluate: {path} belongs to the source space {contract.space_name} "
                f"({contract.space_fingerprint}), this head has {template.space.name} "
                f"({template.space.fingerprint}). Use the head it was trained with (head.name=...)."
            )
    else:
        model, identity = read_network(path)
        own = identity.get("space_fingerprint")
        space = fixed if own == fixed.fingerprint else template.space
        check_space(path, model, identity, space)
    if space.n_orient == template.space.n_orient:
        return model
    return FixedOrientation(model) if space.n_orient == 1 else FreeOrientation(model)


def load_teacher(path: str, head: Cohort | Template) -> InverseModel:
    """Load the teacher of ``experiment=distill teacher=PATH`` with `load_any`."""
    return load_any(Path(path), head if isinstance(head, Template) else head.template)
