"""MEG coils of a recording about a packaged head, without a forward solution."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.cap_placement import RecordedCap
from deepesi.physics.coil_placement import CoilPlacement, Landmarks, place_coils
from deepesi.physics.io.channels import head_points
from deepesi.physics.io.coils import coils_of, good_coils
from deepesi.physics.io.head_mri import mri_to_head, transform_to_template
from deepesi.physics.io.selection import usable_channels
from deepesi.physics.template import Template

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


def place_recorded_coils(
    info: "mne.Info",
    template: Template,
    kinds: Collection[str] = ("mag", "grad"),
    trans: "mne.Transform | None" = None,
) -> CoilPlacement:
    """Good MEG channels of a recording about a packaged head.

    Args:
        info: Measurement info with the position of the head in the device. Its electrodes, too,
            show where the head is.
        template: The head; one with magnetic fields.
        kinds: Kinds of MEG channels to place.
        trans: Transform of the user, as in `transform_to_template`; None: as in `place_coils`.

    Raises:
        ValueError: The head has no magnetic fields, data of CTF are gradient-compensated; or as in
            `good_coils`, `coils_of` and `place_coils`.

    """
    _ = template.magnetic  # refused before anything is placed
    _check_no_compensation(info)
    landmarks = _landmarks(info, template)
    good, coils = good_coils(info, kinds), coils_of(info)
    order = {name: row for row, name in enumerate(coils.sensors.names)}
    own = coils[[order[name] for name in good]]
    to_head = None if trans is None else transform_to_template(trans, template)
    return place_coils(template, own, landmarks, to_head)


def _check_no_compensation(info: "mne.Info") -> None:
    from mne._fiff.compensator import get_current_comp

    grade = get_current_comp(info)
    if grade:
        raise ValueError(
            f"recording: its gradient compensation has grade {grade}, which the magnetic fields of "
            "packaged heads do not have. Undo it (apply_gradient_compensation(0)), or give a "
            "forward solution (--forward, forward=)."
        )


def _landmarks(info: "mne.Info", template: Template) -> Landmarks:
    """Points of the head of a recording; electrodes without a position do not count."""
    fiducials = _fiducials(info, template)
    rows = {c["ch_name"]: c["loc"][:3] for c in info["chs"]}
    placed = [
        name
        for name in usable_channels(info, ("eeg",))
        if np.isfinite(rows[name]).all() and rows[name].any()
    ]
    positions = np.array([rows[name] for name in placed], dtype=np.float64).reshape(-1, 3)
    return Landmarks(RecordedCap(placed, positions, head_points(info)), fiducials)


def _fiducials(info: "mne.Info", template: Template) -> Array | None:
    """Fiducials of a recording and of fsaverage ``(2, 3, 3)``, m, head frames; None: not measured.

    Packaged magnetic fields are those of fsaverage.
    """
    import mne

    path = Path(str(mne.__file__)).parent / "data" / "fsaverage" / "fsaverage-fiducials.fif"
    recorded = _three_points(info["dig"] or ())
    in_mri = _three_points(mne.io.read_fiducials(path, verbose="error")[0])
    if recorded is None or in_mri is None:
        return None
    matrix = mri_to_head(template)
    return np.stack([recorded, in_mri @ matrix[:3, :3].T + matrix[:3, 3]])


def _three_points(points: Sequence[Any]) -> Array | None:
    """Left ear, nasion and right ear ``(3, 3)``; None if one is missing."""
    from mne._fiff.constants import FIFF

    found = {int(p["ident"]): p["r"] for p in points if p["kind"] == FIFF.FIFFV_POINT_CARDINAL}
    named = [FIFF.FIFFV_POINT_LPA, FIFF.FIFFV_POINT_NASION, FIFF.FIFFV_POINT_RPA]
    if not set(named) <= found.keys():
        return None
    return np.array([found[number] for number in named], dtype=np.float64)
