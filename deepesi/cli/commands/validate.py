"""``deepesi validate``: methods on real recordings."""

import argparse
from pathlib import Path

from deepesi.cli.commands.arguments import Commands
from deepesi.utils.files import check_folder_out


def add_validate(commands: Commands) -> None:
    """Add ``deepesi validate``."""
    parser = commands.add_parser(
        "validate", help="methods on real recordings with roughly known sources"
    )
    parser.add_argument(
        "recording",
        help="data set: sample or eeglab; with --expect: a recording of yours, or a folder of them",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of the data set: MNE-Python's sample data set, or EEGLAB's sample_data",
    )
    parser.add_argument(
        "--expect",
        type=Path,
        metavar="YAML",
        help="hemisphere, lobe or coordinates expected of your own recordings, "
        "see docs/evaluation.md",
    )
    parser.add_argument("--models", type=Path, nargs="+", default=[], help="exported .onnx files")
    parser.add_argument(
        "--methods",
        default="eloreta,sloreta,dspm,mne",
        help="linear inverses and baselines of evaluations to compare, comma-separated; all; "
        "'' for none (default: the four linear ones, which need no torch)",
    )
    parser.add_argument(
        "--trans",
        type=Path,
        help="-trans.fif from the head frame of the recording to the MRI of fsaverage or to MNI "
        "space; places the sensors on the packaged head exactly",
    )
    parser.add_argument(
        "--picks",
        nargs="+",
        metavar="KIND",
        help="kinds of sensors of a data set: eeg, meg, mag, grad (default: eeg); of your own "
        "recordings: 'picks' in the file of expectations",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from deepesi.cli.opening import solver_method
    from deepesi.cli.validate import find_recordings, validate
    from deepesi.runtime.methods import find_methods

    check_folder_out(arguments.out)
    names = [name for name in arguments.methods.split(",") if name]
    methods = find_methods(names, arguments.models, solver_method)
    recordings = find_recordings(
        arguments.recording,
        arguments.data,
        arguments.expect,
        arguments.trans,
        arguments.picks,
    )
    for line in validate(recordings, methods, arguments.out):
        print(line)
