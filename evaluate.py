"""Any models side by side. Same as `deepesi evaluate`."""

import sys

from deepesi.cli.hydra_commands import run_hydra

if __name__ == "__main__":
    run_hydra("evaluate", sys.argv[1:])
