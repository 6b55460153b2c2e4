"""Imports of optional packages, with the name of the extra that installs them."""

import importlib
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted module name, e.g. ``"openmeeg"``.
        extra: Extra of deepesi that installs it, e.g. ``"head"``.
        purpose: What it is needed for, as the rest of "deepesi needs it to ...".

    Raises:
        ModuleNotFoundError: The package is not installed; the message names the cure.

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
