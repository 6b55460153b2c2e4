"""Baselines of evaluations as methods for real recordings; needs torch."""

from dataclasses import dataclass

import hydra
import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.contracts import InverseModel, as_tensors
from deepesi.export.windows import overlap_add, windows_of
from deepesi.physics.head import HeadModel, average_reference
from deepesi.physics.head_inputs import prepare
from deepesi.physics.template import Template, load_template
from deepesi.validation.methods import SAMPLES, Estimator

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solved:
    """A `deepesi.validation.methods.Method`: an inverse model on windows of `SAMPLES`.

    Attributes:
        name: Shown in tables.
        model: Follows any source space.

    """

    name: str
    model: InverseModel
    bound_to: None = None

    def template(self) -> Template:
        """fsaverage, ico-3."""
        return load_template()

    def estimator(self, head: HeadModel, nave: int) -> Estimator:
        """See `Method`; the covariance of the head is that of the average already."""
        inputs = as_tensors(prepare(self.model.head_inputs, head))

        def run(batch: Array) -> list[Array]:
            eeg = torch.as_tensor(batch, dtype=torch.float32)
            with torch.inference_mode():
                return [self.model(eeg, inputs).mean.double().numpy()]

        def estimate(eeg: Array) -> Array:
            n_times = eeg.shape[1]
            windows = windows_of(n_times, SAMPLES, 0, n_times)
            return overlap_add(run, average_reference(eeg), windows)[0]

        return estimate


def load_solver(name: str) -> Solved:
    """One of `deepesi.validation.methods.solver_names`."""
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose("evaluate", [f"baselines=[{name}]"])
    ((title, model),) = hydra.utils.instantiate(config.baselines, _convert_="all").items()
    return Solved(str(title), model)
