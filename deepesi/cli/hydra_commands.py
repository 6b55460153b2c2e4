"""Commands with Hydra: train, evaluate, calibrate, preview; errors are one line."""

import argparse
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepesi.cli.processor import prepare_processor
from deepesi.cli.stopping import stops_on_signals
from deepesi.utils.optional import require
from deepesi.utils.plugins import CONFIG_VARIABLE

COMMANDS = {
    "train": "train, compare, export",
    "evaluate": "compare models",
    "calibrate": "calibrate uncertainty and test it",
    "preview": "figures of simulated recordings",
}
#: Option that shows the traceback of an error.
DEBUG = "--debug"
#: Option with a folder of configurations in addition to the packaged ones, as `CONFIG_VARIABLE`.
CONFIG_DIR = "--config-dir"
#: Option for a sweep; Hydra needs it before all overrides.
SWEEP = ("-m", "--multirun")
#: Variable with which Hydra raises errors instead of printing them.
FULL_ERROR = "HYDRA_FULL_ERROR"
#: Errors that the user can correct; any other is a bug of deepesi and keeps its traceback.
EXPECTED = (ValueError, OSError, ModuleNotFoundError, MemoryError, FloatingPointError)


def run_hydra(command: str, arguments: Sequence[str]) -> None:
    """Run a command with its arguments.

    An error that the user can correct is printed as one line, with exit status 1; ``--debug`` shows
    the traceback. ``--config-dir`` may be given several times.
    """
    with config_dirs_in_effect(arguments) as others:
        _run_hydra(command, others)


@contextmanager
def config_dirs_in_effect(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Context with the folders of ``--config-dir`` in effect; gives the other arguments."""
    folders, others = config_dirs(arguments)
    with _variable(CONFIG_VARIABLE, os.pathsep.join(folders) or None):
        yield others


def config_dirs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders of ``--config-dir`` and of the environment, and the other arguments."""
    parser = argparse.ArgumentParser("deepesi", add_help=False, allow_abbrev=False)
    parser.add_argument(CONFIG_DIR, action="append", default=[], metavar="DIR")
    named, others = parser.parse_known_args(list(arguments))
    folders = [*named.config_dir, *os.environ.get(CONFIG_VARIABLE, "").split(os.pathsep)]
    return [str(Path(folder).expanduser()) for folder in folders if folder], others


def _run_hydra(command: str, arguments: Sequence[str]) -> None:
    overrides = sorted((a for a in arguments if a != DEBUG), key=lambda a: a not in SWEEP)
    debug = DEBUG in arguments or FULL_ERROR in os.environ
    prepare_processor()
    try:
        for package in ("hydra", "torch"):
            require(package, "train", "train, evaluate, calibrate and preview")
    except ModuleNotFoundError as error:
        sys.exit(f"deepesi {command}: {error}")
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from deepesi.cli.config_errors import one_line_error

    expected = (*EXPECTED, HydraException, OmegaConfBaseException)
    try:
        with stops_on_signals(command):
            _run(command, overrides, () if debug else expected)
    except expected as error:
        if debug:
            raise
        sys.exit(f"deepesi {command}: {one_line_error(error, command, None, overrides)}")


def _run(command: str, overrides: list[str], expected: tuple[type[Exception], ...]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from deepesi.cli.config_errors import one_line_error, usual_config
    from deepesi.cli.config_types import check_config
    from deepesi.composition import register_plugins
    from deepesi.training.overrides import add_quotes
    from deepesi.utils.config_folders import CONFIGS, config_folders

    entry = require(
        f"deepesi.cli.{command}", "train", "train, evaluate, calibrate and preview"
    ).main
    typed = list(sys.argv)
    register_plugins()
    config_folders()  # refused here, with a clearer message than that of Hydra

    @functools.wraps(entry)
    def job(config: Any) -> None:
        sys.argv = typed  # Lightning starts further processes with it
        try:
            with _variable(FULL_ERROR, before):  # these commands handle errors themselves
                check_config(config, usual_config(command))
                entry(config)
        except expected as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # Hydra reports the run after the end of all
            sys.exit(f"deepesi {command}: {one_line_error(error, command, config)}")

    before, sys.argv = (
        os.environ.get(FULL_ERROR),
        [f"deepesi {command}", *add_quotes(overrides)],
    )
    main = hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=command)
    try:
        with _variable(FULL_ERROR, "1"):
            main(job)()
    finally:
        sys.argv = typed


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """Context with a variable of the environment set, or unset."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
