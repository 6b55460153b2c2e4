"""Models in the package: localization of a recording without training."""

from importlib import resources
from pathlib import Path

#: Names of the packaged files, valid wherever the path of a model is; model cards lie beside them.
PACKAGED = ("default", "ensemble", "convdip")


def model_path(name: str | Path) -> Path:
    """The path of a model file; of a packaged one if the name is one of `PACKAGED`.

    A file of that name in the working directory has priority.
    """
    path = Path(name)
    if str(name) in PACKAGED and not path.is_file():
        return Path(str(resources.files("deepesi.runtime") / "pretrained" / f"{name}.onnx"))
    return path
