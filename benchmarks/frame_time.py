"""Time of one frame of a stream at 64 channels on one core: ``python -m benchmarks.frame_time``.

Every frame is one sample through `PreparedInverse.estimate`, as in ``deepesi stream``; all files in
turns. It is the time of the processor, which other programs on the machine hardly change; on an
idle machine it is also the time on the clock. `untrained:NAME` is the network of ``model=NAME``,
exported here: trained weights have the same cost. `NAME:own` is a packaged file on the cortex of
the recorded person.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.cli.loading import UNTRAINED, load_untrained
from deepesi.export.to_onnx import export_onnx
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.utils.rows import write_rows

MONTAGE, AIM_MS = "biosemi64", 20.0
#: After the name of a file: on the cortex of the recorded person.
OWN = ":own"
#: The classical method that all are compared with.
REFERENCE = "eLORETA"
NETWORKS = (
    "unrolled_ista",
    "gnn",
    "piunet",
    "unrolled_champagne",
    "transformer",
    "matched_filter",
)
COLUMNS = ("file", "median, ms", "99 %, ms", f"over {REFERENCE}", f"99 % within {AIM_MS:g} ms")


def prepared(name: str, folder: Path) -> PreparedInverse:
    """A packaged file, or a network that is exported first, for one recording set-up."""
    template = load_template("fsaverage-ico3")
    path: str | Path = name.removesuffix(OWN)
    if name == REFERENCE or name.startswith(UNTRAINED):
        path = folder / f"{name.removeprefix(UNTRAINED)}.onnx"
        network = name.removeprefix(UNTRAINED)
        model = MinimumNorm(name) if name == REFERENCE else load_untrained(network, template)
        export_onnx(model, template.montage_head("biosemi16"), path)
    inverse = Inverse.load(path, n_threads=1)
    head = replace(inverse.template.montage_head(MONTAGE), own_normals=name.endswith(OWN))
    return inverse.prepare_for(head, 1.0, "template")


def times_ms(models: Sequence[PreparedInverse], n_frames: int) -> np.ndarray:
    """Processor time of every frame ``(models, frames)``, after ten frames that do not count."""
    rng = np.random.default_rng(0)
    found = np.zeros((len(models), n_frames + 10))
    for frame in range(found.shape[1]):
        data = 1e-5 * rng.standard_normal((len(models[0].ch_names), 1))
        for row, model in zip(found, models, strict=True):
            before = time.process_time()
            model.estimate(data, 1)
            row[frame] = 1e3 * (time.process_time() - before)
    return found[:, 10:]


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    networks = [UNTRAINED + name for name in NETWORKS]
    usual = [REFERENCE, "convdip", *networks, "default", f"default{OWN}", "ensemble"]
    kinds = "files, NAME:own, untrained:NAME"
    parser.add_argument("--models", nargs="*", default=usual, help=kinds)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("frame_time.csv"))
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        models = [prepared(name, Path(folder)) for name in options.models]
    median, tail = np.quantile(times_ms(models, options.frames), (0.5, 0.99), axis=1)
    base = median[options.models.index(REFERENCE)] if REFERENCE in options.models else np.nan
    rows = [
        (name, f"{m:.2g}", f"{t:.2g}", f"{m / base:.2g}", "yes" if t <= AIM_MS else "no")
        for name, m, t in zip(options.models, median, tail, strict=True)
    ]
    for row in rows:
        print(*row, sep="  ")
    write_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
