"""MNI positions and parcels of the sources of a subject, from FreeSurfer."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.io.forward_head import TEMPLATE_SUBJECT
from deepesi.utils.files import parsing
from deepesi.utils.optional import require

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: Parcellation of FreeSurfer for every subject: Desikan et al. 2006,
#: doi:10.1016/j.neuroimage.2006.01.021.
PARCELLATION = "aparc"


class SubjectAnatomy(NamedTuple):
    """Anatomical information on sources from the reconstruction of a subject.

    Attributes:
        mni: MNI305 positions ``(S, 3)``, mm.
        parcels: Name of the parcel of every source, empty outside all parcels; no names if the
            folder has no parcellation.

    """

    mni: Array
    parcels: tuple[str, ...] = ()


def anatomy_of(forward: "mne.Forward | None", subjects_dir: Path | None) -> SubjectAnatomy | None:
    """What is known of the sources of a forward solution; None: nothing.

    Args:
        forward: Forward solution of a recording, if it has its own.
        subjects_dir: FreeSurfer's folder of subjects. Without it the positions of fsaverage are
            known: its MRI (surface RAS) is MNI305 space.

    Raises:
        FileNotFoundError: As in `subject_anatomy`.
        ModuleNotFoundError: As in `subject_anatomy`.
        ValueError: As in `subject_anatomy`.

    """
    from mne.transforms import apply_trans, invert_transform

    if forward is None:
        return None
    if subjects_dir is not None:
        return subject_anatomy(forward, subjects_dir)
    if forward["src"][0].get("subject_his_id") != TEMPLATE_SUBJECT:
        return None
    mri = apply_trans(invert_transform(forward["mri_head_t"]), forward["source_rr"])
    return SubjectAnatomy(1e3 * np.asarray(mri))


def subject_anatomy(forward: "mne.Forward", subjects_dir: Path) -> SubjectAnatomy:
    """Look up the sources of a forward solution in the folder of its subject.

    Args:
        forward: Forward solution on a cortical surface.
        subjects_dir: FreeSurfer's folder of subjects.

    Raises:
        FileNotFoundError: There is no such subject, or it has no Talairach transform.
        ModuleNotFoundError: Without nibabel.
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
    nibabel = require("nibabel.freesurfer", "head", "read the files of FreeSurfer")
    mni = mne.head_to_mni(
        forward["source_rr"], subject, forward["mri_head_t"], subjects_dir, verbose="error"
    )
    files = [subjects_dir / subject / "label" / f"{s}.{PARCELLATION}.annot" for s in ("lh", "rh")]
    if not all(file.is_file() for file in files):
        return SubjectAnatomy(np.asarray(mni))
    found = list[str]()
    for file, part in zip(files, forward["src"], strict=True):
        with parsing(file, "parcellation", "Make it again with FreeSurfer (recon-all)."):
            of_vertex, _, names = nibabel.read_annot(file)
            of_source = of_vertex[part["vertno"]].tolist()
        found += [names[number].decode() if number >= 0 else "" for number in of_source]
    return SubjectAnatomy(np.asarray(mni), tuple(found))
