"""Any saved network or exported file, by its path."""

from pathlib import Path

from deepesi.core.contracts import InverseModel
from deepesi.core.onnx_model import OnnxModel
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.runtime.packaged import model_path
from deepesi.training.weights import load_network


def load_any(path: str | Path, template: Template) -> InverseModel:
    """A network or an exported file, by its path, or a packaged file by its name."""
    path = Path(path)
    path = path if path.exists() else model_path(path)
    if path.suffix == ".onnx":
        model = OnnxModel(path)
        fingerprint = model.opened.contract.space_fingerprint
        if fingerprint not in (None, template.space.fingerprint):
            raise ValueError(
                f"evaluate: {path} belongs to the source space "
                f"{model.opened.contract.space_name} ({fingerprint}), this head has "
                f"{template.space.name} ({template.space.fingerprint}). Choose its head "
                "(head.name=...)."
            )
        return model
    return load_network(path, template.space)[0]


def load_teacher(path: str, head: Cohort | Template) -> InverseModel:
    """The network of ``experiment=distill teacher=PATH``; see `deepesi.training.saved.load_any`."""
    return load_any(Path(path), head if isinstance(head, Template) else head.template)
