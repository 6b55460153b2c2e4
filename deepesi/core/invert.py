"""Applies an inverse model to one recording under a head, for work in Python without a batch."""

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.core.contracts import Estimate, InverseModel, as_tensors
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import prepare


def invert(model: InverseModel, head: HeadModel, data: NDArray[np.float64]) -> Estimate:
    """Estimate the sources of one recording.

    `deepesi.apply` does this for recordings of MNE-Python, with all checks of a recording.

    Args:
        model: A network or a classical method.
        head: Head under the set-up of the recording; its noise covariance is that of the data.
        data: ``(C, T)``, SI units, any reference, in the order of the sensors of the head.

    Returns:
        Estimate with a batch axis of 1: ``mean[0]`` is ``(D, T)``, A m.

    Raises:
        ValueError: Data are not ``(C, T)`` of this head, or not finite.

    """
    n_channels = len(head.sensors.names)
    if data.ndim != 2 or len(data) != n_channels or not np.isfinite(data).all():
        raise ValueError(
            f"invert: got data of shape {data.shape}, expected finite values of shape "
            f"({n_channels} channels of the head, times)."
        )
    model.eval()
    batch = torch.as_tensor(head.sensors.to_head(data)[None], dtype=torch.float32)
    with torch.no_grad():
        estimate: Estimate = model(batch, as_tensors(prepare(model.head_inputs, head)))
    return estimate
