"""``deepesi prepare``: a file for live use."""

import argparse
from pathlib import Path

from deepesi.cli.commands.arguments import (
    Commands,
    add_recording_arguments,
)
from deepesi.physics.channel_names import parse_renaming


def add_prepare(commands: Commands) -> None:
    """Add ``deepesi prepare``."""
    parser = commands.add_parser("prepare", help="write head.npz for a set-up, for live use")
    add_recording_arguments(parser)
    parser.add_argument(
        "--nave", type=float, default=1, help="number of averaged trials (default 1)"
    )
    parser.add_argument("--out", type=Path, required=True, help=".npz file to write")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from deepesi.cli.opening import open_named
    from deepesi.runtime.apply import prepare
    from deepesi.runtime.reading.recording import ReadingOptions
    from deepesi.runtime.setup import SetupOptions

    reading = ReadingOptions(
        None,
        arguments.montage,
        tuple(arguments.exclude),
        parse_renaming(arguments.rename),
        arguments.unit,
    )
    setup = SetupOptions(
        arguments.noise_cov,
        forward=arguments.forward,
        head=arguments.head,
        rank=arguments.rank,
        trans=arguments.trans,
        picks=arguments.picks,
    )
    print(
        prepare(
            arguments.model,
            arguments.recording,
            arguments.out,
            reading,
            setup,
            arguments.nave,
            open_named,
        )
    )
