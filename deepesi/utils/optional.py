"""Imports of optional packages, with the name of the extra that installs them."""

import importlib
import re
from types import ModuleType

#: Packages that MNE-Python reads files with, to the extra of deepesi that installs each.
READERS = {"pymatreader": "eeglab"}
#: Error messages about a missing package: of MNE-Python, and of SciPy for MATLAB 7.3.
_LACKING = re.compile(r"the module (\w+)\S* .*is needed|HDF reader for matlab (v7\.3)")


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted module name, e.g. ``"openmeeg"``.
        extra: Extra of deepesi that installs it, e.g. ``"head"``.
        purpose: Completes the sentence "deepesi needs it to ...".

    Raises:
        ModuleNotFoundError: The package is not installed; the message says how to install it.

    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"deepesi needs the package {module.split('.')[0]!r} to {purpose}, and it is not "
            f"installed. Install it with: pip install 'deepesi[{extra}]'",
            name=error.name,
        ) from error


def missing_package(error: Exception) -> str | None:
    """The package to install if a reader failed because a package is missing; else None.

    Args:
        error: ``RuntimeError`` of MNE-Python, ``NotImplementedError`` of SciPy, or an import error
            of any.

    """
    if isinstance(error, ImportError) and error.name is not None:
        package = error.name.split(".")[0]
    else:
        found = _LACKING.search(str(error))
        if found is None:
            return None
        package = found[1] or "pymatreader"
    extra = READERS.get(package)
    install = f"'deepesi[{extra}]'" if extra is not None else package
    return (
        f"the package {package!r}, which is not installed. Install it with: pip install {install}"
    )
