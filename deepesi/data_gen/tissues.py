"""TissueRanges: distribution of tissue conductivities and skull thickness."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.special import ndtr, ndtri

from deepesi.data_gen.keys import uniform
from deepesi.data_gen.ranges import check_number, check_range
from deepesi.physics.family import NOMINAL, Tissues

CONDUCTIVITY = "S/m (10 mS/m is 0.01)"
METRES = "m (6 mm is 0.006)"


@dataclass(frozen=True)
class TissueRanges:
    """Ranges of the tissue parameters. A range with two equal values fixes a parameter.

    Skull conductivity is log-uniform. Skull thickness is truncated normal and correlated with the
    conductivity as in adults, because thicker skulls have more spongy bone. Scalp conductivity is
    log-uniform, brain conductivity uniform.

    Args:
        skull_conductivity: Lowest and highest skull conductivity, S/m.
        skull_thickness: Smallest and largest mean skull thickness, m.
        scalp_conductivity: Lowest and highest scalp conductivity, S/m.
        brain_conductivity: Lowest and highest brain conductivity, S/m.
        thickness_correlation: Correlation of the normal scores of thickness and conductivity.
        thickness_mean: Mean of the normal distribution before truncation, m.
        thickness_std: Standard deviation of the normal distribution before truncation, m.

    Raises:
        ValueError: A range is out of order or not in S/m or m.

    Source: Antonakakis et al. 2020, doi:10.1016/j.neuroimage.2020.117353 (skull); McCann et al.
    2019, doi:10.1007/s10548-019-00710-2 (conductivities).

    """

    skull_conductivity: tuple[float, float] = (0.003, 0.03)
    skull_thickness: tuple[float, float] = (0.0036, 0.0084)
    scalp_conductivity: tuple[float, float] = (0.28, 0.6)
    brain_conductivity: tuple[float, float] = (0.33, 0.47)
    thickness_correlation: float = 0.52
    thickness_mean: float = 0.00597
    thickness_std: float = 0.00119

    def __post_init__(self) -> None:
        who = "TissueRanges"
        for name in ("skull_conductivity", "scalp_conductivity", "brain_conductivity"):
            check_range(who, name, getattr(self, name), 1e-4, 5, CONDUCTIVITY)
        check_range(who, "skull_thickness", self.skull_thickness, 1e-3, 0.02, METRES)
        check_number(who, "thickness_correlation", self.thickness_correlation, -1, 1, "(no unit)")
        check_number(who, "thickness_mean", self.thickness_mean, 1e-3, 0.02, METRES)
        check_number(who, "thickness_std", self.thickness_std, 1e-5, 0.02, METRES)

    @property
    def corners(self) -> list[Tissues]:
        """All combinations of smallest and largest values, to check that a head covers them."""
        return [
            Tissues(skull, thickness, scalp, brain)
            for skull in self.skull_conductivity
            for thickness in self.skull_thickness
            for scalp in self.scalp_conductivity
            for brain in self.brain_conductivity
        ]

    def draw(
        self, n_examples: int, rng: torch.Generator, width: float = 1.0
    ) -> Float[Tensor, "B 4"]:
        """Draw skull conductivity, skull thickness, scalp and brain conductivity, SI units.

        Args:
            n_examples: Number of examples ``B``.
            rng: Random generator.
            width: 1: the full ranges. Smaller values shrink them around `NOMINAL`, or around the
                value of the range nearest to it.

        """
        first, second = torch.randn(2, n_examples, generator=rng, device=rng.device)
        rho = self.thickness_correlation
        score = rho * first + math.sqrt(1 - rho**2) * second
        low, high = (
            0.5 * (1 + math.erf((x - self.thickness_mean) / self.thickness_std / math.sqrt(2)))
            for x in self.skull_thickness
        )
        quantile = (low + (high - low) * ndtr(score)).clamp(1e-6, 1 - 1e-6)
        thickness = (self.thickness_mean + self.thickness_std * ndtri(quantile)).clamp(
            *self.skull_thickness
        )
        skull = _log_between(self.skull_conductivity, ndtr(first))
        scalp = _log_between(self.scalp_conductivity, uniform((n_examples,), 0.0, 1.0, rng))
        brain = uniform((n_examples,), *self.brain_conductivity, rng)
        drawn = torch.stack([skull, thickness, scalp, brain], dim=1)
        if width == 1.0:
            return drawn
        ranges = (
            self.skull_conductivity,
            self.skull_thickness,
            self.scalp_conductivity,
            self.brain_conductivity,
        )
        nominal = vars(NOMINAL).values()
        centre = torch.tensor(
            [min(max(x, a), b) for x, (a, b) in zip(nominal, ranges, strict=True)],
            device=rng.device,
        )
        return centre * (drawn / centre) ** width


def _log_between(bounds: tuple[float, float], share: Tensor) -> Tensor:
    low, high = map(math.log, bounds)
    return (low + (high - low) * share).exp()
