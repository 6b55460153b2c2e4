"""Train, compare, export: the main job. Same as `deepesi train`."""

import sys

from deepesi.cli.hydra_commands import run_hydra

if __name__ == "__main__":
    run_hydra("train", sys.argv[1:])
