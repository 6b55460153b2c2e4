"""Imports the scripts of the documentation, which are no package."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[1] / "docs"


def docs_module(name: str) -> ModuleType:
    """A module in ``docs``; the path of imports is as before afterwards."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))
