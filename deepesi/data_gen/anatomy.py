"""AnatomyRanges: cortices of other people, seen through the source grid of the analyst's head.

Every source of the analyst's grid has a homologous source on the true cortex. It lies between the
points of the grid, is displaced, and has a normal of its own. Lead fields of such dipoles are
combinations of those of a finer cortex, see `deepesi.physics.dipoles`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from deepesi.core.contracts import as_tensors
from deepesi.data_gen.keys import uniform
from deepesi.data_gen.ranges import check_range
from deepesi.data_gen.scalp_potentials import ScalpPotentials, scalp_potentials_of
from deepesi.physics.dipoles import REACH, UNIT, DipoleWeights
from deepesi.physics.graph import nearest_along
from deepesi.physics.template import Template, finest

Array = NDArray[np.float64]

METRES = "m: metres (5 mm is 0.005)"
RADIANS = "rad: radians (3 degrees is 0.052)"
#: Mean length of a Gaussian vector of three components with unit standard deviation.
MEAN_LENGTH = 2 * math.sqrt(2 / math.pi)
#: Plane waves of a smooth field, and fine vertices among which the nearest is looked for.
N_WAVES, N_CANDIDATES = 48, 128


class Anatomy(NamedTuple):
    """The homologous sources of a grid on one true cortex.

    Attributes:
        positions: ``(S, 3)``, m, head frame of the template.
        normals: Unit normals ``(S, 3)``.
        source_modes: Modes ``(D, r)`` of the lead fields of the fine cortex, 1/(A m).

    """

    positions: Float[Tensor, "S 3"]
    normals: Float[Tensor, "S 3"]
    source_modes: Float[Tensor, "D R"]

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

    Raises:
        ValueError: A range is out of order or not in SI units.

    Source: measured differences between heads, docs/benchmarks.md; Valdés-Hernández et al. 2009,
    doi:10.1016/j.jneumeth.2009.06.031 (template heads).

    """

    off_grid: bool = True
    displacement: tuple[float, float] = (0.003, 0.009)
    displacement_wavelength: tuple[float, float] = (0.04, 0.16)
    shift: tuple[float, float] = (0.0, 0.003)
    rotation: tuple[float, float] = (0.0, 0.05)
    turn: tuple[float, float] = (4.0, 16.0)
    turn_wavelength: tuple[float, float] = (0.025, 0.08)
    roughness: tuple[float, float] = (8.0, 16.0)

    def __post_init__(self) -> None:
        who = "AnatomyRanges"
        for name, most in (("displacement", 0.03), ("shift", 0.03)):
            check_range(who, name, getattr(self, name), 0, most, METRES)
        for name in ("displacement_wavelength", "turn_wavelength"):
            check_range(who, name, getattr(self, name), 0.005, 1, METRES)
        check_range(who, "rotation", self.rotation, 0, 0.35, RADIANS)
        for name in ("turn", "roughness"):
            check_range(who, name, getattr(self, name), 0.5, math.inf, "(no unit)")

    @property
    def differs(self) -> bool:
        """Whether a true head can differ from the template."""
        moved = max(self.displacement[1], self.shift[1], self.rotation[1])
        return self.off_grid or moved > 0 or min(self.turn[0], self.roughness[0]) < math.inf

    def draw(self, cortex: "FineCortex", rng: torch.Generator) -> Anatomy:
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
            cortex.positions[nearest] + offset, normals, cortex.modes(nearest, normals, offset)
        )


