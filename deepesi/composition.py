"""Composes configurations of packaged files, user folders and plugins.

Hydra holds one configuration at a time. Another one may be loaded already: that of a program that
uses Hydra itself, or of the command that is running. The functions here restore it afterwards.
"""

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.version import VersionBase
from omegaconf import MISSING, DictConfig

from deepesi.core.contracts import InverseModel
from deepesi.losses.base import LossTerm
from deepesi.utils import plugins
from deepesi.utils.config_folders import CONFIGS, config_folders, folder_of

#: Kinds of values that a YAML file can hold.
PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


class OwnFolders(SearchPathPlugin):
    """Lets Hydra look into the folders of the user and of plugins, too."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add them, unless the configuration of another program is looked for."""
        if any(part.path == f"pkg://{CONFIGS}" for part in search_path.get_path()):
            for folder in config_folders():
                search_path.append("deepesi", f"file://{folder}")


Plugins.instance().register(OwnFolders)


@functools.cache
def register_plugins() -> None:
    """Offer the models and losses of installed packages as ``model=NAME`` and ``loss=NAME``.

    A loss term is added to those of ``loss=default``, with the weight 1.

    Raises:
        ValueError: A name is one of deepesi's own; or see `deepesi.utils.plugins.load`.

    """
    for name, entry in _new("model", plugins.MODELS):
        ConfigStore.instance().store(name, settings_of(entry, InverseModel), group="model")
    for name, entry in _new("loss", plugins.LOSSES):
        objective = {
            "defaults": ["default", "_self_"],
            "terms": {name: settings_of(entry, LossTerm)},
            "weights": {name: 1.0},
        }
        ConfigStore.instance().store(name, objective, group="loss")


def _new(group: str, entries: str) -> Iterator[tuple[str, EntryPoint]]:
    """Entry points by name, where deepesi has no configuration of that name."""
    for name, entry in plugins.declared(entries).items():
        if (folder_of(CONFIGS) / group / f"{name}.yaml").is_file():
            raise ValueError(
                f"plugins: {name!r} of the package {plugins.package_of(entry)} has the name of "
                f"deepesi's own {group}={name}. Uninstall the package, or rename it there."
            )
        yield name, entry


def settings_of(entry: EntryPoint, base: type[Any]) -> dict[str, Any]:
    """The configuration of a class: its constructor's arguments with their defaults."""
    kind = plugins.load(entry, base)
    defaults = {
        name: MISSING if parameter.default is parameter.empty else parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    plain = {name: value for name, value in defaults.items() if isinstance(value, PLAIN)}
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **plain}


@contextmanager
def own_hydra() -> Iterator[ConfigLoader]:
    """Hydra with the configurations of deepesi, whatever it holds before and afterwards."""
    register_plugins()
    before = GlobalHydra.instance().hydra
    base, job = VersionBase.instance().version_base, JobRuntime.instance().get("name")
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = before
        VersionBase.instance().version_base = base
        JobRuntime.instance().set("name", job)


def compose(
    command: str, overrides: Sequence[str] = (), return_hydra_config: bool = False
) -> DictConfig:
    """The configuration of a command with overrides."""
    with own_hydra():
        return hydra.compose(command, list(overrides), return_hydra_config)


def names_in(group: str) -> list[str]:
    """What a group of the configuration offers: packaged, in user folders, of plugins.

    With the models and losses that plugins declare as classes, unlike
    `deepesi.utils.config_folders.config_names`, which needs no Hydra.
    """
    with own_hydra() as loader:
        return sorted(loader.get_group_options(group))
