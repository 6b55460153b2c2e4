"""Transforms between the head frame of a recording and an MRI, given by the user."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.template import Template
from deepesi.utils.files import parsing

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Coordinate frames of FIFF: head, MRI (surface RAS), MNI305.
HEAD, MRI, MNI = 4, 5, 2003
EXPECTED = (
    "expected the MNE head frame and the MRI (surface RAS) of the head model, or MNI space "
    "(mni_tal), in either direction. Write one with MNE-Python's coregistration (mne coreg)."
)


def read_head_mri(path: Path) -> "mne.Transform":
    """Read a ``-trans.fif``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not a file of a transform.

    """
    import mne

    if not path.is_file():
        raise FileNotFoundError(f"--trans: there is no file {path}.")
    with parsing(path, "transform", "Write it again with mne.write_trans."):
        return mne.read_trans(path)


def transform_to_template(trans: "mne.Transform", template: Template) -> Array:
    """Transform ``(4, 4)`` from the head frame of a recording to that of a head model, m.

    Args:
        trans: Between the head frame of the recording and an MRI, in either direction. Frame
            ``mri``: MRI (surface RAS) of the subject of the head model, which is fsaverage for the
            packaged heads; rigid. Frame ``mni_tal``: MNI305, for the packaged heads only; it may
            contain the affine transform of the subject's own MRI to MNI space.
        template: The head model.

    Raises:
        ValueError: Other frames, no rigid or affine transform, or a head whose MRI is not known.

    """
    ends = {int(trans["from"]), int(trans["to"])}
    if ends not in ({HEAD, MRI}, {HEAD, MNI}):
        raise ValueError(f"--trans: it is from {trans.from_str} to {trans.to_str}, {EXPECTED}")
    matrix: Array = np.asarray(trans["trans"], dtype=np.float64)
    _check_matrix(matrix, rigid=MRI in ends)
    if trans["to"] == HEAD:
        matrix = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    return np.asarray(mri_to_head(template, MNI in ends) @ matrix)


def mri_to_head(template: Template, from_mni: bool = False) -> Array:
    """Transform ``(4, 4)`` from the MRI of the subject of a head model to its head frame, m.

    Args:
        template: The head model.
        from_mni: From MNI305 instead, which is the MRI of fsaverage.

    Raises:
        ValueError: The MRI is not known.

    """
    import mne

    if template.mri_head is not None and not from_mni:
        return template.mri_head
    if template.warp_seed is None and np.isfinite(template.source_mni).all():  # fsaverage
        path = Path(str(mne.__file__)).parent / "data" / "fsaverage" / "fsaverage-trans.fif"
        return np.linalg.inv(mne.read_trans(path)["trans"])
    frame = "MNI space" if from_mni else "MRI"
    raise ValueError(
        f"--trans: the {frame} of the head {template.name!r} is not known, so no transform can "
        "place electrodes on it. Use fsaverage, or a head of your own built by this version "
        "(head: {bem: ..., src: ..., trans: ...}), which knows the MRI of its subject."
    )


def _check_matrix(matrix: Array, rigid: bool) -> None:
    """Refuse a matrix that is no transform, or not rigid between head and MRI."""
    linear = matrix[:3, :3]
    good = bool(np.isfinite(matrix).all()) and np.linalg.det(linear) > 0
    if good and rigid:
        good = bool(np.abs(linear @ linear.T - np.eye(3)).max() < 1e-3)
    if not good:
        kind = "rigid (a rotation and a shift)" if rigid else "affine, without a reflection"
        raise ValueError(
            f"--trans: its matrix {matrix.round(3).tolist()} is not {kind}. Write it again with "
            "MNE-Python's coregistration (mne coreg); scale in the subject, not in the transform."
        )
