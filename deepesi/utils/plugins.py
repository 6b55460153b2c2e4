"""Classes that installed packages add to deepesi by entry points."""

from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

#: Groups of entry points: inverse models, head inputs, terms of the objective, and
#: packages of YAML files.
MODELS, HEAD_INPUTS = "deepesi.models", "deepesi.head_inputs"
LOSSES, CONFIGS = "deepesi.losses", "deepesi.configs"
#: Variable of the environment: folders of YAML files of the user's own, several as in ``PATH``.
CONFIG_VARIABLE = "DEEPESI_CONFIG"

T = TypeVar("T")


def declared(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is imported.

    Raises:
        ValueError: Two packages declare the same name.

    """
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = entries.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ValueError(
                f"plugins: the packages {package_of(other)} and {package_of(entry)} both declare "
                f"{entry.name!r} in {group!r}. Uninstall one of them, or rename it there."
            )
    return entries


def load(entry: EntryPoint, base: type[T]) -> type[T]:
    """Import the class that an entry point names.

    Raises:
        ValueError: It cannot be imported, or is no subclass of `base`.

    """
    what = f"plugins: {entry.name!r} ({entry.value}) of the package {package_of(entry)}"
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{what} cannot be imported ({error}). Update the package, or uninstall it."
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ValueError(
            f"{what} is no subclass of {base.__module__}.{base.__qualname__}, as {entry.group!r} "
            "demands. Update the package, or uninstall it."
        )
    return kind


def package_of(entry: EntryPoint) -> str:
    """Name of the package that declares an entry point, as in ``pip``."""
    return "(unknown)" if entry.dist is None else entry.dist.name
