"""Occlusion of one simulated recording, for reports: what the localization is made of."""

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.core.arrays import as_array
from deepesi.core.contracts import Batch, InverseModel
from deepesi.core.onnx_model import OnnxModel
from deepesi.interpret.frames import Frame
from deepesi.interpret.occlusion import filled, occlusion
from deepesi.interpret.targets import Share, explained, neighbourhood
from deepesi.metrics.moments import strongest_sample
from deepesi.physics.channel_check import channel_precision
from deepesi.physics.head import magnitudes

Array = NDArray[np.float64]


def is_network(model: object) -> bool:
    """Whether a method is a network in torch, with weights of its own."""
    return (
        isinstance(model, InverseModel)
        and not isinstance(model, OnnxModel)
        and any(True for _ in model.parameters())
    )


def example_occlusion(model: InverseModel, batch: Batch, mean: torch.Tensor) -> Array:
    """What each sensor adds to the share of the power near the strongest source ``(C,)``, %.

    Args:
        model: The network.
        batch: One recording.
        mean: Its estimate ``(1, D, T)``, A m.

    """
    data, head = as_array(batch.data[0]), batch.head
    n_orient, inputs = head.space.n_orient, batch.inputs
    sample = strongest_sample(data)
    peak = int(magnitudes(as_array(mean[0, :, sample]), n_orient).argmax())
    frame = Frame(data, (0,), data.shape[1], sample)
    target = Share(neighbourhood(head.source_pos, peak), n_orient)

    def run(changed: Array) -> Array:
        with torch.no_grad():
            return as_array(model(torch.as_tensor(changed, dtype=batch.data.dtype), inputs).mean)

    fill = filled(data, channel_precision(head))
    function = explained(frame, run, target)
    return target.factor * occlusion(function, data, fill, head.sensors)[:, 0]
