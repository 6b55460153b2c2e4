"""``deepesi apply``: localize a recording or a data set."""

import argparse
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepesi.cli.commands.arguments import (
    WHOLE,
    Commands,
    add_anatomy_argument,
    add_recording_arguments,
    add_response_arguments,
    recording_options,
    with_event,
)

if TYPE_CHECKING:
    from deepesi.runtime.reading.recording import ReadingOptions
    from deepesi.runtime.setup import SetupOptions
    from deepesi.runtime.writing.animated import AnimationOptions

#: Options of `deepesi apply` for data sets only.
DATASET_OPTIONS = ("subject", "session", "task", "run_label", "suffix", "jobs", "dask")
#: Options of `deepesi apply` for one recording only.
SINGLE_RECORDING_OPTIONS = ("movie", "html", "samples")


def add_apply(commands: Commands) -> None:
    """Add ``deepesi apply``."""
    parser = commands.add_parser("apply", help="localize a recording with an exported file")
    add_recording_arguments(parser)
    add_response_arguments(parser)
    add_anatomy_argument(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help="prefix of the files to write, or one .zarr"
    )
    parser.add_argument(
        "--movie",
        type=Path,
        help=".gif or .mp4 file to write: an average on the cortex, in --window",
    )
    parser.add_argument(
        "--fps", type=float, default=10.0, help="frames per second of --movie (default 10)"
    )
    parser.add_argument(
        "--html", type=Path, help=".html file to write: an average on the cortex, to turn and play"
    )
    parser.add_argument(
        "--band",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="write the power of the sources in this band, Hz, in place of time courses",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="posterior samples to draw at the strongest sample of an average, by a posterior "
        "model: a file of them, a map of the probability of a source, a figure, an animation",
    )
    _dataset_arguments(parser)
    parser.set_defaults(run=_run)


def _dataset_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "data sets",
        "for bids:ROOT in place of a recording; --out is then a folder, and "
        "--noise-cov, --forward and --trans may contain {subject}, {session}, {task}, "
        "{acquisition}, {run}",
    )
    for name in ("subject", "session", "task"):
        group.add_argument(
            f"--{name}", nargs="+", metavar="LABEL", help="one or more; default: all"
        )
    group.add_argument(
        "--run", nargs="+", metavar="LABEL", dest="run_label", help="one or more; default: all"
    )
    group.add_argument("--suffix", help="eeg (default); ave, epo or raw of derivatives")
    group.add_argument(
        "--jobs", type=int, help="number of parallel recordings, one core each (default 1)"
    )
    group.add_argument(
        "--dask", metavar="ADDRESS", help="scheduler of a Dask cluster to use, tcp://host:8786"
    )


def _run(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from deepesi.runtime.reading.formats import DATASET

    reading, setup = recording_options(arguments)
    if arguments.band is not None:
        _check_band_options(arguments)
        reading = replace(reading, band=tuple(arguments.band))
    setup = replace(setup, subjects_dir=arguments.subjects_dir)
    is_dataset = str(arguments.recording).startswith(DATASET)
    lines = (_apply_dataset if is_dataset else _apply_one)(arguments, reading, setup)
    with closing(lines):  # an interrupt between two lines also cleans up
        for line in lines:
            tqdm.write(line)  # prints, above a progress bar if there is one


def _check_band_options(arguments: argparse.Namespace) -> None:
    """Refuse what ``--band``, which writes one map, cannot write."""
    from deepesi.runtime.writing.zarr_group import is_zarr

    shown = [
        f"--{name}" for name in SINGLE_RECORDING_OPTIONS if getattr(arguments, name) is not None
    ]
    if tuple(arguments.window) != WHOLE:
        shown.append("--window")
    if shown or is_zarr(arguments.out):
        raise ValueError(
            f"--band writes one map of the power, not {', '.join(shown) or '.zarr'}; leave that "
            "out, and give a prefix in --out."
        )


def _apply_one(
    arguments: argparse.Namespace, reading: "ReadingOptions", setup: "SetupOptions"
) -> Generator[str, None, Any]:
    from deepesi.cli.opening import open_named
    from deepesi.runtime.apply import apply
    from deepesi.runtime.writing.samples import Draws

    given = [
        f"--{name.removesuffix('_label')}"
        for name in DATASET_OPTIONS
        if getattr(arguments, name) is not None
    ]
    if given:
        raise ValueError(
            f"{', '.join(given)}: for a whole data set, 'deepesi apply MODEL bids:ROOT'."
        )
    return apply(
        arguments.model,
        arguments.recording,
        arguments.out,
        with_event(arguments, reading),
        setup,
        arguments.window,
        open_inverse=open_named,
        animated=_animated(arguments),
        draws=None if arguments.samples is None else Draws(arguments.samples),
    )


def _animated(arguments: argparse.Namespace) -> "AnimationOptions | None":
    """Movie and page that were asked for, if any."""
    from deepesi.runtime.writing.animated import AnimationOptions

    if arguments.movie is None and arguments.html is None:
        return None
    source = f"{arguments.model} on {arguments.recording}"
    return AnimationOptions(arguments.movie, arguments.html, arguments.fps, source)


def _apply_dataset(
    arguments: argparse.Namespace, reading: "ReadingOptions", setup: "SetupOptions"
) -> Generator[str, None, None]:
    from deepesi.cli.opening import open_named
    from deepesi.runtime.dataset.items import Selection
    from deepesi.runtime.dataset.run import localize_dataset
    from deepesi.runtime.reading.formats import DATASET

    for name in SINGLE_RECORDING_OPTIONS:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name}: for one recording, not for a whole data set.")
    selection = Selection(
        arguments.subject,
        arguments.session,
        arguments.task,
        arguments.run_label,
        arguments.suffix or "eeg",
    )
    jobs = 1 if arguments.jobs is None else arguments.jobs
    root = Path(str(arguments.recording).removeprefix(DATASET)).expanduser()  # no shell does
    return localize_dataset(
        arguments.model,
        root,
        arguments.out,
        selection,
        arguments.event,
        reading,
        setup,
        tuple(arguments.window),
        jobs,
        arguments.dask,
        open_named,
    )
