"""Arrays of estimates as the source estimates of MNE-Python."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import SourceSpace, magnitudes

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


class Localization(NamedTuple):
    """An estimate for one evoked response, one epoch or one stretch of a raw recording.

    Attributes:
        stc: Dipole moments, A m: signed along the outward cortical normal (fixed orientation), or
            x, y and z of the MNE head frame (free).
        std: Standard deviation of the moments, A m; None if the model gives none.
        data: Referenced data ``(C, T)``, SI units.
        number: Number of the epoch in the file, or of the piece of a raw recording; from 0.
        first: First sample in a raw recording; else 0.

    """

    stc: "mne.source_estimate._BaseSourceEstimate"
    std: "mne.source_estimate._BaseSourceEstimate | None"
    data: Array
    number: int = 0
    first: int = 0


def source_estimate(
    values: Array, space: SourceSpace, tmin: float, tstep: float
) -> "mne.source_estimate._BaseSourceEstimate":
    """Values on a source space as a source estimate of MNE-Python.

    Two parts are the hemispheres of a surface: `mne.SourceEstimate` (fixed orientation) or
    `mne.VectorSourceEstimate` (free). One part is a volume: `mne.VolSourceEstimate` or
    `mne.VolVectorSourceEstimate`.

    Args:
        values: ``(D, T)``, row ``n_orient * s + o``.
        space: The source space.
        tmin: Time of the first sample, s.
        tstep: Time between samples, s.

    Raises:
        ValueError: The source space has other parts.

    """
    check_parts(space)
    import mne

    is_volume = len(space.vertices) == 1
    data = values if space.n_orient == 1 else values.reshape(space.n_sources, 3, -1)
    if is_volume:
        kind = mne.VolSourceEstimate if space.n_orient == 1 else mne.VolVectorSourceEstimate
    else:
        kind = mne.SourceEstimate if space.n_orient == 1 else mne.VectorSourceEstimate
    return kind(
        data,
        vertices=list(space.vertices),
        tmin=tmin,
        tstep=tstep,
        subject=space.name.rsplit("-", 1)[0],
    )


def check_parts(space: SourceSpace) -> None:
    """Refuse a source space without a matching source estimate in MNE-Python.

    Raises:
        ValueError: It has neither one part nor two.

    """
    if len(space.vertices) not in (1, 2):
        raise ValueError(
            f"source_estimate: the source space {space.name} has {len(space.vertices)} parts, "
            "expected two hemispheres or one volume. Use PreparedInverse.estimate(), which gives "
            "arrays."
        )


def magnitudes_of(stc: "mne.source_estimate._BaseSourceEstimate") -> Array:
    """Magnitude of every source ``(S, T)``, A m: the norm over orientation."""
    data = np.asarray(stc.data)
    n_orient = 1 if data.ndim == 2 else data.shape[1]
    return magnitudes(data.reshape(-1, data.shape[-1]), n_orient)
