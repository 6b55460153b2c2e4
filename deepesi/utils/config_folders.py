"""Folders of configurations: packaged files, user folders and plugins; without Hydra."""

import os
from importlib import resources
from pathlib import Path

from deepesi.utils import plugins
from deepesi.utils.plugins import CONFIG_VARIABLE as VARIABLE

#: The packaged files.
CONFIGS = "deepesi.configs"
#: What names folders of users, for errors.
NAMED_BY = f"{VARIABLE} (or --config-dir)"


def config_folders() -> list[Path]:
    """Other folders of YAML files than the packaged one: of ``DEEPESI_CONFIG``, then of plugins.

    Raises:
        FileNotFoundError: One is not there.
        ValueError: Two files have the same name, so one of them would be ignored.

    """
    own = [Path(part).absolute() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    for folder in own:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{NAMED_BY}: there is no folder {folder}. Give one that holds "
                "scenario/NAME.yaml, model/NAME.yaml and the like."
            )
    folders = [*own, *(folder_of(e.value) for e in plugins.declared(plugins.CONFIGS).values())]
    seen: dict[Path, Path] = {}
    for folder in (folder_of(CONFIGS), *folders):
        for file in (*folder.glob("*.yaml"), *folder.glob("*/*.yaml")):
            other = seen.setdefault(file.relative_to(folder), file)
            if other != file:
                raise ValueError(
                    f"{NAMED_BY}: {file} has the name of {other}. Rename it; it may "
                    "begin with the values of the other one (defaults: [NAME, _self_])."
                )
    return folders


def folder_of(package: str) -> Path:
    """Folder of a package of YAML files."""
    return Path(str(resources.files(package)))


def config_names(group: str) -> list[str]:
    """Names of the YAML files of a group, in all folders.

    Raises:
        FileNotFoundError: As in `config_folders`.
        ValueError: As in `config_folders`.

    """
    folders = (folder_of(CONFIGS), *config_folders())
    return sorted(file.stem for folder in folders for file in folder.glob(f"{group}/*.yaml"))
