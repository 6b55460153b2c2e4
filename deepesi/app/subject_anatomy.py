"""Where the sources of a subject's own head are: MNI positions and parcels, by FreeSurfer."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Parcellation that FreeSurfer makes of every subject: Desikan et al. 2006,
#: doi:10.1016/j.neuroimage.2006.01.021.
PARCELLATION = "aparc"


class SubjectAnatomy(NamedTuple):
    """What the reconstruction of a subject says of its sources.

    Attributes:
        mni: MNI305 positions ``(S, 3)``, mm.
        parcels: Name of the parcel of every source, empty where it lies in none; no names where
            the folder has no parcellation.

    """

    mni: Array
    parcels: tuple[str, ...] = ()


def subject_anatomy(forward: "mne.Forward", subjects_dir: Path) -> SubjectAnatomy:
    """Look the sources of a forward solution up in the folder of its subject.

    Args:
        forward: On a cortical surface.
        subjects_dir: FreeSurfer's folder of subjects.

    Raises:
        FileNotFoundError: There is no such subject, or it has no Talairach transform.
        ValueError: The forward solution does not name its subject.

    """
    import mne

    subject = forward["src"][0].get("subject_his_id")
    if not subject:
        raise ValueError(
            "--subjects-dir: the forward solution does not name its subject. Compute it on a "
            "source space of mne.setup_source_space, which does."
        )
    transform = subjects_dir / subject / "mri" / "transforms" / "talairach.xfm"
    if not transform.is_file():
        raise FileNotFoundError(
            f"--subjects-dir: there is no {transform}, which leads to MNI positions. Give the "
            "folder of FreeSurfer's subjects (SUBJECTS_DIR), or leave it out."
        )
    mni = mne.head_to_mni(
        forward["source_rr"], subject, forward["mri_head_t"], subjects_dir, verbose="error"
    )
    return SubjectAnatomy(np.asarray(mni), _parcels(forward, subject, subjects_dir))


def _parcels(forward: "mne.Forward", subject: str, subjects_dir: Path) -> tuple[str, ...]:
    import mne

    names = list[str]()
    for side, part in zip(("lh", "rh"), forward["src"], strict=True):
        file = subjects_dir / subject / "label" / f"{side}.{PARCELLATION}.annot"
        if not file.is_file():
            return ()
        labels = mne.read_labels_from_annot(subject, annot_fname=file, verbose="error")
        of_vertex = {v: label.name for label in labels for v in label.vertices.tolist()}
        names += [of_vertex.get(v, "") for v in part["vertno"].tolist()]
    return tuple(names)
