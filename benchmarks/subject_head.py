"""Localization error with the sample subject's own boundary elements as the true head.

``python -m benchmarks.subject_head --data FOLDER`` simulates patches of her cortex, one at a time,
rendered through her forward solution, with the noise of her recording and her electrodes. All
methods have the template, and her electrodes placed on it as ``deepesi apply`` places them. An
error is the distance in MNI space, so it includes the error of her transform to MNI. The CSV has
the columns of ``benchmark.csv``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.tuned import Tuned
from deepesi.cli.loading import load_baselines, load_named
from deepesi.composition import compose
from deepesi.core.contracts import InverseModel, Oracle, as_tensors
from deepesi.core.quantities import magnitude
from deepesi.evaluation.benchmark import Row, write_csv
from deepesi.evaluation.intervals import bootstrap_interval
from deepesi.evaluation.parallel import one_thread
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import prepare
from deepesi.physics.head_inputs.patches import patch_profiles
from deepesi.physics.noise import spanned_eigh
from deepesi.physics.template import load_template
from deepesi.validation.run import own_case_head, template_case_head
from deepesi.validation.sample import sample_cases

Array = NDArray[np.float64]

SNR_DB = (0.0, 5.0, 10.0, 20.0)
#: Radii of the patches, m.
RADII = np.linspace(0.010, 0.025, 4)
SEED = 2044


def recordings(head: HeadModel, n: int) -> tuple[NDArray[np.int64], Array, Array]:
    """Sources ``(n,)``, their potentials ``(n, C)`` and noise ``(n, C)``, both of power 1."""
    rng = np.random.default_rng(SEED)
    sources = rng.choice(head.space.n_sources, n, replace=False)
    by_radius = [patch_profiles(head, radius) for radius in RADII]
    which = rng.integers(len(RADII), size=n)
    profiles = np.stack(
        [by_radius[k][[s]].toarray()[0] for k, s in zip(which, sources, strict=True)]
    )
    clean = profiles @ head.leadfield.T
    values, vectors = spanned_eigh(head.noise_cov)
    noise = (rng.standard_normal((n, len(values))) * np.sqrt(values)) @ vectors.T
    power = np.linalg.norm(clean, axis=1, keepdims=True)
    return sources, clean / power, noise / np.sqrt(values.sum())


def peaks(model: InverseModel, head: HeadModel, data: Array) -> NDArray[np.int64]:
    """Strongest source of every recording ``(n, C)``, V."""
    inputs = as_tensors(prepare(model.head_inputs, head))
    recordings = torch.as_tensor(data, dtype=torch.float32)[:, :, None]
    with torch.no_grad():
        parts = [model.eval()(part, inputs).mean for part in recordings.split(20)]
    return magnitude(torch.cat(parts), head.space.n_orient).argmax(1).numpy()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="as for 'deepesi validate sample'")
    parser.add_argument("--examples", type=int, default=240)
    parser.add_argument("--models", nargs="*", default=["default", "ensemble", "convdip"])
    parser.add_argument("--baselines", default="dipole_scan,dipole_scan_fixed,eloreta")
    parser.add_argument(
        "--eloreta-snr-db",
        type=float,
        nargs="*",
        default=[-25.0],
        help="constants of eLORETA, chosen on other recordings (tuned: -25 on strangers)",
    )
    parser.add_argument("--out", type=Path, default=Path("subject_head.csv"))
    arguments = parser.parse_args()
    case = sample_cases(arguments.data)[0]
    template = load_template("fsaverage-ico3-free")
    true, nominal = own_case_head(case), template_case_head(case, template)
    own = true.head.pick(nominal.head.sensors.names)
    sources, clean, noise = recordings(own, arguments.examples)
    models: dict[str, InverseModel] = dict(load_named(arguments.models, template, "subject")[0])
    for constant in arguments.eloreta_snr_db:
        models[f"eLORETA ({constant:g} dB)"] = MinimumNorm("eLORETA", "constant", constant)
    config = compose("evaluate", [f"baselines=[{arguments.baselines}]"])
    for name, method in load_baselines(config).items():
        if isinstance(method, Tuned | Oracle):
            parser.error(f"{name} is tuned or uses the target: take another method.")
        models[name] = method
    level = np.sqrt(np.trace(own.noise_cov))
    written = list[Row]()
    with one_thread():
        for name, model in models.items():
            for snr_db in SNR_DB:
                data = level * (10 ** (snr_db / 20) * clean + noise)
                found = nominal.mni[peaks(model, nominal.head, data)]
                errors = np.linalg.norm(found - true.mni[sources], axis=1)
                low, high = bootstrap_interval(errors[:, None])[:, 0].tolist()
                row = Row(
                    method=name,
                    scenario="subject_head",
                    snr_db=snr_db,
                    n_sources="1",
                    metric="localization_error",
                    value=float(errors.mean()),
                    ci_low=low,
                    ci_high=high,
                    median=float(np.median(errors)),
                    n=len(errors),
                    axis="true head",
                    level="sample subject",
                )
                written.append(row)
                print(f"{snr_db:3g} dB  {row.value:5.1f} [{low:.1f}, {high:.1f}] mm  {name}")
            write_csv(written, arguments.out)


if __name__ == "__main__":
    main()
