"""Conditional normalizing flow of one number, as in neural posterior estimation."""

import math

from jaxtyping import Float
from torch import Tensor, nn
from zuko.flows.gaussianization import ElementWiseTransform
from zuko.lazy import LazyComposedTransform
from zuko.transforms import MonotonicRQSTransform


def log_normal(values: Tensor) -> Tensor:
    """Logarithm of the standard normal density, at every element."""
    return -0.5 * (values.square() + math.log(2 * math.pi))


class ScalarFlow(nn.Module):
    """Density of one number given a context: an affine map, then a monotonic spline.

    The spline acts on -5 to 5 and is the identity outside. At the start the flow is the standard
    normal distribution for every context.

    Args:
        n_context: Number of features of the context.
        hidden: Width of the networks that give the parameters of both maps.
        n_bins: Number of bins of the spline.

    Source: neural spline flows, Durkan et al. 2019, arXiv:1906.04032, by the package zuko.

    """

    def __init__(self, n_context: int, hidden: int, n_bins: int = 8) -> None:
        super().__init__()
        sizes = {"features": 1, "context": n_context, "hidden_features": (hidden,)}
        shapes = [(n_bins,), (n_bins,), (n_bins - 1,)]
        affine = ElementWiseTransform(**sizes)
        spline = ElementWiseTransform(**sizes, univariate=MonotonicRQSTransform, shapes=shapes)
        for part in (affine, spline):
            nn.init.zeros_(part.hyper[-1].weight)
            nn.init.zeros_(part.hyper[-1].bias)
        self.transform = LazyComposedTransform(affine, spline)

    def log_density(
        self, values: Float[Tensor, "*N"], context: Float[Tensor, "*N F"]
    ) -> Float[Tensor, "*N"]:
        """Logarithm of the density at values."""
        normal, log_slope = self.transform(context).call_and_ladj(values[..., None])
        return log_normal(normal[..., 0]) + log_slope

    def from_noise(
        self, noise: Float[Tensor, "*N"], context: Float[Tensor, "*N F"]
    ) -> Float[Tensor, "*N"]:
        """The value that a standard normal number stands for."""
        return self.transform(context).inv(noise[..., None])[..., 0]
