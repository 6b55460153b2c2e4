"""The nominal head of a prepared model: what the analyst of a recording assumes."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.io.heads import head_from_forward
from deepesi.physics.scalp import ScalpPoints, project_to_mesh
from deepesi.physics.template import Template
from deepesi.runtime.prepared_inverse import PreparedInverse

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]


def scalp_points(inverse: PreparedInverse, template: Template) -> ScalpPoints:
    """Positions of the sensors of a prepared model on the scalp of its head."""
    family = template.family
    return project_to_mesh(inverse.sensors.positions, family.scalp_pos, family.scalp_faces)


def noise_cov_of(inverse: PreparedInverse) -> Array:
    """Noise covariance ``(C, C)`` that a model was prepared with, of its averages."""
    root = np.linalg.pinv(inverse.whitener, hermitian=True)
    return inverse.sensors.reference_cov(root @ root)


def nominal_head(inverse: PreparedInverse, template: Template) -> HeadModel:
    """A packaged or own head under the set-up of a model that was prepared on it."""
    places = scalp_points(inverse, template)
    return template.head(inverse.ch_names, places, noise_cov_of(inverse))


def nominal_head_of_forward(
    inverse: PreparedInverse, info: "mne.Info", forward: "mne.Forward"
) -> HeadModel:
    """The head of a forward solution that a model was prepared with for a recording."""
    import mne

    units = inverse.sensors.head_units
    cov = inverse.nave * np.outer(units, units) * noise_cov_of(inverse)
    single_trial = mne.Covariance(cov, list(inverse.ch_names), [], [], nfree=10**6)
    n_orient = inverse.space.n_orient
    return head_from_forward(info, single_trial, forward, inverse.nave, None, n_orient)
