"""Inverse model with the true lead field of each example, which no analyst has."""

from dataclasses import replace

import torch

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Estimate, InverseModel, Oracle, as_tensors
from deepesi.physics.head_inputs import prepare


class WithTrueLeadField(Oracle):
    """Any inverse model with the true lead field, prepared for each example.

    The difference to the same model with the nominal lead field is the effect of head mismatch.

    Args:
        model: Inverse model.

    """

    def __init__(self, model: InverseModel) -> None:
        super().__init__()
        self.model, self.head_inputs = model, model.head_inputs

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model, with the true lead field."""
        return self.model.assumptions._replace(skull="true lead field")

    def forward(self, batch: Batch) -> Estimate:
        """Prepare and invert each example separately."""
        estimates = []
        for number in range(len(batch.data)):
            one = slice(number, number + 1)
            true_leadfield = replace(
                batch.true_leadfield,
                coefficients=batch.true_leadfield.coefficients[one],
                patterns=batch.true_leadfield.patterns[one],
            )
            leadfield = true_leadfield.matrices()[0].double().cpu().numpy()
            sensors = batch.head.sensors  # the reference is inexact in float32
            head = replace(batch.head, leadfield=sensors.reference(leadfield))
            inputs = as_tensors(prepare(self.head_inputs, head), batch.data.device)
            estimates.append(self.model(batch.data[one], inputs))
        means = torch.cat([e.mean for e in estimates])
        stds = [e.std for e in estimates if e.std is not None]
        return Estimate(means, torch.cat(stds) if stds else None)
