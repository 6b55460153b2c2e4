"""Sample subject of MNE-Python: visual and auditory responses, with the subject head."""

from pathlib import Path

from scipy.spatial import cKDTree

from deepesi.physics.io.selection import channels_to_localize
from deepesi.validation.case import Case, OwnHead, require_files
from deepesi.validation.expectation import Expectation, Hemisphere

ANATOMY = {
    "left V1": "subjects/sample/label/lh.V1.label",
    "right V1": "subjects/sample/label/rh.V1.label",
    "transform to MNI305": "subjects/sample/mri/transforms/talairach.xfm",
    "MRI": "subjects/sample/mri/T1.mgz",
}
#: Downloaded data set of MNE: 55 to 70 trials per condition.
DOWNLOADED = ANATOMY | {
    "evoked responses": "MEG/sample/sample_audvis-ave.fif",
    "noise covariance": "MEG/sample/sample_audvis-cov.fif",
    "own forward solution": "MEG/sample/sample_audvis-meg-eeg-oct-6-fwd.fif",
}
#: Small test recordings of MNE-Python, same subject, with an EEG forward solution: EEG alone.
SHORT = ANATOMY | {
    "evoked responses": "derived/sample_audvis_short_eegonly-ave.fif",
    "noise covariance": "sample_audvis_short-cov.fif",
    "own forward solution": "derived/sample-oct5-eeg-fwd.fif",
}
#: The same responses with MEG.
WITH_MEG = "sample_audvis_short-ave.fif.gz"
ORIGIN = "MNE-Python's sample data set (mne.datasets.sample.data_path())"
VISUAL = (
    "stimuli of one half of the visual field reach the visual cortex of the other hemisphere; "
    "early components arise in and around V1 (Di Russo et al. 2002, doi:10.1002/hbm.10010)"
)
AUDITORY = (
    "the N1 to a tone in one ear arises in both auditory cortices, more strongly in the opposite "
    "one (Näätänen & Picton 1987, doi:10.1111/j.1469-8986.1987.tb00311.x)"
)
#: Condition to expected hemisphere, area, lobe, reason and window (s).
CONDITIONS: dict[str, tuple[Hemisphere, str, str, str, tuple[float, float]]] = {
    "Left visual": ("right", "calcarine cortex", "occipital", VISUAL, (0.08, 0.2)),
    "Right visual": ("left", "calcarine cortex", "occipital", VISUAL, (0.08, 0.2)),
    "Left Auditory": ("right", "Heschl's gyrus", "temporal", AUDITORY, (0.06, 0.14)),
    "Right Auditory": ("left", "Heschl's gyrus", "temporal", AUDITORY, (0.06, 0.14)),
}


def sample_cases(data: Path, picks: tuple[str, ...] | None = None) -> list[Case]:
    """Read the four responses.

    Args:
        data: Folder of the sample data set of MNE-Python (``mne.datasets.sample.data_path()``), or
            of the short recordings with the derived EEG forward solution.
        picks: Kinds of sensors, as in `Case`; None: EEG.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A condition is missing, or a kind of sensors is not one to pick.

    """
    import mne

    kinds = picks or ("eeg",)
    layout = DOWNLOADED if (data / "MEG" / "sample").is_dir() else SHORT
    if layout is SHORT and set(kinds) - {"eeg"}:
        layout = SHORT | {"evoked responses": WITH_MEG}
    files = require_files(data, layout, ORIGIN)
    evokeds = {
        evoked.comment: evoked
        for evoked in mne.read_evokeds(files["evoked responses"], proj=False, verbose="error")
    }
    missing = [name for name in CONDITIONS if name not in evokeds]
    if missing:
        raise ValueError(
            f"{files['evoked responses']}: it has no conditions {missing}, only {list(evokeds)}. "
            "Use the averages that come with the data set."
        )
    covariance = mne.read_cov(files["noise covariance"], verbose="error")
    first = evokeds[next(iter(CONDITIONS))].info
    channels = channels_to_localize(first, None, kinds)
    own = _own_head(files, data / "subjects")
    has_all = channels.keys() <= set(own.forward["sol"]["row_names"])
    return [
        Case(
            "sample",
            name,
            evokeds[name].apply_baseline((None, 0), verbose="error"),
            covariance,
            window,
            Expectation(hemisphere, area, lobe, why),
            own if has_all else None,
            picks=kinds,
        )
        for name, (hemisphere, area, lobe, why, window) in CONDITIONS.items()
    ]


def _own_head(files: dict[str, Path], subjects: Path) -> OwnHead:
    """Read the forward solution; compute MNI positions and distances to the V1 labels."""
    import mne

    forward = mne.read_forward_solution(files["own forward solution"], verbose="error")
    positions, to_head = forward["source_rr"], forward["mri_head_t"]
    mni = mne.head_to_mni(positions, "sample", to_head, subjects_dir=subjects, verbose="error")
    in_mri = mne.transforms.apply_trans(mne.transforms.invert_transform(to_head), positions)
    distances, targets = {}, {}
    for name, (hemisphere, area, *_) in CONDITIONS.items():
        if area == "calcarine cortex":
            label = mne.read_label(files[f"{hemisphere} V1"])
            distances[name] = 1e3 * cKDTree(label.pos).query(in_mri)[0]
            targets[name] = f"nearest vertex of the subject's {hemisphere} V1 label"
    return OwnHead(forward, mni, distances, targets)
