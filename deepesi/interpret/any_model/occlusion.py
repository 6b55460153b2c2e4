"""Occlusion: what changes if a sensor is lost. It needs no gradients and runs on any model.

Source: Zeiler & Fergus 2014, doi:10.1007/978-3-319-10590-1_53. Difference: a lost sensor is
replaced by what the others predict, because a potential of zero among others is not neutral.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.interpret.any_model.frames import Explained
from deepesi.physics.channel_check import predicted_channels
from deepesi.physics.head import magnitudes
from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]


def filled(data: Array, precision: Array) -> Array:
    """Every channel as all others predict it ``(C, T)``, V.

    Args:
        data: Referenced data ``(C, T)``, V.
        precision: Precision of the channels, from `deepesi.physics.channel_check`.

    """
    return np.concatenate([predicted_channels(precision, data, [row]) for row in range(len(data))])


def occluded(data: Array, fill: Array, sensors: SensorArray, n_spans: int = 1) -> Array:
    """The recording without each sensor in each span of time ``(C * n_spans, C, T)``, referenced.

    Args:
        data: Referenced data ``(C, T)``, V.
        fill: Values that replace lost ones ``(C, T)``, V, such as `filled`.
        sensors: The ``C`` sensors.
        n_spans: Number of spans of about equal length, at most ``T``.

    Raises:
        ValueError: The fill has another shape, or there are more spans than samples.

    """
    if fill.shape != data.shape or not 1 <= n_spans <= data.shape[1]:
        raise ValueError(
            f"occlusion: fill of shape {fill.shape} and {n_spans} spans for data of shape "
            f"{data.shape}, expected the same shape and 1 to {data.shape[1]} spans."
        )
    spans = np.array_split(np.arange(data.shape[1]), n_spans)
    batch = np.repeat(data[None], len(data) * n_spans, axis=0)
    for number, (row, span) in enumerate((r, s) for r in range(len(data)) for s in spans):
        batch[number, row, span] = fill[row, span]
    return sensors.reference(batch, axis=1)


def occlusion(
    function: Explained, data: Array, fill: Array, sensors: SensorArray, n_spans: int = 1
) -> Array:
    """How much each sensor adds to the explained value ``(C, T)``, in its unit.

    All samples of a span have the same value. Arguments as in `occluded`.
    """
    whole = np.asarray(function(data[None]))
    without = np.asarray(function(occluded(data, fill, sensors, n_spans)))
    spans = np.array_split(np.arange(data.shape[1]), n_spans)
    change = (whole - without).reshape(len(data), n_spans)
    return np.repeat(change, [len(span) for span in spans], axis=1)


class LostSensor(NamedTuple):
    """A sensor without which the strongest source is another one.

    Attributes:
        sensor: Its number.
        peak: The strongest source without it.
        distance: Distance to the strongest source with it, m.

    """

    sensor: int
    peak: int
    distance: float


def moving_sensors(
    moments: Array, without: Array, positions: Array, n_orient: int, least: float
) -> list[LostSensor]:
    """Sensors whose loss moves the strongest source, the farthest first.

    Args:
        moments: Moments of the estimate ``(D,)``, A m.
        without: Moments without each sensor ``(C, D)``, A m, from recordings of `occluded`.
        positions: Source positions ``(S, 3)``, m.
        n_orient: Components per source.
        least: Least distance that counts, m.

    """
    before = int(magnitudes(moments, n_orient).argmax())
    lost = [
        LostSensor(row, peak, float(np.linalg.norm(positions[peak] - positions[before])))
        for row, peak in enumerate(magnitudes(without.T, n_orient).argmax(0).tolist())
    ]
    return sorted((s for s in lost if s.distance >= least), key=lambda s: -s.distance)
