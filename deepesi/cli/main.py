"""Command line of deepesi. Torch is imported only by commands that need it."""

import argparse
import functools
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepesi import __version__
from deepesi.cli.hydra_commands import COMMANDS, CONFIG_DIR, DEBUG, run_hydra
from deepesi.cli.stopping import stops_on_signals
from deepesi.physics.channel_names import parse_renaming
from deepesi.utils.files import check_folder_out
from deepesi.utils.memory import bounded_memory
from deepesi.utils.optional import require

if TYPE_CHECKING:
    from deepesi.runtime.apply import SetupOptions
    from deepesi.runtime.reading.recording import ReadingOptions
    from deepesi.runtime.writing.animated import Animated

#: Prefix of a recording that is the folder of a BIDS data set.
DATASET = "bids:"
#: Options of `deepesi apply` for data sets only.
OF_DATASETS = ("subject", "session", "task", "run_label", "suffix", "jobs", "dask")
#: Default of ``--window``, s.
WHOLE = (0.0, float("inf"))
#: Options of `deepesi apply` for one recording only.
OF_ONE = ("movie", "html", "samples")


def _export(arguments: argparse.Namespace) -> None:
    require("torch", "train", "export")
    from deepesi.cli.export import export_path

    written = export_path(
        arguments.model, arguments.out, arguments.head, arguments.montage, arguments.precision
    )
    print(f"wrote {written} and its card, {written.with_suffix('.md')}")


def _apply(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    reading, setup = _recording_options(arguments)
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

    shown = [f"--{name}" for name in OF_ONE if getattr(arguments, name) is not None]
    if tuple(arguments.window) != WHOLE:
        shown.append("--window")
    if shown or is_zarr(arguments.out):
        raise ValueError(
            f"--band writes one map of the power, not {', '.join(shown) or '.zarr'}; leave that "
            "out, and give a prefix in --out."
        )


def _recording_options(
    arguments: argparse.Namespace,
) -> tuple["ReadingOptions", "SetupOptions"]:
    """How to read a recording, and its set-up; without the event."""
    from deepesi.runtime.apply import SetupOptions
    from deepesi.runtime.reading.recording import ReadingOptions, parse_baseline

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
    )
    return reading, setup


def _with_event(arguments: argparse.Namespace, reading: "ReadingOptions") -> "ReadingOptions":
    """Options with the event of one recording."""
    if len(arguments.event) > 1:
        raise ValueError(f"--event {' '.join(arguments.event)}: give one event of one recording.")
    return replace(reading, event=next(iter(arguments.event), None))


def _apply_one(
    arguments: argparse.Namespace, reading: "ReadingOptions", setup: "SetupOptions"
) -> Generator[str, None, Any]:
    from deepesi.cli.opening import open_named
    from deepesi.runtime.apply import apply
    from deepesi.runtime.writing.samples import Draws

    given = [
        f"--{name.removesuffix('_label')}"
        for name in OF_DATASETS
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
        _with_event(arguments, reading),
        setup,
        arguments.window,
        open_inverse=open_named,
        animated=_animated(arguments),
        draws=None if arguments.samples is None else Draws(arguments.samples),
    )


def _animated(arguments: argparse.Namespace) -> "Animated | None":
    """Movie and page that were asked for, if any."""
    from deepesi.runtime.writing.animated import Animated

    if arguments.movie is None and arguments.html is None:
        return None
    source = f"{arguments.model} on {arguments.recording}"
    return Animated(arguments.movie, arguments.html, arguments.fps, source)


def _apply_dataset(
    arguments: argparse.Namespace, reading: "ReadingOptions", setup: "SetupOptions"
) -> Generator[str, None, None]:
    from deepesi.cli.opening import open_named
    from deepesi.runtime.dataset.items import Selection
    from deepesi.runtime.dataset.run import localize_dataset

    for name in OF_ONE:
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


