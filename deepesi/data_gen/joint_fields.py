"""JointFields: lead fields of EEG and MEG together, to render batches."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import LowRankLeadField
from deepesi.data_gen.scalp_potentials import ScalpPotentials


class JointFields:
    """Lead fields of one head for EEG and MEG, as tensors on one device.

    The factors are those of EEG and of MEG side by side: patterns, core and modes are blocks, so
    both measure the same sources. The block of MEG has one term, which no tissue changes.

    Args:
        scalp: Lead fields of EEG.
        modes: Modes of the sources for MEG ``(D, r)``, 1/(A m).

    """

    def __init__(self, scalp: ScalpPotentials, modes: Tensor) -> None:
        self.scalp, self.modes = scalp, modes
        self._wide: Tensor | None = None

    def leadfields(
        self,
        tissues: Float[Tensor, "B 4"],
        vertices: Tensor,
        weights: Tensor,
        coils: Float[Tensor, "B M R"],
        source_modes: Tensor | None = None,
        magnetic_modes: Tensor | None = None,
    ) -> LowRankLeadField:
        """Lead fields for tissues, electrodes and coils.

        Args:
            tissues: Tissues of every example.
            vertices: Vertices around every electrode ``(B, C, 3)``, maybe of none.
            weights: Their barycentric weights ``(B, C, 3)``.
            coils: What the coils measure of every mode of MEG.
            source_modes: Modes of other sources for EEG; None: those of the head.
            magnetic_modes: Modes of other sources for MEG; None: `modes`.

        """
        eeg = self.scalp.leadfields(tissues, vertices, weights, source_modes)
        modes = self.modes if magnetic_modes is None else magnetic_modes
        n_patterns, n_modes, n_wide = eeg.wide.shape[1], coils.shape[2], len(eeg.wide)
        if self._wide is None:
            own = torch.zeros(1, n_patterns + n_modes, eeg.wide.shape[2] + n_modes)
            own[0, n_patterns:, eeg.wide.shape[2] :] = torch.eye(n_modes)
            padded = torch.nn.functional.pad(eeg.wide, (0, n_modes, 0, n_modes))
            self._wide = torch.cat([padded, own.to(padded)])
        by_term = [eeg.coefficients[:, :n_wide], eeg.coefficients[:, n_wide:]]
        constant = torch.ones_like(eeg.coefficients[:, :1])
        return LowRankLeadField(
            coefficients=torch.cat([by_term[0], constant, by_term[1]], dim=1),
            patterns=torch.cat(
                [
                    torch.nn.functional.pad(eeg.patterns, (0, n_modes)),
                    torch.nn.functional.pad(coils, (n_patterns, 0)),
                ],
                dim=1,
            ),
            wide=self._wide,
            narrow=eeg.narrow,
            source_modes=torch.cat([eeg.source_modes, modes], dim=1),
        )
