"""The set-up of one recording: its strongest sample, the methods and the strangers for it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.advice.methods import Methods
from deepesi.advice.simulated_subjects import Conditions, StrangerRanges, StrangerSource
from deepesi.data_gen.caps import DIGITIZED, NAMES
from deepesi.data_gen.fine_cortex import check_anatomy
from deepesi.physics.cap_placement import TRANSFORM
from deepesi.physics.noise import snr_db_of_power
from deepesi.physics.template import Template, free_orientation
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.methods import snr_on_grid
from deepesi.runtime.noise_check import check_noise, quietest_average
from deepesi.runtime.nominal_head import noise_cov_of, scalp_points
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.runtime.recordings import recording_rows
from deepesi.runtime.writing.estimate import in_window

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


class Judged(NamedTuple):
    """The strongest sample of a recording.

    Attributes:
        data: Referenced recording ``(C, T)``, V.
        sample: Number of the sample.
        time: Time of the sample, s.
        power: Whitened power of the sample, 1 for noise.
        n_samples: Number of samples in the window.

    """

    data: Array
    sample: int
    time: float
    power: float
    n_samples: int

    @property
    def snr_db(self) -> float:
        """SNR of whitened data, dB."""
        return float(snr_db_of_power(np.array(self.power)))


def strongest_sample(
    evoked: "mne.Evoked", inverse: PreparedInverse, window: Sequence[float]
) -> Judged:
    """The sample of largest whitened power in a window (s).

    Raises:
        ValueError: MEG channels; less power than the noise has, or far more, as in `check_noise`.

    """
    inverse.sensors.check_eeg_only("advise")
    data = inverse.sensors.reference(evoked.data[recording_rows(evoked, inverse.ch_names)])
    power, times = inverse.power(data), evoked.times
    seconds = len(times) / float(evoked.info["sfreq"])
    check_noise(power, quietest_average(inverse.rank, seconds), inverse.nave)
    inside = in_window(times, window)
    sample = int(np.where(inside, power, -np.inf).argmax())
    return Judged(data, sample, float(times[sample]), float(power[sample]), int(inside.sum()))


def free_template(model: Inverse, inverse: PreparedInverse) -> Template:
    """The head of a prepared model, with three components per source.

    Raises:
        ValueError: The model was prepared on another head, or the anatomy of the head cannot be
            varied.

    """
    template = model.template
    if template.space.fixed.fingerprint != inverse.space.fixed.fingerprint:
        raise ValueError(
            f"--prepared: it is of the source space {inverse.space.name}, and strangers are "
            f"simulated on {template.name}. Give --noise-cov and --head in place of --prepared."
        )
    if not template.source_normals.any(axis=1).all():
        raise ValueError(
            f"advise: the head {template.name} has sources on no surface, so there are no "
            "anatomies of other people for it. Use a model for a cortical head, such as "
            "fsaverage-ico3."
        )
    check_anatomy(template)
    return template if template.space.n_orient == 3 else free_orientation(template)


def ranges_of(inverse: PreparedInverse, template: Template) -> StrangerRanges:
    """Ranges of strangers whose analyst knows as much as that of the recording.

    A transform or a head of the subject stands for digitized electrodes. Others are known
    by their names: a fit to the head of somebody else does not give the pose of the cap.
    """
    own = template.mri_head is not None
    by_transform = inverse.placement is not None and inverse.placement.method == TRANSFORM
    knowledge = DIGITIZED if own or by_transform else NAMES
    return StrangerRanges(knowledge, None) if own else StrangerRanges(knowledge)


def prepare_study(
    name: str, inverse: PreparedInverse, template: Template, judged: Judged
) -> tuple[StrangerSource, Methods]:
    """Strangers and methods under the set-up of a prepared model.

    Args:
        name: Name of the model.
        inverse: The prepared model.
        template: Head of the prepared model, with free orientation.
        judged: The sample that is judged.

    """
    positions, noise_cov = scalp_points(inverse, template), noise_cov_of(inverse)
    head = template.head(inverse.ch_names, positions, noise_cov)
    white = inverse.whitener @ judged.data[:, judged.sample, None]
    methods = Methods(name, inverse, head, snr_on_grid(white, inverse.rank))
    return StrangerSource(Conditions(template, positions, noise_cov)), methods
