"""Test-time adaptation on real responses with roughly known sources.

    python -m benchmarks.test_time_real --sample MNE-SAMPLE --eeglab EEGLAB --out real.csv

The folders are those of ``deepesi validate``. The head is adapted to samples of the whole
recording, those of the responses included: the averages of the sample subject, the trials of
EEGLAB's recording. Then every response is localized with the head, with the adapted head, and with
the correction whether or not it was kept ("unchecked"). Expected locations are only compared with.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.onnx_model import OnnxModel, load_onnx
from deepesi.physics.io.covariance import with_noise
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.methods import Exported
from deepesi.runtime.packaged import model_path
from deepesi.training.test_time import Adaptation, adapt
from deepesi.utils.rows import write_rows
from deepesi.validation.case import Case, CaseHead
from deepesi.validation.eeglab import eeglab_cases, read_targets
from deepesi.validation.run import evaluate, own_case_head, template_case_head
from deepesi.validation.sample import sample_cases
from deepesi.validation.statistics import failures

#: Samples of a recording that its head is adapted to.
N_SAMPLES = 256


def spread(recordings: Sequence[Float[np.ndarray, "C T"]], n: int = N_SAMPLES) -> Tensor:
    """Samples ``(n, C, 1)`` that are spread over recordings, in order."""
    data = np.concatenate(recordings, axis=1)
    chosen = np.linspace(0, data.shape[1] - 1, n).round().astype(int)
    return torch.as_tensor(data[:, chosen].T[:, :, None], dtype=torch.float32)


def of_averages(cases: Sequence[Case], names: Sequence[str]) -> Tensor:
    """Samples of averages, with the noise of single trials."""
    return spread([c.evoked.get_data(picks=list(names)) * np.sqrt(c.evoked.nave) for c in cases])


def adapted(model: OnnxModel, case: Case, at: CaseHead, samples: Tensor) -> Adaptation:
    """Adaptation of the head of a case to samples with the noise of single trials."""
    return adapt(model, with_noise(at.head, case.evoked.info, case.noise_cov), samples)


def study(
    model: OnnxModel, method: Exported, cases: Sequence[Case], folder: Path
) -> Iterator[dict[str, Any]]:
    """Rows of the responses of a recording, on the template and on the subject's own head."""
    for kind in ("template", "own"):
        if kind == "own" and cases[0].own is None:
            continue
        heads = [
            template_case_head(case, method.template())
            if kind == "template"
            else own_case_head(case, method.n_orient or 1)
            for case in cases
        ]
        names = heads[0].head.sensors.names
        if cases[0].recording == "eeglab":
            samples = spread(list(read_targets(folder).get_data(picks=list(names))))
        else:
            samples = of_averages(cases, names)
        adaptation = adapted(model, cases[0], heads[0], samples)
        for case, at in zip(cases, heads, strict=True):
            yield row(method, case, at, adaptation)


def row(method: Exported, case: Case, at: CaseHead, adaptation: Adaptation) -> dict[str, Any]:
    """Results of one response with and without adaptation."""
    before = evaluate(case, at, method).statistics
    unchecked = evaluate(case, with_leadfield_of(at, adaptation), method).statistics
    after = unchecked if adaptation.accepted else before
    found: dict[str, Any] = {"response": f"{case.condition}, {at.name} head"}
    for name, statistics in (("", before), ("adapted_", after), ("unchecked_", unchecked)):
        found |= {
            f"{name}distance_mm": f"{statistics['peak_distance']:.1f}",
            f"{name}success": int(not failures(statistics)),
            f"{name}target_in_set": int(statistics["target_in_set"]),
        }
    found |= {
        "kept": adaptation.accepted,
        "unexplained_before": f"{adaptation.residual[0]:.3f}",
        "unexplained_after": f"{adaptation.residual[1]:.3f}",
        "seconds": f"{adaptation.seconds:.1f}",
    }
    print(*found.values(), flush=True)
    return found


def with_leadfield_of(at: CaseHead, adaptation: Adaptation) -> CaseHead:
    """The head of a case with the corrected lead field, kept or not."""
    return replace(at, head=replace(at.head, leadfield=adaptation.unchecked.leadfield))


def main(words: Sequence[str] | None = None) -> None:
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="a packaged file")
    parser.add_argument("--sample", type=Path, help="folder of 'deepesi validate sample'")
    parser.add_argument("--eeglab", type=Path, help="folder of 'deepesi validate eeglab'")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(words)
    known = ((options.sample, sample_cases), (options.eeglab, eeglab_cases))
    given = [(folder, read) for folder, read in known if folder is not None]
    if not given:
        parser.error("give --sample, --eeglab or both: the folders of 'deepesi validate'.")
    path = model_path(options.model)
    model, method = load_onnx(path), Exported(options.model, Inverse.load(path), path)
    rows = [found for folder, read in given for found in study(model, method, read(folder), folder)]
    write_rows(options.out, list(rows[0]), (found.values() for found in rows))


if __name__ == "__main__":
    main()
