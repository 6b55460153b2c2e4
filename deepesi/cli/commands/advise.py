"""``deepesi advise``: whether to trust an estimate."""

import argparse
from pathlib import Path

from deepesi.cli.commands.arguments import (
    Commands,
    add_recording_arguments,
    add_response_arguments,
    recording_options,
    with_event,
)
from deepesi.utils.optional import require


def add_advise(commands: Commands) -> None:
    """Add ``deepesi advise``."""
    parser = commands.add_parser(
        "advise", help="report whether to trust the estimate of a recording"
    )
    add_recording_arguments(parser)
    add_response_arguments(parser)
    parser.add_argument(
        "--strangers",
        type=int,
        default=200,
        help="number of simulated recordings of other people (default 200)",
    )
    parser.add_argument(
        "--cache", type=Path, help="folder for their results (default: the user's cache)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help=".html file to write; a .json with the same name is written, too",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    require("torch", "train", "simulate other people's heads (deepesi advise)")
    from deepesi.advice.run import StudyOptions, advise
    from deepesi.cli.opening import open_named

    reading, setup = recording_options(arguments)
    for line in advise(
        arguments.model,
        arguments.recording,
        arguments.out,
        with_event(arguments, reading),
        setup,
        arguments.window,
        StudyOptions(arguments.strangers, arguments.cache),
        open_named,
    ):
        print(line)
