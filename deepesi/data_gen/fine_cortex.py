"""FineCortex: the finer cortex of a head, from which dipoles of any position are combined."""

import functools
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from deepesi.core.contracts import as_tensors
from deepesi.data_gen.joint_fields import JointFields
from deepesi.data_gen.scalp_potentials import ScalpPotentials
from deepesi.physics.dipoles import REACH, UNIT, DipoleWeights
from deepesi.physics.graph import nearest_along
from deepesi.physics.magnetic_files import load_components
from deepesi.physics.template import Template, finest

Array = NDArray[np.float64]

#: Fine vertices among which the nearest to a displaced source is looked for.
N_CANDIDATES = 128


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
        lead_fields: Lead fields of the finer cortex for any tissues and sensor positions.

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
        self.lead_fields = ScalpPotentials(self.fine.family, device)

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
        return self._combined(self._tensors, anchor, normals, offset)

    def magnetic_modes(
        self,
        anchor: Int[Tensor, " S"],
        normals: Float[Tensor, "S 3"],
        offset: Float[Tensor, "S 3"],
    ) -> Float[Tensor, "D R"]:
        """Modes of the magnetic fields of the same dipoles; errors as in `load_magnetic`."""
        return self._combined(self._magnetic, anchor, normals, offset)

    @functools.cached_property
    def joint_fields(self) -> JointFields:
        """Lead fields of EEG and MEG together."""
        return JointFields(self.lead_fields, self._magnetic["modes"])

    @functools.cached_property
    def _magnetic(self) -> dict[str, Tensor]:
        """Combinations of x, y and z dipoles, and the modes of these.

        Dipoles along the normals do not tell the magnetic fields of others: the near-radial ones
        among them have little field.
        """
        pos = self.fine.source_pos
        axes = np.tile(np.eye(3), (len(pos), 1))
        weights = DipoleWeights.around(pos, np.repeat(pos, 3, axis=0), axes)
        arrays = {
            "nearest": weights.nearest,
            "response": weights.response,
            "modes": load_components(self.fine).source_modes,
        }
        return as_tensors(arrays, self.positions.device)

    def _combined(
        self,
        known: Mapping[str, Tensor],
        anchor: Int[Tensor, " S"],
        normals: Float[Tensor, "S 3"],
        offset: Float[Tensor, "S 3"],
    ) -> Float[Tensor, "D R"]:
        orientation = normals[:, None]
        if self.template.space.n_orient == 3:
            orientation = torch.eye(3, device=normals.device).expand(len(normals), 3, 3)
        by_offset = orientation[..., None] * offset[:, None, None] / UNIT
        moments = torch.cat([orientation, by_offset.flatten(2)], dim=2)
        weights = moments @ known["response"][anchor].transpose(1, 2)
        nearest = known["nearest"][anchor][:, None].expand(weights.shape)
        return torch.nn.functional.embedding_bag(
            nearest.flatten(0, 1),
            known["modes"],
            per_sample_weights=weights.flatten(0, 1),
            mode="sum",
        )


def has_other_anatomies(template: Template) -> bool:
    """Whether the anatomy of a head can be varied; `check_anatomy` says why not."""
    return template.cap is None and bool(template.source_normals.any(axis=1).all())


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