def _advise(arguments: argparse.Namespace) -> None:
    require("torch", "train", "simulate other people's heads (deepesi advise)")
    from deepesi.advice.run import StudyOptions, advise
    from deepesi.cli.opening import open_named

    reading, setup = _recording_options(arguments)
    for line in advise(
        arguments.model,
        arguments.recording,
        arguments.out,
        _with_event(arguments, reading),
        setup,
        arguments.window,
        StudyOptions(arguments.strangers, arguments.cache),
        open_named,
    ):
        print(line)


def _explain(arguments: argparse.Namespace) -> None:
    from deepesi.cli.explain import open_network
    from deepesi.cli.opening import open_named
    from deepesi.interpret.run import ExplainOptions, explain

    methods = None if arguments.methods is None else arguments.methods.split(",")
    options = ExplainOptions(
        arguments.at, arguments.window, arguments.target, methods, arguments.spans
    )
    reading, setup = _recording_options(arguments)
    for line in explain(
        arguments.model,
        arguments.recording,
        arguments.out,
        _with_event(arguments, reading),
        setup,
        options,
        open_named,
        open_network,
    ):
        print(line)


def _demo(arguments: argparse.Namespace) -> None:
    from deepesi.runtime.demo import write_recording_demo, write_simulated_demo

    model, out, runtime = arguments.model, arguments.out, arguments.runtime
    reading, setup = _recording_options(arguments)
    if arguments.recording is None:
        _check_simulated(arguments, reading, setup)
        lines = write_simulated_demo(model, out, setup, arguments.montage, runtime)
    else:
        reading, window = _with_event(arguments, reading), arguments.window
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


def _prepare(arguments: argparse.Namespace) -> None:
    from deepesi.cli.opening import open_named
    from deepesi.runtime.apply import SetupOptions, prepare
    from deepesi.runtime.reading.recording import ReadingOptions

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


def _validate(arguments: argparse.Namespace) -> None:
    from deepesi.cli.opening import solver_method
    from deepesi.cli.validate import find_recordings, validate
    from deepesi.runtime.methods import find_methods

    check_folder_out(arguments.out)
    names = [name for name in arguments.methods.split(",") if name]
    methods = find_methods(names, arguments.models, solver_method)
    recordings = find_recordings(
        arguments.recording, arguments.data, arguments.expect, arguments.trans
    )
    for line in validate(recordings, methods, arguments.out):
        print(line)


def _stream(arguments: argparse.Namespace) -> None:
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


def _head_build(arguments: argparse.Namespace) -> None:
    from deepesi.physics.building.build import build_members

    if arguments.out is not None:
        check_folder_out(arguments.out)
    for path, fingerprint in build_members(
        arguments.warp_seed, arguments.spacing, arguments.free_orientation, arguments.out
    ):
        print(f"wrote {path}, fingerprint {fingerprint}")


def parse_rank(text: str) -> int | Literal["info"]:
    """``--rank``: a number of dimensions, or ``info``."""
    if text == "info":
        return "info"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of dimensions or info, got {text!r}")
    return int(text)


def _channel_arguments(parser: argparse.ArgumentParser) -> None:
    """Names and unit of the channels of a recording or stream."""
    parser.add_argument(
        "--rename",
        nargs="+",
        default=[],
        metavar="OLD=NEW",
        help="new names of channels (clinical names, such as EEG FP1-REF, are known)",
    )
    parser.add_argument("--unit", help="unit of its EEG, if it names none: V, mV, uV, nV")


def _recording_arguments(
    parser: argparse.ArgumentParser, recording: Literal["?"] | None = None
) -> None:
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
    _channel_arguments(parser)
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
        "heads: of fsaverage) or to MNI space; places the electrodes exactly",
    )
    parser.add_argument(
        "--rank",
        type=parse_rank,
        metavar="N | info",
        help="dimensions of the noise, or info: channels less reference and applied projectors "
        "(default: what the noise covariance spans)",
    )


