"""Saliency of one simulated recording, for reports: what the localization depends on."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.arrays import as_array
from deepesi.core.batch import Batch
from deepesi.core.contracts import InverseModel
from deepesi.core.onnx_model import OnnxModel
from deepesi.interpret.any_model.frames import Frame
from deepesi.interpret.any_model.targets import Share, explained, neighbourhood
from deepesi.interpret.networks.gradients import run_of_model, saliency
from deepesi.metrics.moments import strongest_sample
from deepesi.physics.head import magnitudes

Array = NDArray[np.float64]


def is_network(model: object) -> bool:
    """Whether a method is a network in torch, with weights of its own."""
    return (
        isinstance(model, InverseModel)
        and not isinstance(model, OnnxModel)
        and any(True for _ in model.parameters())
    )


def example_saliency(model: InverseModel, batch: Batch, mean: Tensor) -> Array:
    """Change of the share of the power near the strongest source ``(C,)``, % per noise SD.

    Args:
        model: The network.
        batch: One recording.
        mean: Its estimate ``(1, D, T)``, A m.

    """
    data, head = as_array(batch.data[0]), batch.head
    n_orient, sample = head.space.n_orient, strongest_sample(data)
    peak = int(magnitudes(as_array(mean[0, :, sample]), n_orient).argmax())
    target = Share(neighbourhood(head.source_pos, peak), n_orient)
    frame = Frame(data, (0,), data.shape[1], sample)
    function = explained(frame, run_of_model(model, batch.inputs), target)
    found = saliency(function, data, np.sqrt(head.noise_cov.diagonal()))
    return target.factor * found.sum(1)