class FineCortex:
    """The finer cortex of a head as tensors, from which anatomies are made.

    Args:
        template: Head whose grid the analyst uses. Its cortex at ico-4 is taken if it is at hand.
        device: Device of the tensors.

    Attributes:
        fine: The head with the finer cortex.
        positions: Vertices with cortex ``(A, 3)``, m.
        normals: Unit normals ``(A, 3)``.
        own: Vertex of every source of the grid ``(S,)``.
        lead_fields: Lead fields of the finer cortex for any tissues and places of sensors.

    Raises:
        ValueError: The head has one lead field only, or sources that lie on no surface.

    """

    def __init__(self, template: Template, device: torch.device | str = "cpu") -> None:
        check_anatomy(template)
        self.template, self.fine = template, finest(template)
        pos, normals = self.fine.source_pos, self.fine.source_normals
        own = _vertices_of(template, self.fine)
        usable = self.fine.is_cortex.copy()
        usable[own] = True  # sources of the medial wall are silent, but need a lead field
        weights = DipoleWeights.around(pos, pos, normals)
        cells, sizes = _cells(self.fine, own, usable)
        candidates = np.flatnonzero(usable)
        _, near = cKDTree(pos[candidates]).query(pos, k=min(N_CANDIDATES, len(candidates)))
        arrays = {
            "positions": pos,
            "normals": normals,
            "own": own,
            "cells": cells,
            "sizes": sizes,
            "near": candidates[near],
            "nearest": weights.nearest,
            "response": weights.response,
            "modes": _normal_modes(self.fine),
        }
        self._tensors = as_tensors(arrays, device)
        self.positions, self.normals = self._tensors["positions"], self._tensors["normals"]
        self.own = self._tensors["own"]
        self.lead_fields = ScalpPotentials(scalp_potentials_of(self.fine), device)

    def homologues(self, rng: torch.Generator) -> Int[Tensor, " S"]:
        """A random fine vertex in the cell of every source of the grid."""
        sizes = self._tensors["sizes"]
        share = torch.rand(sizes.shape, generator=rng, device=rng.device)
        chosen = (share * sizes).long().clamp(max=self._tensors["cells"].shape[1] - 1)
        return self._tensors["cells"].gather(1, chosen[:, None])[:, 0]

    def nearest(
        self, start: Int[Tensor, " S"], positions: Float[Tensor, "S 3"]
    ) -> tuple[Int[Tensor, " S"], Float[Tensor, "S 3"]]:
        """The fine vertices nearest to positions, and the way from there, at most `REACH` long.

        Args:
            start: Vertices from which the positions were displaced.
            positions: m.

        """
        near = self._tensors["near"][start]
        way = positions[:, None] - self.positions[near]
        best = way.square().sum(2).argmin(1, keepdim=True)
        offset = way.take_along_dim(best[..., None], 1)[:, 0]
        length = offset.norm(dim=1, keepdim=True)
        return near.gather(1, best)[:, 0], offset * (REACH / length.clamp_min(REACH))

    def modes(
        self,
        anchor: Int[Tensor, " S"],
        normals: Float[Tensor, "S 3"],
        offset: Float[Tensor, "S 3"],
    ) -> Float[Tensor, "D R"]:
        """Modes of dipoles near fine vertices: along the normals, or x, y and z of each."""
        orientation = normals[:, None]
        if self.template.space.n_orient == 3:
            orientation = torch.eye(3, device=normals.device).expand(len(normals), 3, 3)
        by_offset = orientation[..., None] * offset[:, None, None] / UNIT
        moments = torch.cat([orientation, by_offset.flatten(2)], dim=2)
        weights = moments @ self._tensors["response"][anchor].transpose(1, 2)
        nearest = self._tensors["nearest"][anchor][:, None].expand(weights.shape)
        return torch.nn.functional.embedding_bag(
            nearest.flatten(0, 1),
            self._tensors["modes"],
            per_sample_weights=weights.flatten(0, 1),
            mode="sum",
        )


def smooth_field(
    positions: Float[Tensor, "S 3"], wavelength: tuple[float, float], rng: torch.Generator
) -> Float[Tensor, "S 3"]:
    """A smooth random vector field with unit variance per component: a sum of plane waves.

    Args:
        positions: m.
        wavelength: Smallest and largest wavelength, m, log-uniform.
        rng: Random generator.

    """
    direction, amplitude = torch.randn(2, N_WAVES, 3, generator=rng, device=rng.device)
    direction = direction / direction.norm(dim=1, keepdim=True)
    length = uniform((N_WAVES, 1), math.log(wavelength[0]), math.log(wavelength[1]), rng).exp()
    phase = uniform((N_WAVES,), 0.0, 2 * math.pi, rng)
    waves = torch.cos(positions @ (2 * math.pi * direction / length).T + phase)
    return math.sqrt(2 / N_WAVES) * waves @ amplitude


