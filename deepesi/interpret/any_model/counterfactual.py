"""Counterfactual: the least change of a recording that moves the peak of its estimate.

Source: linearization step by step as in DeepFool, Moosavi-Dezfooli et al. 2016,
doi:10.1109/CVPR.2016.282; sparse changes as in SparseFool, Modas et al. 2019,
doi:10.1109/CVPR.2019.00930. Differences: derivatives are computed by differences, so that any model
can be explained; few sensors change, because only the most effective ones may.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepesi.interpret.any_model.frames import Frame, Run
from deepesi.physics.head import magnitudes
from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Numbers of sensors that may change; all at once only where so few do not suffice.
N_CHANGED = (1, 2, 4, 8, 16)
#: Step of the differences, and largest change that is tried, standard deviations of the noise.
STEP, LARGEST = 0.1, 1000.0
#: Linearizations per number of sensors, and the share by which each step is made longer.
N_STEPS, OVERSHOOT = 8, 0.02
#: Fractions of a change that are tried at once to find the least that suffices, in two rounds.
N_FRACTIONS = 6


@dataclass(frozen=True)
class Counterfactual:
    """A change of a recording, and where the peak is with it.

    Attributes:
        change: Change of every sensor ``(C,)``, standard deviations of its noise, the same in all
            samples of `Frame`.
        before: Strongest source of the recording.
        after: Strongest source with the change.

    """

    change: Array
    before: int
    after: int

    @property
    def sensors(self) -> list[int]:
        """Sensors that change, the most first."""
        order = np.argsort(-np.abs(self.change))
        return [int(row) for row in order if self.change[row] != 0]

    @property
    def size(self) -> float:
        """Norm of the change, standard deviations of the noise."""
        return float(np.linalg.norm(self.change))

    @property
    def cost(self) -> float:
        """Sum of the absolute changes. It is small if few sensors change by little."""
        return float(np.abs(self.change).sum())


@dataclass(frozen=True)
class ChangedRecording:
    """Magnitudes of an estimate as a function of a change of the recording.

    Attributes:
        frame: The explained sample.
        run: The model.
        sensors: The sensors.
        noise_std: Standard deviation of the noise of every sensor ``(C,)``, V.
        n_orient: Components per source.

    """

    frame: Frame
    run: Run
    sensors: SensorArray
    noise_std: Array
    n_orient: int

    def magnitudes(self, changes: Array) -> Array:
        """Magnitudes ``(B, S)``, A m, with changes ``(B, C)``, standard deviations of the noise."""
        volts = self.sensors.reference(changes * self.noise_std, axis=1)
        moments = self.frame.moments(self.run, self.frame.data + volts[:, :, None])
        return magnitudes(moments.reshape(len(moments), -1).T, self.n_orient).T

    def derivatives(self, change: Array, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Magnitudes ``(S,)`` at a change ``(C,)``, and their derivatives ``(S, K)`` there.

        Args:
            change: Standard deviations of the noise.
            rows: The sensors of the derivatives.

        """
        steps = np.zeros((len(rows), len(change)))
        steps[np.arange(len(rows)), rows] = STEP
        here, *ahead = self.magnitudes(change + np.concatenate([0 * steps[:1], steps]))
        return here, (np.array(ahead) - here).T / STEP


def counterfactual(changed: ChangedRecording, elsewhere: Mask) -> Counterfactual | None:
    """The change of least cost that moves the strongest source.

    For every number of sensors in `N_CHANGED` the change of least norm is searched for, unless its
    first step costs more than the best change so far; the one with the smallest sum of absolute
    changes is kept. The result is checked with the model. It is a local search: there may be a
    smaller change.

    Args:
        changed: The model, around the recording.
        elsewhere: Which sources the peak may move to ``(S,)``, as in
            `deepesi.physics.lobes.elsewhere`.

    Returns:
        None: no change of at most `LARGEST` was found.

    """
    n_channels = len(changed.noise_std)
    start = changed.derivatives(np.zeros(n_channels), np.arange(n_channels))
    best: Counterfactual | None = None
    for number in (*(n for n in N_CHANGED if n < n_channels), n_channels):
        step = _step(*start, elsewhere, number)
        is_promising = step is not None and (best is None or np.abs(step).sum() < best.cost)
        if not is_promising or (number == n_channels and best is not None):
            continue
        change = _least_norm(changed, elsewhere, start, number)
        if change is None:
            continue
        after = int(changed.magnitudes(change[None])[0].argmax())
        candidate = Counterfactual(change, int(start[0].argmax()), after)
        best = candidate if best is None or candidate.cost < best.cost else best
    return best


def _least_norm(
    changed: ChangedRecording, elsewhere: Mask, start: tuple[Array, Array], number: int
) -> Array | None:
    """A small change of some sensors ``(C,)`` that moves the peak; None: none was found."""
    change, rows = np.zeros(len(changed.noise_std)), np.arange(len(changed.noise_std))
    values, slopes = start
    for _ in range(N_STEPS):
        step = _step(values, slopes, elsewhere, number)
        if step is None:
            return None
        if number < len(rows):  # the first step decides which sensors may change
            rows = np.flatnonzero(step)
            step = step[rows]
        change = change.copy()
        change[rows] += step
        if np.linalg.norm(change) > LARGEST:
            return None
        values, slopes = changed.derivatives(change, rows)
        if elsewhere[values.argmax()]:
            return _shrunk(changed, elsewhere, change)
    return None


def _step(values: Array, slopes: Array, elsewhere: Mask, number: int) -> Array | None:
    """The least change ``(K,)`` that makes a source elsewhere as strong as the strongest one.

    Args:
        values: Magnitudes ``(S,)``.
        slopes: Their derivatives ``(S, K)``.
        elsewhere: Which sources the peak may move to ``(S,)``.
        number: Number of sensors that may change.

    """
    peak = int(np.where(elsewhere, -np.inf, values).argmax())
    others = np.flatnonzero(elsewhere)
    direction = slopes[others] - slopes[peak]
    kept = np.argpartition(-np.abs(direction), min(number, slopes.shape[1]) - 1, axis=1)[:, :number]
    sparse = np.zeros_like(direction)
    np.put_along_axis(sparse, kept, np.take_along_axis(direction, kept, axis=1), axis=1)
    power = (sparse**2).sum(1)
    gap = (1 + OVERSHOOT) * (values[peak] - values[others]) + OVERSHOOT * 1e-3 * values[peak]
    size = np.divide(gap, np.sqrt(power), out=np.full_like(gap, np.inf), where=power > 0)
    best = int(size.argmin()) if len(size) else 0
    if not len(size) or not np.isfinite(size[best]):
        return None
    return np.asarray(gap[best] / power[best] * sparse[best])


def _shrunk(changed: ChangedRecording, elsewhere: Mask, change: Array) -> Array:
    """The least multiple of a change that still moves the peak."""
    low, high = 0.0, 1.0
    for _ in range(2):
        fractions = np.linspace(low, high, N_FRACTIONS + 1)[1:]
        peaks = changed.magnitudes(fractions[:, None] * change).argmax(1)
        moved = np.flatnonzero(elsewhere[peaks])
        first = int(moved[0]) if len(moved) else N_FRACTIONS - 1
        low, high = ([low, *fractions][first], float(fractions[first]))
    return high * change
