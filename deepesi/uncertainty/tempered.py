"""Temperature scaling: standard deviations, and samples about their mean, times one factor."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Estimate, InverseModel, PosteriorModel


class Tempered(InverseModel):
    """Inverse model whose standard deviations are multiplied by one factor.

    Args:
        model: Inverse model that gives a standard deviation.
        temperature: Factor, above 0 (no unit).

    Raises:
        ValueError: The factor is not positive, or the model gives no standard deviation (in
            `forward`).
        TypeError: `model` is not an inverse model.

    Source: as in `deepesi.calibration.recalibration.fit_temperature`.

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
        self.exportable, self.window_needs = model.exportable, model.window_needs
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Scale the std and the distance of samples from the mean by the factor."""
        return self._scaled(self.model(data, inputs))

    def _scaled(self, estimate: Estimate) -> Estimate:
        if estimate.std is None:
            raise ValueError(
                f"Tempered: {type(self.model).__name__} gives no standard deviation. Train it with "
                "model.heteroscedastic=true loss=uncertainty, or use an ensemble."
            )
        samples = estimate.samples
        if samples is not None:
            samples = estimate.mean + self.temperature * (samples - estimate.mean)
        return estimate._replace(std=self.temperature * estimate.std, samples=samples)


class TemperedPosterior(Tempered, PosteriorModel):
    """Posterior model whose distances of samples from their mean are multiplied by one factor.

    So mean, standard deviation and samples describe the same distribution after calibration; its
    shape stays.

    Args:
        model: Posterior model.
        temperature: Factor, above 0 (no unit).

    Raises:
        ValueError: As in `Tempered`.
        TypeError: `model` is not a posterior model.

    """

    model: PosteriorModel

    def __init__(self, model: PosteriorModel, temperature: float = 1.0) -> None:
        super().__init__(model, temperature)
        if not isinstance(model, PosteriorModel):
            raise TypeError(
                f"TemperedPosterior: needs a posterior model, got {type(model).__name__}."
            )
        self.noise_axes, self.n_draws = model.noise_axes, model.n_draws

    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """Samples of the model, moved away from its mean by the factor."""
        samples = self.with_samples(data, inputs, noise).samples
        assert samples is not None
        return samples

    def with_samples(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Estimate:
        """The estimate of `forward`, with the samples of this noise."""
        return self._scaled(self.model.with_samples(data, inputs, noise))


def tempered(model: InverseModel, temperature: float) -> Tempered:
    """A model with its uncertainty scaled by one factor; a posterior model keeps its samples."""
    if isinstance(model, PosteriorModel):
        return TemperedPosterior(model, temperature)
    return Tempered(model, temperature)
