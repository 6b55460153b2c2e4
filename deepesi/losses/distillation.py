"""Distillation: learning from the estimates of another network instead of the target."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.losses.base import LossTerm
from deepesi.losses.supervised import CosineDistance


class Distillation(LossTerm):
    """Distance to the estimate of a teacher for the same recording.

    Teacher and student have the same data. The estimate of a good teacher is close to the
    posterior mean, which can be learned from the data; the simulated sources are one sample of
    the posterior.

    Args:
        teacher: Trained model. It is not trained further and not stored in checkpoints.
        term: Distance between estimates. Default: `deepesi.losses.supervised.CosineDistance`.

    Source: Hinton et al. 2015, arXiv:1503.02531. Difference: sources are compared, not class
    probabilities, so there is no temperature.

    """

    def __init__(self, teacher: InverseModel, term: LossTerm | None = None) -> None:
        super().__init__()
        self.term = term or CosineDistance()
        self._teacher = (teacher.eval(),)  # in a tuple, so that it is not a submodule
        self.head_inputs = tuple(dict.fromkeys((*teacher.head_inputs, *self.term.head_inputs)))

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """Distance per example. If the estimate of the teacher is zero, the target is used."""
        (teacher,) = self._teacher
        with torch.no_grad():
            taught = teacher.to(batch.data.device)(batch.data, batch.inputs).mean
        is_zero = taught.abs().amax((1, 2), keepdim=True) == 0
        return self.term(estimate, replace(batch, sources=taught.where(~is_zero, batch.sources)))
