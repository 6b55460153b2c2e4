"""Test-time adaptation on held-out heads with its bounds, and the coverage of prediction sets.

    python -m benchmarks.test_time --split validation --strengths .1 .3 1 3 --out validation.csv
    python -m benchmarks.test_time --split validation --samples-per-source 8 --out validation.csv
    python -m benchmarks.test_time --split test --strengths 1 --out test.csv

Every recording set-up is one person: a warped head, known tissues, one cap. The packaged network
inverts the same recordings with the person's own head, with the template, with both after
`deepesi.training.test_time.adapt`, and with the best correction of that form. "Unchecked" keeps the
correction always. The samples adapted to are others than the scored ones. With several samples per
source, neighbours have the same source; "turns" is the control whose halves have the same sources,
because every second sample belongs to the first. Choose the strength on the validation heads.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi import SimulatedRecordings
from deepesi.core.batch import Batch
from deepesi.core.contracts import as_tensors
from deepesi.core.onnx_model import OnnxModel, load_onnx
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.evaluation.observation import observe
from deepesi.evaluation.scores import metric_values
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import Whitener, prepare
from deepesi.physics.template import Template, load_oriented
from deepesi.runtime.packaged import model_path
from deepesi.runtime.prediction_sets import sets_of
from deepesi.training.test_time import adapt, corrected, fit_correction
from deepesi.utils.rows import write_rows

#: Warp seeds of the packaged heads of a split.
HEADS = {"validation": (8, 18, 28), "test": (9, 19, 29)}
#: Nominal conductivities and no spread: the error of the head is its anatomy alone.
NOMINAL = TissueRanges((0.006, 0.006), (0.006, 0.006), (0.4, 0.4), (0.4, 0.4))


def template_for(model: OnnxModel, name: str) -> Template:
    """A packaged head with the orientation of the sources that a file needs."""
    return load_oriented(name, model.opened.contract.n_orient)


def recordings(
    model: OnnxModel,
    head: Template,
    own: bool,
    snr_db: float,
    n: int,
    split: str,
    n_times: int = 1,
    seed: int = 0,
) -> Batch:
    """Recordings of one person, with the person's own head or the template as the nominal one."""
    return SimulatedRecordings(
        head,
        PatchSources(n_sources=(1, 1)),
        SetupRanges(montages=["biosemi64"], own_anatomy=own, displacement=0.0),
        model.head_inputs,
        nominal_head=template_for(model, "fsaverage-ico3"),
        tissues=NOMINAL,
        snr_db=(snr_db, snr_db),
        batch_size=n,
        n_times=n_times,
        seed=seed,
        split=split,
    ).batch(0)


class Scores(NamedTuple):
    """Localization error (mm) of single recordings, and whether the prediction set covers."""

    errors: NDArray[np.float64]
    covered: NDArray[np.bool_]


def scored(model: OnnxModel, batch: Batch) -> Scores:
    """Scores of the recordings of a batch."""
    calibration = model.opened.contract.calibration
    if calibration is None:
        raise ValueError(f"test_time: {model.path} is not calibrated. Take a packaged file.")
    observed = observe(
        {"model": model}, lambda _: iter([(batch, len(batch.data))]), [0.0], calibration.covers
    )["model"]
    covered = observed.target_scores <= sets_of(calibration).of(observed.estimated_db)
    return Scores(metric_values(model, batch), covered)


def study(
    model: OnnxModel,
    seed: int,
    split: str,
    snr_db: float,
    n: int,
    strengths: Sequence[float],
    length: int = 1,
) -> list[dict[str, Any]]:
    """Rows of one head at one SNR: the head, the template, and every strength.

    `n` samples are adapted to, `length` of every source, and as many recordings are scored.
    """
    head = template_for(model, f"warp{seed}-ico3")
    about = {"head": f"warp{seed}", "snr_db": snr_db, "n_windows": n}
    true, batch = (recordings(model, head, own, snr_db, n, split) for own in (True, False))
    own, template = scored(model, true), scored(model, batch)
    rows = [row(about, "own head", own, template), row(about, "template", template, template)]
    best = scored(model, with_leadfield(model, batch, best_corrected(batch.head, true.head)))
    rows.append(row(about, "best correction", best, template))
    for nominal, scored_batch, before in (("template", batch, template), ("own head", true, own)):
        is_own = nominal == "own head"
        windows = recordings(model, head, is_own, snr_db, n // length, split, length, seed=1)
        samples = windows.data.transpose(1, 2).flatten(0, 1)[:, :, None]
        orders = {"adapted": samples}
        if length > 1:
            orders["turns"] = torch.cat([samples[::2], samples[1::2]])
        for strength in strengths:
            for name, ordered in orders.items():
                adaptation = adapt(model, windows.head, ordered, strength)
                changed = with_leadfield(model, scored_batch, adaptation.unchecked)
                unchecked = scored(model, changed)
                after = unchecked if adaptation.accepted else before
                title = f"{nominal}, {name}, strength {strength:g}"
                rows.append(row(about, title, after, before))
                rows[-1] |= {"kept": adaptation.accepted, "seconds": f"{adaptation.seconds:.1f}"}
                title = f"{nominal}, {name} unchecked, strength {strength:g}"
                rows.append(row(about, title, unchecked, before))
    return rows


def with_leadfield(model: OnnxModel, batch: Batch, head: HeadModel) -> Batch:
    """The same recordings under the lead field of another nominal head."""
    nominal = replace(batch.head, leadfield=head.leadfield)
    return replace(batch, head=nominal, inputs=as_tensors(prepare(model.head_inputs, nominal)))


def best_corrected(head: HeadModel, true: HeadModel) -> HeadModel:
    """The head with the correction that brings its lead field nearest to the true one.

    Nearest by least squares. It uses the person's head.
    """
    whitener = Whitener().compute(head)
    correction = fit_correction(whitener @ true.leadfield, whitener @ head.leadfield, 1e-6)
    return corrected(head, correction)


def row(about: dict[str, Any], head: str, scores: Scores, before: Scores) -> dict[str, Any]:
    """Means of one head, and the paired difference to another with its standard error."""
    change = scores.errors - before.errors
    found = about | {
        "nominal_head": head,
        "error_mm": round(scores.errors.mean(), 2),
        "change_mm": round(change.mean(), 2),
        "change_standard_error": round(change.std(ddof=1) / np.sqrt(len(change)), 2),
        "coverage": round(scores.covered.mean(), 3),
        "kept": "",
        "seconds": "",
    }
    print(*found.values(), flush=True)
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="a packaged file")
    parser.add_argument("--split", choices=list(HEADS), required=True)
    parser.add_argument("--strengths", nargs="+", type=float, default=[1.0])
    parser.add_argument("--snr", nargs="+", type=float, default=[5.0, 15.0], help="dB")
    parser.add_argument("--windows", type=int, default=256, help="to adapt to, and to score")
    parser.add_argument("--samples-per-source", type=int, default=1, help="to adapt to")
    parser.add_argument("--heads", type=int, default=3, help="number of heads of the split")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(words)
    model = load_onnx(model_path(options.model))
    rows = [
        found
        for seed in HEADS[options.split][: options.heads]
        for snr_db in options.snr
        for found in study(
            model,
            seed,
            options.split,
            snr_db,
            options.windows,
            options.strengths,
            options.samples_per_source,
        )
    ]
    write_rows(options.out, list(rows[0]), (found.values() for found in rows))


if __name__ == "__main__":
    main()
