"""deepesi: deep networks that solve the EEG and MEG inverse problem once, for every recording."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepesi.api.evaluation import evaluate
    from deepesi.api.exporting import export_onnx
    from deepesi.api.training import Run, train
    from deepesi.data_gen.generator import SimulatedRecordings
    from deepesi.physics.loading import load_head
    from deepesi.runtime.inverse import Inverse, apply

__version__ = "0.1.0"

__all__ = [
    "Inverse",
    "Run",
    "SimulatedRecordings",
    "__version__",
    "apply",
    "evaluate",
    "export_onnx",
    "load_head",
    "train",
]

#: Where each public name is defined. It is imported when it is first asked for.
_MODULES = {
    "Inverse": "deepesi.runtime.inverse",
    "Run": "deepesi.api.training",
    "SimulatedRecordings": "deepesi.data_gen.generator",
    "apply": "deepesi.runtime.inverse",
    "evaluate": "deepesi.api.evaluation",
    "export_onnx": "deepesi.api.exporting",
    "load_head": "deepesi.physics.loading",
    "train": "deepesi.api.training",
}
#: Packages whose modules need the extra ``train``.
_NEED_TORCH = ("deepesi.api.", "deepesi.data_gen.")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(
            f"module 'deepesi' has no attribute {name!r}. It has {', '.join(__all__)}."
        )
    module = _MODULES[name]
    if module.startswith(_NEED_TORCH):
        from deepesi.utils.optional import require

        for package in ("hydra", "torch"):
            require(package, "train", f"use deepesi.{name}")
    globals()[name] = value = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
