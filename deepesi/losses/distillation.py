"""Learning from another network's estimates in place of the truth."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Batch, Estimate, InverseModel
from deepesi.losses.base import LossTerm
from deepesi.losses.supervised import CosineDistance


class Distillation(LossTerm):
    """Distance to what a teacher makes of the same recording, in place of the true sources.

    What the recording does not tell is the same for both, so a student is asked for what can be
    known: a good teacher's estimate is close to the posterior mean, where the truth is one draw.

    Args:
        teacher: Stays as it is; neither learns nor travels in checkpoints.
        term: The distance, by default `deepesi.losses.supervised.CosineDistance`.

    Source: Hinton et al. 2015, arXiv:1503.02531. Ours deviates: what is matched are sources, not
    class probabilities, so there is no temperature.

    """

    def __init__(self, teacher: InverseModel, term: LossTerm | None = None) -> None:
        super().__init__()
        self.term = term or CosineDistance()
        self._teacher = (teacher.eval(),)  # a tuple: no part of this module's weights
        self.head_inputs = tuple(dict.fromkeys((*teacher.head_inputs, *self.term.head_inputs)))

    def forward(self, estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
        """See the class; the truth stands in where the teacher says nothing at all."""
        (teacher,) = self._teacher
        with torch.no_grad():
            said = teacher.to(batch.data.device)(batch.data, batch.inputs).mean
        silent = said.abs().amax((1, 2), keepdim=True) == 0
        return self.term(estimate, replace(batch, sources=said.where(~silent, batch.sources)))
