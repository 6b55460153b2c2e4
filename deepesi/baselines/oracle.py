"""What no analyst has: an inverse model that is given each example's own lead field."""

from dataclasses import replace

import torch

from deepesi.core.contracts import Assumptions, Batch, Estimate, InverseModel, Oracle, as_tensors
from deepesi.physics.head_inputs import prepare


class WithTrueLeadField(Oracle):
    """Any inverse model on the lead field that really rendered an example, prepared one by one.

    The distance between a model and itself knowing the truth is the price of head mismatch.

    Args:
        model: The inverse model.

    """

    def __init__(self, model: InverseModel) -> None:
        super().__init__()
        self.model, self.head_inputs = model, model.head_inputs

    @property
    def assumptions(self) -> Assumptions:
        """As the model, but for the lead field."""
        return self.model.assumptions._replace(skull="true lead field")

    def forward(self, batch: Batch) -> Estimate:
        """Prepare and invert every example on its own."""
        unit = torch.eye(batch.true_leadfield.source_modes.shape[0], device=batch.data.device)[None]
        estimates = []
        for number in range(len(batch.data)):
            one = slice(number, number + 1)
            truth = replace(
                batch.true_leadfield,
                coefficients=batch.true_leadfield.coefficients[one],
                patterns=batch.true_leadfield.patterns[one],
            )
            leadfield = truth.project(unit)[0].double().cpu().numpy()
            sensors = batch.head.sensors  # float32 leaves their reference inexact
            head = replace(batch.head, leadfield=sensors.reference(leadfield))
            inputs = as_tensors(prepare(self.head_inputs, head), batch.data.device)
            estimates.append(self.model(batch.data[one], inputs))
        means = torch.cat([e.mean for e in estimates])
        stds = [e.std for e in estimates if e.std is not None]
        return Estimate(means, torch.cat(stds) if stds else None)
