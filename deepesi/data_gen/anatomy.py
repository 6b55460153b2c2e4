"""AnatomyRanges: cortices of other people, mapped to the source grid of the analyst's head.

Every source of the analyst's grid has a homologous source on the true cortex. It lies between the
points of the grid, is displaced, and has a normal of its own. Lead fields of such dipoles are
combinations of those of a finer cortex, see `deepesi.physics.dipoles`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepesi.data_gen.fine_cortex import FineCortex
from deepesi.data_gen.keys import uniform
from deepesi.data_gen.random_fields import rotated, scattered, smooth_field
from deepesi.data_gen.ranges import METRES, RADIANS, check_number, check_range
from deepesi.physics.scalp import MEAN_LENGTH
from deepesi.physics.template import Template

Array = NDArray[np.float64]


class Anatomy(NamedTuple):
    """The homologous sources of a grid on one true cortex.

    Attributes:
        positions: ``(S, 3)``, m, head frame of the template.
        normals: Unit normals ``(S, 3)``.
        source_modes: Modes ``(D, r)`` of the lead fields of the fine cortex, 1/(A m).
        magnetic_modes: Modes of their magnetic fields; None without MEG.

    """

    positions: Float[Tensor, "S 3"]
    normals: Float[Tensor, "S 3"]
    source_modes: Float[Tensor, "D R"]
    magnetic_modes: Tensor | None = None

    def differences(self, grid: Template) -> tuple[Array, Array]:
        """Distances (m) and angles (rad) of all sources from those of a grid ``(S,)``."""
        positions, normals = self.positions.cpu().numpy(), self.normals.cpu().numpy()
        distance = np.linalg.norm(positions - grid.source_pos, axis=1)
        cosine = (normals * grid.source_normals).sum(1)
        return distance, np.arccos(np.clip(cosine, -1, 1))


@dataclass(frozen=True)
class AnatomyRanges:
    """Ranges of the anatomies of true heads, relative to the template. Zero: no difference.

    A normal is turned by a smooth random field, like a von Mises-Fisher distribution of the same
    concentration, and by a von Mises-Fisher distribution of its own (rough part). Infinite
    concentrations turn nothing.

    Args:
        off_grid: Whether sources lie at any vertex of the finer cortex around their point of the
            grid, with the normal there, or at the point of the grid.
        displacement: Mean length of the smooth displacement of the cortex, m.
        displacement_wavelength: Wavelengths of this displacement, m.
        shift: Mean length of the shift of the whole cortex, m.
        rotation: Mean angle of the rotation of the whole cortex about its centre, rad.
        turn: Concentration of the smooth turn of the normals, log-uniform, no unit.
        turn_wavelength: Wavelengths of this turn, m.
        roughness: Concentration of the rough turn of the normals, log-uniform, no unit.
        share: Probability that a set-up has such a head; else the cortex is that of its own head.

    Raises:
        ValueError: A range is out of order or not in SI units.

    Source: ours; the ranges reproduce the differences of four real heads from the template, see
    docs/decisions/0012-somebody-elses-head.md.

    """

    off_grid: bool = True
    displacement: tuple[float, float] = (0.003, 0.009)
    displacement_wavelength: tuple[float, float] = (0.04, 0.16)
    shift: tuple[float, float] = (0.0, 0.003)
    rotation: tuple[float, float] = (0.0, 0.05)
    turn: tuple[float, float] = (4.0, 16.0)
    turn_wavelength: tuple[float, float] = (0.025, 0.08)
    roughness: tuple[float, float] = (8.0, 16.0)
    share: float = 1.0

    def __post_init__(self) -> None:
        who = "AnatomyRanges"
        for name, most in (("displacement", 0.03), ("shift", 0.03)):
            check_range(who, name, getattr(self, name), 0, most, METRES)
        for name in ("displacement_wavelength", "turn_wavelength"):
            check_range(who, name, getattr(self, name), 0.005, 1, METRES)
        check_range(who, "rotation", self.rotation, 0, 0.35, RADIANS)
        check_number(who, "share", self.share, 0, 1, "(no unit)")
        for name in ("turn", "roughness"):
            check_range(who, name, getattr(self, name), 0.5, math.inf, "(no unit)")

    @property
    def differs(self) -> bool:
        """Whether a true head can differ from the template."""
        moved = max(self.displacement[1], self.shift[1], self.rotation[1])
        return self.off_grid or moved > 0 or min(self.turn[0], self.roughness[0]) < math.inf

    def chosen(self, rng: np.random.Generator) -> bool:
        """Whether one set-up has such a head. Draws a number only if it can be either."""
        if self.share < 1 and rng.random() >= self.share:
            return False
        return self.differs

    def draw(self, cortex: FineCortex, rng: torch.Generator, with_meg: bool = False) -> Anatomy:
        """Draw one anatomy."""
        anchor = cortex.homologues(rng) if self.off_grid else cortex.own
        positions, normals = cortex.positions[anchor], cortex.normals[anchor]
        mean = _between(self.displacement, rng)
        field = smooth_field(positions, self.displacement_wavelength, rng)
        turn = smooth_field(positions, self.turn_wavelength, rng)
        normals = rotated(normals, turn / _between(self.turn, rng, log=True).sqrt())
        normals = scattered(normals, _between(self.roughness, rng, log=True), rng)
        rotation, shift = (
            _between(bounds, rng)
            / MEAN_LENGTH
            * torch.randn(1, 3, generator=rng, device=rng.device)
            for bounds in (self.rotation, self.shift)
        )
        centre = cortex.positions.mean(0)
        positions = positions + field * mean / MEAN_LENGTH - centre
        positions = rotated(positions, rotation.expand_as(positions)) + centre + shift
        normals = rotated(normals, rotation.expand_as(normals))
        nearest, offset = cortex.nearest(anchor, positions)
        return Anatomy(
            cortex.positions[nearest] + offset,
            normals,
            cortex.modes(nearest, normals, offset),
            cortex.magnetic_modes(nearest, normals, offset) if with_meg else None,
        )


def _between(bounds: tuple[float, float], rng: torch.Generator, log: bool = False) -> Tensor:
    """One draw, uniform or log-uniform."""
    if bounds[0] == bounds[1]:
        return torch.full((1,), bounds[0], device=rng.device)
    if log:
        return uniform((1,), math.log(bounds[0]), math.log(bounds[1]), rng).exp()
    return uniform((1,), *bounds, rng)