def rotated(vectors: Float[Tensor, "S 3"], rotation: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
    """Vectors after rotations: axis times angle (rad)."""
    angle = rotation.norm(dim=1, keepdim=True)
    axis = rotation / angle.clamp_min(1e-12)
    along = axis * (axis * vectors).sum(1, keepdim=True)
    across = torch.linalg.cross(axis, vectors)
    return along + (vectors - along) * angle.cos() + across * angle.sin()


def scattered(
    normals: Float[Tensor, "S 3"], concentration: Tensor, rng: torch.Generator
) -> Float[Tensor, "S 3"]:
    """Unit vectors from von Mises-Fisher distributions around these, by inversion.

    Source: Ulrich 1984, doi:10.2307/2347441.
    """
    n = len(normals)
    share = torch.rand(n, 1, generator=rng, device=rng.device).clamp_min(1e-7)
    sideways = torch.randn(n, 3, generator=rng, device=rng.device)
    sideways = sideways - normals * (sideways * normals).sum(1, keepdim=True)
    sideways = sideways / sideways.norm(dim=1, keepdim=True)
    floor = (-2 * concentration).exp()
    less = -(share + (1 - share) * floor).log() / concentration  # 1 - cos of the angle
    less = torch.where(concentration.isinf(), 0.0, less)
    cosine = 1 - less
    return cosine * normals + (1 - cosine.square()).clamp_min(0).sqrt() * sideways


def _between(bounds: tuple[float, float], rng: torch.Generator, log: bool = False) -> Tensor:
    """One draw, uniform or log-uniform."""
    if bounds[0] == bounds[1]:
        return torch.full((1,), bounds[0], device=rng.device)
    if log:
        return uniform((1,), math.log(bounds[0]), math.log(bounds[1]), rng).exp()
    return uniform((1,), *bounds, rng)


def check_anatomy(template: Template) -> None:
    """Refuse a head whose anatomy cannot be varied.

    Raises:
        ValueError: It has one lead field only, or sources that lie on no surface.

    """
    if template.cap is not None:
        raise ValueError(
            f"AnatomyRanges: the head {template.name!r} is known by one forward solution only, so "
            "there are no lead fields of other anatomies. Use a packaged head, one of 'deepesi "
            "head build' or the BEM surfaces (head=own), or data.setups.anatomy=null."
        )
    if not template.source_normals.any(axis=1).all():
        raise ValueError(
            f"AnatomyRanges: the head {template.name!r} has sources on no surface, whose normals "
            "cannot be turned. Use a head with cortical sources, or data.setups.anatomy=null."
        )


def _vertices_of(grid: Template, fine: Template) -> NDArray[np.int64]:
    """Numbers of the sources of a grid among those of the finer head."""
    own, start = [], 0
    for coarse, dense in zip(grid.space.vertices, fine.space.vertices, strict=True):
        own.append(start + np.searchsorted(dense, coarse))
        start += len(dense)
    return np.concatenate(own)


def _cells(
    fine: Template, own: NDArray[np.int64], usable: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fine vertices nearest to every source of the grid along the cortex, and their number.

    Returns:
        Vertices ``(S, m)``, filled up with the source itself; number ``(S,)``.

    """
    source = nearest_along(fine.source_pos, fine.space.edges, own)
    members = [[vertex] for vertex in own]
    number = {vertex: row for row, vertex in enumerate(own.tolist())}
    for vertex in np.flatnonzero(usable).tolist():
        if vertex not in number:
            members[number[int(source[vertex])]].append(vertex)
    sizes = np.array([len(cell) for cell in members])
    cells = np.repeat(own[:, None], sizes.max(), axis=1)
    for row, cell in enumerate(members):
        cells[row, : len(cell)] = cell
    return cells, sizes


def _normal_modes(head: Template) -> Array:
    """Modes of dipoles along the normals ``(A, r)``."""
    modes = head.family.source_modes
    if head.space.n_orient == 1:
        return modes
    components = modes.reshape(head.space.n_sources, 3, -1)
    return np.einsum("sjr,sj->sr", components, head.source_normals)
