"""Command line of deepesi. Torch is imported only by commands that need it."""

import argparse
import sys
from collections.abc import Sequence

from deepesi import __version__
from deepesi.cli.commands.advise import add_advise
from deepesi.cli.commands.apply import add_apply
from deepesi.cli.commands.demo import add_demo
from deepesi.cli.commands.explain import add_explain
from deepesi.cli.commands.export import add_export
from deepesi.cli.commands.head import add_head
from deepesi.cli.commands.prepare import add_prepare
from deepesi.cli.commands.stream import add_stream
from deepesi.cli.commands.validate import add_validate
from deepesi.cli.hydra_commands import (
    COMMANDS,
    CONFIG_DIR,
    DEBUG,
    config_dirs_in_effect,
    run_hydra,
)
from deepesi.cli.stopping import stops_on_signals
from deepesi.utils.memory import bounded_memory

#: Adds a command to the parser, in the order of the help.
ADDERS = (
    add_export,
    add_apply,
    add_advise,
    add_explain,
    add_demo,
    add_prepare,
    add_stream,
    add_validate,
    add_head,
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="deepesi",
        description=__doc__.split("\n")[0],
        epilog=f"Every command takes {CONFIG_DIR} DIR: a folder with more configurations.",
    )
    parser.add_argument("--version", action="version", version=f"deepesi {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    for name, text in COMMANDS.items():
        about = f"{text}; takes Hydra overrides, and {DEBUG} to show the traceback of an error"
        commands.add_parser(name, help=about, add_help=False)

    for add in ADDERS:
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry of the console script; an expected error prints one line and exits with 1."""
    with config_dirs_in_effect(sys.argv[1:] if argv is None else argv) as others:
        _run(others)


def _run(argv: Sequence[str]) -> None:
    arguments, rest = build_parser().parse_known_args(argv)
    if arguments.command in COMMANDS:
        run_hydra(arguments.command, rest)
        return
    if rest:
        build_parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        with stops_on_signals(arguments.command), bounded_memory():
            arguments.run(arguments)
    except (ValueError, OSError, ModuleNotFoundError, MemoryError) as error:
        sys.exit(f"deepesi {arguments.command}: {error}")


if __name__ == "__main__":
    main()
