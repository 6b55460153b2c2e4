"""Missing electrodes predicted by splines, by eLORETA and by networks, of the same recordings.

    python -m benchmarks.missing_channels FILES... [--models RUN ...] [--out CSV]

Splines are those of MNE-Python. eLORETA and networks use the head of the other electrodes; their
lead field projects the estimate onto the missing ones. "+ eLORETA": it estimates the residual of
the network. Windows are those for validation, which `experiment=pretrain` does not train on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.physics.template import load_template
from deepesi.training.missing_channels import SHARES, Predictor, compare
from deepesi.training.real import RealRecordings
from deepesi.training.weights import load_network
from deepesi.utils.rows import write_rows


def main(words: Sequence[str] | None = None) -> None:
    """Compare, print the means with their standard errors, and write every value."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--models", nargs="*", default=[], help="runs, model/ folders, checkpoints")
    parser.add_argument("--n-times", type=int, default=20)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--head", default="fsaverage-ico3")
    parser.add_argument("--montage", default=None)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(words)
    template = load_template(options.head)
    eloreta = MinimumNorm("eLORETA")
    networks = {path: load_network(path, template.space)[0] for path in options.models}
    models: dict[str, Predictor] = {"eLORETA": (eloreta, None)}
    models |= {path: (network, None) for path, network in networks.items()}
    models |= {f"{path} + eLORETA": (network, eloreta) for path, network in networks.items()}
    recordings = RealRecordings(
        options.files,
        template,
        batch_size=64,
        n_times=options.n_times,
        split="validation",
        montage=options.montage,
    )
    rows = compare(recordings, models, options.batches)
    for name in ("splines", *models):
        for share in SHARES:
            own = [r for r in rows if (r["method"], r["missing"]) == (name, share)]
            values = np.array([r["unexplained"] for r in own], dtype=float)
            error = values.std() / np.sqrt(len(values))
            print(f"{name:40s} {share:4.0%} missing: {values.mean():.3f} +- {error:.3f}")
    if options.out is not None:
        write_rows(options.out, list(rows[0]), (row.values() for row in rows))


if __name__ == "__main__":
    main()
