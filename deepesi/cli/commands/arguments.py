"""Options that several commands share: a recording, its channels, noise and head."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from deepesi.physics.channel_names import parse_renaming

if TYPE_CHECKING:
    from deepesi.runtime.reading.recording import ReadingOptions
    from deepesi.runtime.setup import SetupOptions

#: The commands that a parser is added to.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
#: Default of ``--window``, s.
WHOLE = (0.0, float("inf"))


def parse_rank(text: str) -> int | Literal["info"]:
    """``--rank``: a number of dimensions, or ``info``."""
    if text == "info":
        return "info"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of dimensions or info, got {text!r}")
    return int(text)


def add_channel_arguments(parser: argparse.ArgumentParser) -> None:
    """Add options for names and unit of the channels of a recording or stream."""
    parser.add_argument(
        "--rename",
        nargs="+",
        default=[],
        metavar="OLD=NEW",
        help="new names of channels (clinical names, such as EEG FP1-REF, are known)",
    )
    parser.add_argument("--unit", help="unit of its EEG, if the file gives none: V, mV, uV, nV")


def add_recording_arguments(
    parser: argparse.ArgumentParser, recording: Literal["?"] | None = None
) -> None:
    """Add options for model and recording, channels, noise and head."""
    parser.add_argument(
        "model",
        type=Path,
        help="exported .onnx file or the directory of a run; default or convdip: packaged files; "
        "apply: or a solver, such as lasso (needs deepesi[train])",
    )
    parser.add_argument(
        "recording",
        type=Path,
        nargs=recording,
        help="-ave.fif, -epo.fif, raw.fif, .edf, .bdf, .gdf, .vhdr or .set; apply: also bids:ROOT",
    )
    parser.add_argument(
        "--montage", help="standard electrode positions, such as fsaverage_1005 (default: its own)"
    )
    parser.add_argument(
        "--exclude", nargs="+", default=[], metavar="CHANNEL", help="channels that are no EEG"
    )
    add_channel_arguments(parser)
    parser.add_argument(
        "--noise-cov", type=Path, help="noise covariance of single trials, -cov.fif"
    )
    parser.add_argument(
        "--forward", type=Path, help="the recording's own -fwd.fif; default: the packaged head"
    )
    parser.add_argument("--head", help="packaged head or .npz of 'deepesi head build'")
    parser.add_argument(
        "--trans",
        type=Path,
        help="-trans.fif from the head frame of the recording to the MRI of --head (packaged "
        "heads: of fsaverage) or to MNI space; places the sensors exactly",
    )
    parser.add_argument(
        "--picks",
        nargs="+",
        metavar="KIND",
        help="kinds of sensors to use: eeg, meg, mag, grad (default: those of the forward "
        "solution; on a packaged head EEG, if there is some)",
    )
    parser.add_argument(
        "--rank",
        type=parse_rank,
        metavar="N | info",
        help="dimensions of the noise, or info: channels less reference and applied projectors "
        "(default: what the noise covariance spans)",
    )


def add_response_arguments(parser: argparse.ArgumentParser) -> None:
    """Add options of a response: condition, averaging, noise and time window of the peak."""
    parser.add_argument("--condition", help="name or number of an evoked response, event of epochs")
    parser.add_argument(
        "--nave",
        type=float,
        metavar="N",
        help="number of trials of an average (default: from the file)",
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        metavar="none | FROM TO",
        help="baseline of an average or epochs, s (default: from the file; if it has none, the "
        "time before 0 for recordings with electrode offsets, else none)",
    )
    parser.add_argument(
        "--noise-from",
        type=float,
        nargs=2,
        metavar=("FROM", "TO"),
        help="time window of noise in a raw recording or in every epoch, s, in place of a "
        "covariance",
    )
    parser.add_argument("--prepared", type=Path, help="head.npz of 'deepesi prepare'")
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("FROM", "TO"),
        default=WHOLE,
        help="time window of the peak, s (default: from 0 on)",
    )
    parser.add_argument(
        "--event",
        nargs="+",
        default=[],
        metavar="NAME",
        help="average about this event of a raw recording (several for a data set); the part "
        "before it is used as baseline and noise, unless others are given",
    )
    parser.add_argument(
        "--epoch",
        type=float,
        nargs=2,
        metavar=("FROM", "TO"),
        help="start and end of that average, s relative to the event (default -0.2 0.5)",
    )


def add_anatomy_argument(parser: argparse.ArgumentParser) -> None:
    """Add the folder that names the sources of a subject."""
    parser.add_argument(
        "--subjects-dir",
        type=Path,
        help="FreeSurfer's folder of subjects: MNI positions, lobes and parcels on --forward",
    )


def recording_options(
    arguments: argparse.Namespace,
) -> tuple["ReadingOptions", "SetupOptions"]:
    """Options for reading a recording, and its set-up; without the event."""
    from deepesi.runtime.reading.recording import ReadingOptions, parse_baseline
    from deepesi.runtime.setup import SetupOptions

    reading = ReadingOptions(
        arguments.condition,
        arguments.montage,
        tuple(arguments.exclude),
        parse_renaming(arguments.rename),
        arguments.unit,
        arguments.nave,
        parse_baseline(arguments.baseline),
    )
    if arguments.epoch is not None:
        if not arguments.event:
            raise ValueError("--epoch is of an average about an event; give --event NAME, too.")
        reading = replace(reading, epoch=tuple(arguments.epoch))
    setup = SetupOptions(
        arguments.noise_cov,
        arguments.noise_from,
        arguments.forward,
        arguments.head,
        arguments.prepared,
        rank=arguments.rank,
        trans=arguments.trans,
        picks=arguments.picks,
    )
    return reading, setup


def with_event(arguments: argparse.Namespace, reading: "ReadingOptions") -> "ReadingOptions":
    """Options with the event of one recording."""
    if len(arguments.event) > 1:
        raise ValueError(f"--event {' '.join(arguments.event)}: give one event of one recording.")
    return replace(reading, event=next(iter(arguments.event), None))
