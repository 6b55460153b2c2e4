"""Evidential regression: a network gives the mean, the noise and the uncertainty of the mean."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Estimate, InverseModel, Objective
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.layers.source_denoiser import SourceDenoiser
from deepesi.models.layers.unit_sources import Setting, UnitSources

#: Least variance of a source, power of the recording 1: exact zeros have a finite likelihood.
FLOOR = 1e-6
#: Range of logarithms of parameters.
LARGEST = 10.0


class NormalInverseGamma(NamedTuple):
    """Distribution of mean and variance of the moments of every source; no unit."""

    mean: Float[Tensor, "B S T"]
    n_samples: Float[Tensor, "B S 1"]  # that the mean counts for
    shape: Float[Tensor, "B S 1"]  # of the variance, above 1
    scale: Float[Tensor, "B S 1"]  # of the variance

    def aleatoric(self) -> Float[Tensor, "B S 1"]:
        """Expected variance of a moment."""
        return self.scale / (self.shape - 1)

    def epistemic(self) -> Float[Tensor, "B S 1"]:
        """Variance of the mean."""
        return self.aleatoric() / self.n_samples

    def log_likelihood(self, values: Float[Tensor, "B S T"]) -> Float[Tensor, "B S T"]:
        """Logarithm of the density of values: Student's distribution of ``2 shape`` degrees."""
        width = (self.scale * (1 + self.n_samples) / (self.n_samples * self.shape)).sqrt()
        return torch.distributions.StudentT(
            2 * self.shape, self.mean, width, validate_args=False
        ).log_prob(values)


class Parts(NamedTuple):
    """Mean and both kinds of uncertainty, A m."""

    mean: Float[Tensor, "B D T"]
    aleatoric: Float[Tensor, "B D T"]  # standard deviation of the moments
    epistemic: Float[Tensor, "B D T"]  # standard deviation of their mean


class Evidential(InverseModel):
    """Mean, and a normal-inverse-gamma distribution around it, in one pass.

    The mean is that of `SourceDenoiser` without noisy sources: a Gaussian update through the
    nominal lead field with variances of a network. The same network gives the three other
    parameters of every source; all samples of a window share them. The loss is the squared error of
    the mean, the negative log-likelihood of the simulated moments around it, and their absolute
    error times the evidence (``2 n_samples + shape``), which lowers it where the mean is wrong.

    The likelihood alone does not determine which part is epistemic (Meinert et al. 2023,
    arXiv:2205.10060); the second term does. Trust the sum, and the epistemic part as a ranking.

    The objective (``loss``) only serves validation. On a head of free orientation sources point
    along the normals.

    Args:
        hidden: Width of the network.
        n_messages: Rounds of messages on the mesh.
        n_conjugate: Conjugate-gradient steps per update.
        penalty: Weight of the absolute error times the evidence, not negative.

    Raises:
        ValueError: A size is not positive, or the penalty is negative.

    Source: Amini et al. 2020, arXiv:1910.02600. Difference: the mean is a Gaussian update; the
    likelihood does not train it, because it is largest at a mean of zero where nearly all moments
    are zero; a floor of the scale bounds the likelihood of zeros.

    """

    bound_to_space = False

    def __init__(
        self,
        hidden: int = 24,
        n_messages: int = 2,
        n_conjugate: int = 8,
        penalty: float = 0.01,
    ) -> None:
        super().__init__()
        check_sizes("Evidential", hidden=hidden, n_messages=n_messages, n_conjugate=n_conjugate)
        if penalty < 0:
            raise ValueError(f"Evidential: penalty must be 0 or more, got {penalty}.")
        self.penalty = penalty
        self.units = UnitSources()
        self.head_inputs = self.units.head_inputs
        self.denoiser = SourceDenoiser(1.0, hidden, n_messages, n_conjugate, n_further=3)

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model before training."""
        return Assumptions("any", "any", "covariance and level", "nominal")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean, and the standard deviation of both parts together."""
        mean, aleatoric, epistemic = self.parts(data, inputs)
        return Estimate(mean, (aleatoric.square() + epistemic.square()).sqrt())

    def parts(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Parts:
        """Mean and both kinds of uncertainty."""
        setting, unit = self.units(data, inputs)
        found = self._distribution(setting)

        def deviation(variance: Tensor) -> Tensor:
            spread = (variance.sqrt() * unit).expand_as(found.mean)
            return self.units.on_dipoles(spread, inputs).abs()

        mean = self.units.on_dipoles(found.mean * unit, inputs)
        return Parts(mean, deviation(found.aleatoric()), deviation(found.epistemic()))

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Squared error, negative log-likelihood per source and sample, and the penalty."""
        setting, unit = self.units(batch.data, batch.inputs)
        target = self.units.along_normals(batch.sources, batch.inputs) / unit
        found = self._distribution(setting)
        error = target - found.mean
        around = found._replace(mean=found.mean.detach())
        terms = {
            "squares": error.square().sum(1).mean(),
            "likelihood": -around.log_likelihood(target).mean(),
            "penalty": self.penalty
            * (error.detach().abs() * (2 * found.n_samples + found.shape)).mean(),
        }
        loss = torch.stack(list(terms.values())).sum()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def _distribution(self, setting: Setting) -> NormalInverseGamma:
        nothing = torch.zeros_like(setting.data @ setting.topographies.T).to(setting.data)
        start = torch.zeros_like(setting.noise)
        mean, further = self.denoiser.with_further(nothing, start, setting)
        count, shape, scale = (3 * value[..., None] for value in further)
        return NormalInverseGamma(
            mean.mT,
            count.clamp(-LARGEST, LARGEST).exp(),
            2 + functional.softplus(shape),
            FLOOR + setting.equal_variance() * scale.clamp(-LARGEST, LARGEST).exp(),
        )