def _response_arguments(parser: argparse.ArgumentParser) -> None:
    """Which response of a recording, how it was averaged, its noise, and where its peak is."""
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


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deepesi", description=__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=f"deepesi {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    for name, text in COMMANDS.items():
        about = (
            f"{text}; takes Hydra overrides, {CONFIG_DIR} DIR for more configurations, "
            f"and {DEBUG} to show the traceback of an error"
        )
        commands.add_parser(name, help=about, add_help=False)

    export = commands.add_parser("export", help="checkpoint, run or baseline to ONNX")
    export.add_argument(
        "model",
        help="checkpoint, run directory, or eloreta, sloreta, dspm, mne, bayesian_minimum_norm",
    )
    export.add_argument(
        "--out", type=Path, required=True, help=".onnx file to write; its card is .md"
    )
    export.add_argument("--head", default="fsaverage-ico3", help="packaged head or .npz")
    export.add_argument("--montage", default="biosemi64", help="montage to trace with")
    export.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="precision of the weights (default float32), see docs/deployment.md",
    )
    export.set_defaults(run=_export)

    apply = commands.add_parser("apply", help="localize a recording with an exported file")
    _recording_arguments(apply)
    _response_arguments(apply)
    apply.add_argument(
        "--subjects-dir",
        type=Path,
        help="FreeSurfer's folder of subjects: MNI position and parcel of the peak on --forward",
    )
    apply.add_argument(
        "--out", type=Path, required=True, help="prefix of the files to write, or one .zarr"
    )
    apply.add_argument(
        "--movie",
        type=Path,
        help=".gif or .mp4 file to write: an average on the cortex, in --window",
    )
    apply.add_argument(
        "--fps", type=float, default=10.0, help="frames per second of --movie (default 10)"
    )
    apply.add_argument(
        "--html", type=Path, help=".html file to write: an average on the cortex, to turn and play"
    )
    apply.add_argument(
        "--band",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="write the power of the sources in this band, Hz, in place of time courses",
    )
    apply.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="posterior samples to draw at the strongest sample of an average, by a posterior "
        "model: a file of them, a map of the probability of a source, a figure",
    )
    _dataset_arguments(apply)
    apply.set_defaults(run=_apply)

    advise = commands.add_parser("advise", help="say whether to trust the estimate of a recording")
    _recording_arguments(advise)
    _response_arguments(advise)
    advise.add_argument(
        "--strangers",
        type=int,
        default=200,
        help="number of simulated recordings of other people (default 200)",
    )
    advise.add_argument(
        "--cache", type=Path, help="folder for their results (default: the user's cache)"
    )
    advise.add_argument(
        "--out", type=Path, required=True, help=".html file to write; a .json is beside it"
    )
    advise.set_defaults(run=_advise)

    explain = commands.add_parser("explain", help="say why the estimate of a recording is as it is")
    _recording_arguments(explain)
    _response_arguments(explain)
    explain.add_argument(
        "--at",
        type=float,
        metavar="TIME",
        help="time of the estimate, s (default: the strongest sample in --window)",
    )
    explain.add_argument(
        "--target",
        default="localization",
        help="what is explained: localization (default: share of the power near the strongest "
        "source), moment of that source, or power near it",
    )
    explain.add_argument(
        "--methods",
        help="saliency, integrated_gradients, deep_lift (these need torch and the directory of a "
        "run) and occlusion, comma-separated (default: all that the model has)",
    )
    explain.add_argument(
        "--spans",
        type=int,
        default=1,
        help="spans of time of occlusion, for networks that see a window (default 1: all of it)",
    )
    explain.add_argument("--out", type=Path, required=True, help=".html file to write")
    explain.set_defaults(run=_explain)

    demo = commands.add_parser("demo", help="write a page that runs the network in the browser")
    _recording_arguments(demo, "?")  # default: simulated recordings
    _response_arguments(demo)
    demo.add_argument(
        "--runtime",
        type=Path,
        metavar="DIR",
        help="unpacked npm package onnxruntime-web, see docs/viewing.md",
    )
    demo.add_argument("--out", type=Path, required=True, help=".html file to write")
    demo.set_defaults(run=_demo)

    prepare = commands.add_parser("prepare", help="write head.npz for a set-up, for live use")
    _recording_arguments(prepare)
    prepare.add_argument(
        "--nave", type=float, default=1, help="number of averaged trials (default 1)"
    )
    prepare.add_argument("--out", type=Path, required=True, help=".npz file to write")
    prepare.set_defaults(run=_prepare)

    stream = commands.add_parser(
        "stream", help="localize a stream of the Lab Streaming Layer while it is recorded"
    )
    stream.add_argument(
        "model", type=Path, help="exported .onnx file; default or convdip: packaged files"
    )
    stream.add_argument("stream", help="name of the EEG stream")
    stream.add_argument("--type", help="type of the stream (such as EEG), if several have its name")
    stream.add_argument(
        "--source-id", help="source id of the stream, if several have name and type"
    )
    stream.add_argument(
        "--prepared", type=Path, required=True, help="head.npz of 'deepesi prepare' for its set-up"
    )
    _channel_arguments(stream)
    stream.add_argument(
        "--band",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=(1.0, 40.0),
        help="band of the causal filter and of the noise covariance, Hz (default 1 40)",
    )
    stream.add_argument(
        "--samples", type=int, default=1, help="length of a window, samples (default 1: no delay)"
    )
    stream.add_argument(
        "--power",
        type=Path,
        metavar="FILE.csv",
        help="write the power of every parcel in the band: mean and standard deviation",
    )
    stream.add_argument("--outlet", default="deepesi", help="name of the stream of parcels")
    stream.add_argument("--page", type=int, metavar="PORT", help="show a live page; 0: any port")
    stream.add_argument("--seconds", type=float, help="duration, s (default: until interrupted)")
    stream.set_defaults(run=_stream)

    validate = commands.add_parser(
        "validate", help="methods on real recordings with roughly known sources"
    )
    validate.add_argument(
        "recording",
        help="data set: sample or eeglab; with --expect: a recording of yours, or a folder of them",
    )
    validate.add_argument(
        "--data",
        type=Path,
        help="folder of the data set: MNE-Python's sample data set, or EEGLAB's sample_data",
    )
    validate.add_argument(
        "--expect",
        type=Path,
        metavar="YAML",
        help="hemisphere, lobe or coordinates expected of your own recordings, "
        "see docs/evaluation.md",
    )
    validate.add_argument("--models", type=Path, nargs="+", default=[], help="exported .onnx files")
    validate.add_argument(
        "--methods",
        default="eloreta,sloreta,dspm,mne",
        help="linear inverses and baselines of evaluations to compare, comma-separated; all; "
        "'' for none (default: the four linear ones, which need no torch)",
    )
    validate.add_argument(
        "--trans",
        type=Path,
        help="-trans.fif from the head frame of the recording to the MRI of fsaverage or to MNI "
        "space; places the electrodes on the packaged head exactly",
    )
    validate.add_argument("--out", type=Path, required=True, help="folder to write to")
    validate.set_defaults(run=_validate)

    head = commands.add_parser("head", help="head models").add_subparsers(required=True)
    build = head.add_parser("build", help="build a head with OpenMEEG (minutes; can be resumed)")
    build.add_argument(
        "--warp-seed", type=int, help="an individual head: a smooth warp of the template"
    )
    build.add_argument(
        "--spacing",
        nargs="+",
        default=["ico3"],
        help="spacing of the sources: ico2, ico3, ico4 on the cortex, vol7, vol14 in the volume",
    )
    build.add_argument(
        "--free-orientation", action="store_true", help="three components per cortical source"
    )
    build.add_argument("--out", type=Path, help="folder to write to (default: the user's cache)")
    build.set_defaults(run=_head_build)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry of the console script; an expected error prints one line and exits with 1."""
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
