"""Commands configured by Hydra: train, evaluate, calibrate, preview; errors in one line."""

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from deepesi.cli.processor import prepare_processor
from deepesi.cli.stopping import stops_on_signals
from deepesi.utils.optional import require

COMMANDS = {
    "train": "train, compare, export",
    "evaluate": "compare models",
    "calibrate": "recalibrate uncertainty and measure it",
    "preview": "draw simulated recordings to look at",
}
#: Shows the traceback of an error.
DEBUG = "--debug"
#: Asks for a sweep; Hydra wants it before all overrides.
SWEEP = ("-m", "--multirun")
#: With it, Hydra hands errors on and does not print them itself.
HANDED_ON = "HYDRA_FULL_ERROR"
#: What the user can mend; anything else is a fault of deepesi and keeps its traceback.
EXPECTED = (ValueError, OSError, ModuleNotFoundError, MemoryError, FloatingPointError)


def run_hydra(command: str, arguments: Sequence[str]) -> None:
    """Run a command with what was typed behind its name.

    An error the user can mend ends in one line and the exit status 1; ``--debug`` shows where it
    was raised.
    """
    overrides = sorted((a for a in arguments if a != DEBUG), key=lambda a: a not in SWEEP)
    debug = DEBUG in arguments or HANDED_ON in os.environ
    prepare_processor()
    try:
        for package in ("hydra", "torch"):
            require(package, "train", "train, evaluate, calibrate and preview")
    except ModuleNotFoundError as error:
        sys.exit(f"deepesi {command}: {error}")
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from deepesi.cli.config_errors import explained

    expected = (*EXPECTED, HydraException, OmegaConfBaseException)
    try:
        with stops_on_signals(command):
            _run(command, overrides, () if debug else expected)
    except expected as error:
        if debug:
            raise
        sys.exit(f"deepesi {command}: {explained(error, command)}")


def _run(command: str, overrides: list[str], expected: tuple[type[Exception], ...]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from deepesi.cli.config_errors import explained, usual_config
    from deepesi.cli.config_types import check_config
    from deepesi.training.overrides import understood

    entry = require(
        f"deepesi.cli.{command}", "train", "train, evaluate, calibrate and preview"
    ).main
    typed = list(sys.argv)

    @functools.wraps(entry)
    def job(config: Any) -> None:
        sys.argv = typed  # with which Lightning starts further processes
        try:
            with _variable(HANDED_ON, before):  # they handle errors themselves
                check_config(config, usual_config(command))
                entry(config)
        except expected as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # Hydra says in which run, when all have ended
            sys.exit(f"deepesi {command}: {explained(error, command, config)}")

    before, sys.argv = os.environ.get(HANDED_ON), [f"deepesi {command}", *understood(overrides)]
    main = hydra.main(version_base="1.3", config_path="pkg://deepesi.configs", config_name=command)
    try:
        with _variable(HANDED_ON, "1"):
            main(job)()
    finally:
        sys.argv = typed


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """A variable of the environment, or none of that name, for a while."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
