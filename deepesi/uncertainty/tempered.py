"""Temperature as an inverse model: the standard deviations of another, times one factor."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Estimate, InverseModel


class Tempered(InverseModel):
    """An inverse model whose standard deviations are all multiplied by one factor.

    Args:
        model: It must give a standard deviation.
        temperature: The factor, above 0.

    Raises:
        ValueError: The factor is not positive; the model gives no deviation (in `forward`).
        TypeError: `model` is no inverse model.

    Source: see `deepesi.calibration.recalibration.fit_temperature`.

    """

    temperature: Tensor

    def __init__(self, model: InverseModel, temperature: float = 1.0) -> None:
        super().__init__()
        if not isinstance(model, InverseModel):
            raise TypeError(f"Tempered: needs an inverse model, got {type(model).__name__}.")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"Tempered: temperature must be above 0, got {temperature}.")
        self.model = model
        self.head_inputs, self.bound_to_space = model.head_inputs, model.bound_to_space
        self.exportable = model.exportable
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """The model's mean, its deviation times the factor, its samples as far from the mean."""
        estimate = self.model(data, inputs)
        if estimate.std is None:
            raise ValueError(
                f"Tempered: {type(self.model).__name__} gives no standard deviation to multiply. "
                "Train it with model.heteroscedastic=true loss=uncertainty, or join an ensemble."
            )
        samples = estimate.samples
        if samples is not None:
            samples = estimate.mean + self.temperature * (samples - estimate.mean)
        return Estimate(estimate.mean, self.temperature * estimate.std, samples)
