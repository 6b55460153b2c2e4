"""``deepesi export``: a model to ONNX."""

import argparse
from pathlib import Path

from deepesi.cli.commands.arguments import Commands
from deepesi.utils.optional import require


def add_export(commands: Commands) -> None:
    """Add ``deepesi export``."""
    parser = commands.add_parser("export", help="checkpoint, run or baseline to ONNX")
    parser.add_argument(
        "model",
        help="checkpoint, run directory, or eloreta, sloreta, dspm, mne, bayesian_minimum_norm",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help=".onnx file to write; its card is .md"
    )
    parser.add_argument("--head", default="fsaverage-ico3", help="packaged head or .npz")
    parser.add_argument("--montage", default="biosemi64", help="montage to trace with")
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="precision of the weights (default float32), see docs/deployment.md",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    require("torch", "train", "export")
    from deepesi.cli.export import export_path

    written = export_path(
        arguments.model, arguments.out, arguments.head, arguments.montage, arguments.precision
    )
    print(f"wrote {written} and its card, {written.with_suffix('.md')}")
