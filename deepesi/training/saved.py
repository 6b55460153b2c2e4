"""Loading of any saved network or exported file."""

from pathlib import Path

from deepesi.core.contracts import InverseModel
from deepesi.core.onnx_model import load_onnx
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.runtime.packaged import model_path
from deepesi.training.weights import load_network


def load_any(path: str | Path, template: Template) -> InverseModel:
    """Load a network or an exported file by path, or a packaged file by name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is bound to the source space of another head.

    """
    path = Path(path)
    path = path if path.exists() else model_path(path)
    if path.suffix == ".onnx":
        model = load_onnx(path)
        fingerprint = model.opened.contract.space_fingerprint
        if fingerprint not in (None, template.space.fingerprint):
            raise ValueError(
                f"evaluate: {path} belongs to the source space "
                f"{model.opened.contract.space_name} ({fingerprint}), this head has "
                f"{template.space.name} ({template.space.fingerprint}). Use the head it was "
                "trained with (head.name=...)."
            )
        return model
    return load_network(path, template.space)[0]


def load_teacher(path: str, head: Cohort | Template) -> InverseModel:
    """Load the teacher of ``experiment=distill teacher=PATH`` with `load_any`."""
    return load_any(Path(path), head if isinstance(head, Template) else head.template)
