"""``deepesi head``: build head models."""

import argparse
from pathlib import Path

from deepesi.cli.commands.arguments import Commands
from deepesi.utils.files import check_folder_out


def add_head(commands: Commands) -> None:
    """Add ``deepesi head``."""
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
    build.add_argument(
        "--magnetic",
        action="store_true",
        help="only the magnetic fields of a head that is packaged or built, for MEG (MNE-Python)",
    )
    build.add_argument("--out", type=Path, help="folder to write to (default: the user's cache)")
    build.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from deepesi.physics.building.build import build_members
    from deepesi.physics.building.magnetic import build_magnetic

    if arguments.out is not None:
        check_folder_out(arguments.out)
    if arguments.magnetic:
        for path in build_magnetic(arguments.warp_seed, arguments.spacing, arguments.out):
            print(f"wrote {path}")
        return
    for path, fingerprint in build_members(
        arguments.warp_seed, arguments.spacing, arguments.free_orientation, arguments.out
    ):
        print(f"wrote {path}, fingerprint {fingerprint}")
