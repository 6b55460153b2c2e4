"""The model that comes with the package: localize a recording without training one."""

from importlib import resources
from pathlib import Path

#: Stands for the packaged file wherever the path of a model is asked for.
DEFAULT = "default"


def model_path(name: str | Path) -> Path:
    """The path of a model file; of the packaged one if the name is ``"default"``.

    A file of that name in the working directory goes before it.
    """
    path = Path(name)
    if str(name) == DEFAULT and not path.exists():
        return Path(str(resources.files("deepesi.export") / "default" / "model.onnx"))
    return path
