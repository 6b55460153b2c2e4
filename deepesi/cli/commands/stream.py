"""``deepesi stream``: localize a live recording."""

import argparse
import functools
from pathlib import Path

from deepesi.cli.commands.arguments import (
    Commands,
    add_channel_arguments,
)


def add_stream(commands: Commands) -> None:
    """Add ``deepesi stream``."""
    parser = commands.add_parser(
        "stream", help="localize a stream of the Lab Streaming Layer while it is recorded"
    )
    parser.add_argument(
        "model", type=Path, help="exported .onnx file; default or convdip: packaged files"
    )
    parser.add_argument("stream", help="name of the EEG stream")
    parser.add_argument("--type", help="type of the stream (such as EEG), if several have its name")
    parser.add_argument(
        "--source-id", help="source id of the stream, if several have name and type"
    )
    parser.add_argument(
        "--prepared", type=Path, required=True, help="head.npz of 'deepesi prepare' for its set-up"
    )
    add_channel_arguments(parser)
    parser.add_argument(
        "--band",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=(1.0, 40.0),
        help="band of the causal filter and of the noise covariance, Hz (default 1 40)",
    )
    parser.add_argument(
        "--samples", type=int, default=1, help="length of a window, samples (default 1: no delay)"
    )
    parser.add_argument(
        "--power",
        type=Path,
        metavar="FILE.csv",
        help="write the power of every parcel in the band: mean and standard deviation",
    )
    parser.add_argument("--outlet", default="deepesi", help="name of the stream of parcels")
    parser.add_argument("--page", type=int, metavar="PORT", help="show a live page; 0: any port")
    parser.add_argument("--seconds", type=float, help="duration, s (default: until interrupted)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from deepesi.cli.stream import stream

    stream(
        arguments.model,
        arguments.prepared,
        arguments.stream,
        arguments.rename,
        arguments.unit,
        tuple(arguments.band),
        arguments.samples,
        arguments.outlet,
        arguments.page,
        arguments.seconds,
        arguments.type,
        arguments.source_id,
        arguments.power,
        functools.partial(print, flush=True),
    )
