"""Importance weights of a structured posterior, for heads with a correct lead field."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.models.layers.conditional_patches import sum_of
from deepesi.models.layers.patch_sequence import NONE
from deepesi.models.layers.scalar_flow import log_normal
from deepesi.models.posterior.configuration import Configuration
from deepesi.models.posterior.structured import StructuredPosterior


class Refined(NamedTuple):
    """Draws of a structured posterior with weights that correct them."""

    configuration: Configuration
    weights: Float[Tensor, "N B"]  # sum 1 over the draws
    n_effective: Float[Tensor, " B"]  # effective number of draws, 1 / sum of squared weights

    def resampled(self, n: int, rng: torch.Generator) -> Configuration:
        """Draws of equal weight ``(n, B)``, drawn with replacement by the weights."""
        rows = torch.multinomial(self.weights.T, n, replacement=True, generator=rng).T

        def picked(values: Tensor) -> Tensor:
            index = rows.reshape(*rows.shape, *[1] * (values.ndim - 2))
            return values.gather(0, index.expand(-1, -1, *values.shape[2:]))

        return Configuration(*map(picked, self.configuration))


def refine(
    model: StructuredPosterior,
    data: Float[Tensor, "B C T"],
    inputs: dict[str, Tensor],
    n: int,
    seed: int = 0,
) -> Refined:
    """Draw, and weigh the draws by ``likelihood x prior / density of the model``.

    The skulls are drawn from the prior, since the density of the model is small at the ends of its
    range; the other variables are drawn from the model, given the skull.

    For heads whose nominal lead fields are correct except for the skull conductivity, such as a
    subject head. The posterior of the model is wider, since it was trained with wrong
    heads. Where the effective number of draws is small, the weights are not reliable.

    Args:
        model: A structured posterior; it is set to evaluation mode.
        data: Referenced data, `SensorArray.head_units`.
        inputs: Prepared head inputs.
        n: Number of draws.
        seed: Random seed of the draws.

    Raises:
        ValueError: Fewer than one draw, or no draw of a recording has its strongest patch first.

    """
    if n < 1:
        raise ValueError(f"refine: the number of draws must be 1 or more, got {n}.")
    model.eval()
    size = int(model.noise_size(data, inputs))
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn((n, len(data), size), generator=rng).to(data)
    share = 2 * torch.rand((n, len(data)), generator=rng).to(data) - 1
    with torch.no_grad():
        drawn = model.sample_configurations(data, inputs, noise, share * model.log_widest)
        _, *given_skull = model.log_densities(data, inputs, drawn).values()
        target = log_posterior(model, data, inputs, drawn)
        log_weights = target - sum_of(given_skull)
    if log_weights.isneginf().all(0).any():
        raise ValueError(
            f"refine: none of the {n} draws of a recording has its strongest patch first. Draw "
            "more (n)."
        )
    weights = torch.softmax(log_weights, dim=0)
    return Refined(drawn, weights, 1 / weights.square().sum(0))


def log_posterior(
    model: StructuredPosterior,
    data: Float[Tensor, "B C T"],
    inputs: dict[str, Tensor],
    configuration: Configuration,
) -> Float[Tensor, "N B"]:
    """Logarithm of likelihood times prior, up to a constant; moments in units of `SourceUnit`.

    The prior: numbers of patches from 1 to the largest, sites, radii, and the logarithm of the
    skull conductivity in the range of the model are equally likely; amplitudes are normal with the
    variance that the model assumes. As in the simulation the strongest patch is the first. So n
    patches in this order have n! times the density of n patches in any order, and another order has
    the density 0.
    """
    log_skull, patches, moments = configuration
    known = model._known(data, inputs)
    sequence = model._sequence(known, log_skull)
    _, scale = model._amplitudes(known, sequence, patches, inputs)
    amplitudes, there = moments.to(scale) / scale, patches != NONE
    rows = [sequence.topography(number) for number in patches.unbind(2)]
    seen = torch.stack(rows, dim=3) @ amplitudes
    likelihood = -0.5 * (known.recordings.white - seen).square().sum((2, 3))
    deviation = known.recordings.strength[:, None, None].sqrt()
    unit = inputs[model.unit.key].to(scale)
    prior = log_normal(amplitudes / deviation) - (deviation * scale / unit).log()
    n_patches = there.sum(2)
    of_sites = n_patches * math.log(inputs[model.moments.key].numel())
    ordered = torch.lgamma(n_patches + 1.0)
    log_prior = (prior.sum(3) * there).sum(2) + ordered - of_sites
    return (likelihood + log_prior).masked_fill(
        ~_strongest_first(model, inputs, configuration), -math.inf
    )


def _strongest_first(
    model: StructuredPosterior, inputs: dict[str, Tensor], configuration: Configuration
) -> Tensor:
    """Whether the patches are in the order of their strength ``(N, B)``."""
    typical = inputs[model.moments.key].flatten()[configuration.patches.clamp_min(0)]
    strength = (configuration.moments / typical[..., None]).square().sum(3)
    return (strength.diff(dim=2) <= 0).all(2)
