"""``deepesi demo``: a page that runs the network in the browser."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.cli.commands.arguments import (
    WHOLE,
    Commands,
    add_recording_arguments,
    add_response_arguments,
    recording_options,
    with_event,
)

if TYPE_CHECKING:
    from deepesi.runtime.reading.recording import ReadingOptions
    from deepesi.runtime.setup import SetupOptions


def add_demo(commands: Commands) -> None:
    """Add ``deepesi demo``."""
    parser = commands.add_parser("demo", help="write a page that runs the network in the browser")
    add_recording_arguments(parser, "?")  # default: simulated recordings
    add_response_arguments(parser)
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="DIR",
        help="unpacked npm package onnxruntime-web, see docs/viewing.md",
    )
    parser.add_argument("--out", type=Path, required=True, help=".html file to write")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from deepesi.runtime.demo import write_recording_demo, write_simulated_demo

    model, out, runtime = arguments.model, arguments.out, arguments.runtime
    reading, setup = recording_options(arguments)
    if arguments.recording is None:
        _check_simulated(arguments, reading, setup)
        lines = write_simulated_demo(model, out, setup, arguments.montage, runtime)
    else:
        reading, window = with_event(arguments, reading), arguments.window
        lines = write_recording_demo(
            model, arguments.recording, out, reading, setup, window, runtime
        )
    for line in lines:
        print(line)


def _check_simulated(
    arguments: argparse.Namespace, reading: "ReadingOptions", setup: "SetupOptions"
) -> None:
    """Refuse options of a recording where simulated ones are shown."""
    bare_reading, bare_setup = type(reading)(montage=reading.montage), type(setup)(head=setup.head)
    whole = tuple(arguments.window) == WHOLE and not arguments.event
    if not whole or (reading, setup) != (bare_reading, bare_setup):
        raise ValueError(
            "no recording is given, so simulated ones are shown: these have the options --head and "
            "--montage only. Give the recording after the model, or leave the other options out."
        )
