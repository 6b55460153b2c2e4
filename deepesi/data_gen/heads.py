"""HeadOnDevice: tensors of a head for drawing sources and rendering them, computed once."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from deepesi.core.contracts import as_tensors
from deepesi.data_gen.fine_cortex import FineCortex
from deepesi.data_gen.joint_fields import JointFields
from deepesi.data_gen.scalp_potentials import ScalpPotentials
from deepesi.physics.cohort import split_of
from deepesi.physics.graph import adjacency, source_distances
from deepesi.physics.template import Template

PLACEMENTS = ("vertices", "area", "depth")


class HeadOnDevice:
    """A head as tensors on one device.

    Attributes:
        template: The head.
        lead_fields: Lead fields for any tissues and sensor positions.
        distances: Distances between sources ``(S, S)``, m: geodesic on the cortex, Euclidean in a
            volume, infinite between the two.
        positions: Positions of the sources ``(S, 3)``, m, head frame.
        normals: Unit normals of the cortex ``(S, 3)``, head frame.
        is_cortex: 1 for a source that can be active, else 0 ``(S,)``.
        spacing: RMS distance between neighbours, m.
        on_surface: Whether every source lies on the cortex.
        n_directions: Dimension of the source space: 2 for a surface, 3 for a volume.

    """

    def __init__(self, template: Template, device: torch.device | str = "cpu") -> None:
        self.template, self.device = template, device
        space = template.space
        in_volume = np.asarray(~template.source_normals.any(axis=1))
        reach = source_distances(template.source_pos, space.edges, in_volume)
        self._placements: dict[tuple[str, tuple[float, float] | None], Tensor] = {}
        self.lead_fields = ScalpPotentials(template.family, device)
        tensors = as_tensors(
            {
                "distances": reach,
                "positions": template.source_pos,
                "normals": template.source_normals,
                "is_cortex": template.is_cortex.astype(np.float64),
            },
            device,
        )
        self.distances, self.positions = tensors["distances"], tensors["positions"]
        self.normals = tensors["normals"]
        self.is_cortex = tensors["is_cortex"]
        lengths = np.linalg.norm(np.diff(template.source_pos[space.edges], axis=1)[:, 0], axis=1)
        self.on_surface = not in_volume.any()
        self.n_directions = 3 if in_volume.all() else 2
        self.spacing = float(np.sqrt((lengths**2).mean())) if len(lengths) else 0.0

    @functools.cached_property
    def joint_fields(self) -> JointFields:
        """Lead fields of EEG and MEG together."""
        modes = as_tensors({"modes": self.template.magnetic.source_modes}, self.device)["modes"]
        return JointFields(self.lead_fields, modes)

    @functools.cached_property
    def fine_cortex(self) -> FineCortex:
        """The finer cortex, from which other anatomies are made."""
        return FineCortex(self.template, self.device)

    @functools.cached_property
    def euclidean(self) -> Float[Tensor, "S S"]:
        """Straight distances between sources, m; infinite between cortex and volume."""
        template = self.template
        straight = cdist(template.source_pos, template.source_pos)
        in_volume = np.asarray(~template.source_normals.any(axis=1))
        straight[in_volume[:, None] != in_volume] = np.inf
        return torch.as_tensor(straight, dtype=torch.float32, device=self.device)

    @functools.cached_property
    def neighbours(self) -> Int[Tensor, "S N"]:
        """Each source and its neighbours on the mesh; short rows are filled up with the source."""
        space = self.template.space
        links = adjacency(space.edges, space.n_sources).tolil().rows
        most = max(map(len, links))
        rows = [[source] * (1 + most - len(row)) + row for source, row in enumerate(links)]
        return torch.tensor(rows, device=self.device)

    @functools.cached_property
    def diffusion(self) -> Tensor:
        """One step of a lazy random walk over neighbours, sparse ``(S, S)``."""
        space = self.template.space
        links = adjacency(space.edges, space.n_sources)
        degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
        walk = links.multiply(0.5 / degree[:, None]).tocoo()
        diagonal = np.arange(space.n_sources)
        index = np.stack([np.r_[walk.row, diagonal], np.r_[walk.col, diagonal]])
        values = np.r_[walk.data, np.full(space.n_sources, 0.5)]
        size = (space.n_sources, space.n_sources)
        matrix = torch.sparse_coo_tensor(
            torch.from_numpy(index),
            torch.from_numpy(values),
            size,
            dtype=torch.float32,
            check_invariants=True,
        )
        return matrix.coalesce().to(self.device)

    def placement(self, kind: str, depth: tuple[float, float] | None = None) -> Float[Tensor, " S"]:
        """Probability of each source to be the centre of a patch, 0 on the medial wall.

        Args:
            kind: ``"vertices"``: equal for all sources. ``"area"``: proportional to the cortical
                area of a source. ``"depth"``: uniform over the distance from the scalp.
            depth: Smallest and largest distance from the scalp, m.

        Raises:
            ValueError: No source lies in this range of depths.

        """
        if (kind, depth) not in self._placements:
            weight = self._weights(kind) * self.template.is_cortex
            if depth is not None:
                low, high = depth
                weight = weight * ((self.template.depth >= low) & (self.template.depth <= high))
                if not weight.any():
                    cortex = self.template.depth[self.template.is_cortex]
                    raise ValueError(
                        f"PatchSources: no source of {self.template.name!r} lies {low:g}-{high:g} "
                        f"m below the scalp; its cortex lies {cortex.min():.3f}-"
                        f"{cortex.max():.3f} m below. Choose a depth in this range."
                    )
            self._placements[kind, depth] = torch.as_tensor(
                weight / weight.sum(), dtype=torch.float32, device=self.device
            )
        return self._placements[kind, depth]

    def _weights(self, kind: str) -> NDArray[np.float64]:
        template = self.template
        edges, n_sources = template.space.edges, template.space.n_sources
        if kind == "area":
            squared = (np.diff(template.source_pos[edges], axis=1)[:, 0] ** 2).sum(axis=1)
            count = np.bincount(edges.ravel(), minlength=n_sources)
            total = np.bincount(edges.ravel(), np.repeat(squared, 2), minlength=n_sources)
            return np.asarray(total / np.maximum(count, 1))
        if kind == "depth":
            depth = template.depth
            density, ends = np.histogram(depth[template.is_cortex], bins=20)
            bin_of = np.clip(np.searchsorted(ends, depth, side="right") - 1, 0, 19)
            weight = 1 / np.maximum(density[bin_of], 1)
            # Limit the weight of the few deepest sources.
            return np.minimum(weight, 20 * np.median(weight))
        return np.ones(n_sources)


def check_heads(heads: Sequence[Template], split: str) -> None:
    """Refuse heads that cannot be used together.

    Raises:
        ValueError: There is no head, source spaces differ, or a head belongs to another split.

    """
    if not heads:
        raise ValueError(
            f"SimulatedRecordings: no head for the split {split!r}. Name at least one."
        )
    spaces = {head.space.fingerprint: head.name for head in heads}
    if len(spaces) > 1:
        raise ValueError(
            f"SimulatedRecordings: the heads {list(spaces.values())} have different source spaces. "
            "Build them at one spacing."
        )
    for head in heads:
        if head.warp_seed is not None and split_of(head.warp_seed) != split:
            raise ValueError(
                f"SimulatedRecordings: the head {head.name!r} belongs to the split "
                f"{split_of(head.warp_seed)!r}, the recordings to {split!r}; splits must not share "
                "heads. "
                "Last digits of warp seeds: 0-7 train, 8 validation, 9 test."
            )
