"""Explanation of the estimate of one simulated recording, for the examples of reports."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.arrays import as_array
from deepesi.core.batch import Batch
from deepesi.core.contracts import InverseModel
from deepesi.interpret.any_model.frames import Frame
from deepesi.interpret.any_model.occlusion import filled, occluded
from deepesi.interpret.any_model.targets import Share, explained, neighbourhood
from deepesi.interpret.networks.gradients import has_gradients, run_of_model, saliency
from deepesi.metrics.moments import strongest_sample
from deepesi.physics.channel_check import channel_precision
from deepesi.physics.forward_check import ForwardCheck, forward_check
from deepesi.physics.head import magnitudes
from deepesi.physics.noise import whitener
from deepesi.utils.budget import within_budget

Array = NDArray[np.float64]

#: Most time for the occlusion of one example by one method, s; recordings estimated at once.
BUDGET, AT_ONCE = 15.0, 4


class ExampleExplanation(NamedTuple):
    """What the localization of one estimate depends on, and how well it fits the recording.

    Attributes:
        method: ``"saliency"`` of a network, ``"occlusion"`` of any other model.
        by_sensor: Share of the power near the strongest source, in % ``(C,)``: its change per
            standard deviation of the noise of a sensor (saliency), or how much of it is missing
            without the sensor (occlusion). None: it would have taken too long.
        check: Forward check of the strongest sample.

    """

    method: str
    by_sensor: Array | None
    check: ForwardCheck


def is_network(model: InverseModel) -> bool:
    """Whether a method is a network with weights of its own, and has gradients."""
    return has_gradients(model) and any(True for _ in model.parameters())


def explain_example(
    model: InverseModel, batch: Batch, mean: Tensor, budget: float = BUDGET
) -> ExampleExplanation:
    """Explain the localization of the strongest sample.

    Args:
        model: Any model; only networks have gradients.
        batch: One recording.
        mean: Its estimate ``(1, D, T)``, A m.
        budget: Most time for occlusion, s.

    """
    data, head = as_array(batch.data[0]), batch.head
    n_orient, sample = head.space.n_orient, strongest_sample(data)
    moments = as_array(mean[0, :, sample])
    peak = int(magnitudes(moments, n_orient).argmax())
    target = Share(neighbourhood(head.source_pos, peak), n_orient)
    check = forward_check(head.leadfield, whitener(head.noise_cov), moments, data[:, sample])
    if is_network(model):
        frame = Frame(data, (0,), data.shape[1], sample)
        function = explained(frame, run_of_model(model, batch.inputs), target)
        by_time = saliency(function, data, np.sqrt(head.noise_cov.diagonal()))
        return ExampleExplanation("saliency", target.factor * by_time.sum(1), check)

    def value(recordings: Array) -> Array:
        with torch.no_grad():
            means = model(torch.as_tensor(recordings).to(batch.data), batch.inputs).mean
        return np.asarray(target(as_array(means[:, :, sample])))

    recordings = occluded(data, filled(data, channel_precision(head)), head.sensors)
    parts = np.array_split(recordings, range(AT_ONCE, len(recordings), AT_ONCE))
    without = within_budget(value, parts, budget)
    by_sensor = None
    if without is not None:
        by_sensor = target.factor * (float(target(moments[None])[0]) - np.concatenate(without))
    return ExampleExplanation("occlusion", by_sensor, check)
