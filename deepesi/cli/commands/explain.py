"""``deepesi explain``: explain an estimate."""

import argparse
from dataclasses import replace
from pathlib import Path

from deepesi.cli.commands.arguments import (
    Commands,
    add_anatomy_argument,
    add_recording_arguments,
    add_response_arguments,
    recording_options,
    with_event,
)


def add_explain(commands: Commands) -> None:
    """Add ``deepesi explain``."""
    parser = commands.add_parser("explain", help="explain the estimate of a recording")
    add_recording_arguments(parser)
    add_response_arguments(parser)
    add_anatomy_argument(parser)
    parser.add_argument(
        "--at",
        type=float,
        metavar="TIME",
        help="time of the estimate, s (default: the strongest sample in --window)",
    )
    parser.add_argument(
        "--target",
        default="localization",
        help="what is explained: localization (default: share of the power near the strongest "
        "source), moment of that source, power near it, parcel:NAME (power of a parcel of "
        "Seitzman's atlas), or source:left:VERTEX, source:right:VERTEX (moment of that source)",
    )
    parser.add_argument(
        "--methods",
        help="saliency, integrated_gradients, deep_lift (these need torch and the directory of a "
        "run) and occlusion, comma-separated (default: all that the model has)",
    )
    parser.add_argument(
        "--spans",
        type=int,
        default=1,
        help="spans of time of occlusion, for networks that see a window (default 1: all of it)",
    )
    parser.add_argument("--out", type=Path, required=True, help=".html file to write")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from deepesi.cli.explain import open_network
    from deepesi.cli.opening import open_named
    from deepesi.interpret.run import ExplainOptions, explain

    methods = None if arguments.methods is None else arguments.methods.split(",")
    options = ExplainOptions(
        arguments.at, arguments.window, arguments.target, methods, arguments.spans
    )
    reading, setup = recording_options(arguments)
    setup = replace(setup, subjects_dir=arguments.subjects_dir)
    for line in explain(
        arguments.model,
        arguments.recording,
        arguments.out,
        with_event(arguments, reading),
        setup,
        options,
        open_named,
        open_network,
    ):
        print(line)
