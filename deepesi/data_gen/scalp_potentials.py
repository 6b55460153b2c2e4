"""ScalpPotentials: a `ScalpPotentialFamily` as tensors, to render batches of EEG."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import LowRankLeadField
from deepesi.core.contracts import as_tensors
from deepesi.physics.family import BRAIN_CONDUCTIVITY
from deepesi.physics.scalp_potential import ScalpPotentialFamily

#: Number of patterns and modes of the narrow terms, and largest relative error that they cause.
NARROW, NEGLIGIBLE = 128, 3e-4


class ScalpPotentials:
    """Lead fields of one head as tensors on one device.

    Args:
        family: Lead field family of the head.
        device: Device of the tensors.

    """

    def __init__(self, family: ScalpPotentialFamily, device: torch.device | str = "cpu") -> None:
        self.family, core = family, family.core
        size, rest = np.linalg.norm(core, axis=(1, 2)), core.copy()
        rest[:, :NARROW, :NARROW] = 0
        narrow = np.linalg.norm(rest, axis=(1, 2)) < NEGLIGIBLE * size.max()
        self._order = torch.as_tensor(np.argsort(narrow, kind="stable"), device=device)
        tensors = as_tensors(
            {
                "wide": core[~narrow],
                "narrow": core[narrow][:, :NARROW, :NARROW],
                "scalp_modes": family.scalp_modes,
                "source_modes": family.source_modes,
                "eye_core": family.eye_core,
            },
            device,
        )
        self._core = {k: tensors[k] for k in ("wide", "narrow", "source_modes")}
        self._scalp_modes, self._eye_core = tensors["scalp_modes"], tensors["eye_core"]

    def coefficients(self, tissues: Float[Tensor, "B 4"]) -> Float[Tensor, "B K"]:
        """Weights of the core for these tissues, as `ScalpPotentialFamily.coefficients`."""
        if not self.family.varies:
            return torch.ones(len(tissues), 1, device=tissues.device)
        skull, thickness, scalp, brain = tissues.double().unbind(1)
        ratio = BRAIN_CONDUCTIVITY / brain
        terms = self.family.polynomials((skull * ratio).log(), thickness, (scalp * ratio).log())
        return (ratio[:, None] * torch.stack(terms, dim=1)).float()

    def leadfields(
        self,
        tissues: Float[Tensor, "B 4"],
        vertices: Tensor,
        weights: Tensor,
        source_modes: Float[Tensor, "D R"] | None = None,
    ) -> LowRankLeadField:
        """Lead fields for tissues and electrodes.

        Args:
            tissues: Tissues of every example.
            vertices: Vertices around every electrode ``(B, C, 3)``.
            weights: Their barycentric weights ``(B, C, 3)``.
            source_modes: Modes of other sources. None: those of the head.

        """
        rows = torch.nn.functional.embedding_bag(
            vertices.reshape(-1, 3),
            self._scalp_modes,
            per_sample_weights=weights.reshape(-1, 3),
            mode="sum",
        ).unflatten(0, vertices.shape[:2])
        return LowRankLeadField(
            coefficients=self.coefficients(tissues)[:, self._order],
            patterns=rows.sub_(rows.mean(dim=1, keepdim=True)),
            wide=self._core["wide"],
            narrow=self._core["narrow"],
            source_modes=self._core["source_modes"] if source_modes is None else source_modes,
        )

    def eyes(self, true_leadfield: LowRankLeadField) -> Float[Tensor, "B C E"]:
        """Lead fields of the eyes for the same tissues and electrodes, V/(A m)."""
        core = torch.einsum("bk,kpe->bpe", true_leadfield.coefficients, self._eye_core[self._order])
        return true_leadfield.patterns @ core
