"""Splits long recordings into overlapping windows of the length of training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Number of windows with estimates in memory; `session` computes fewer at once.
AT_ONCE = 64


class Windows(NamedTuple):
    """Windows of a recording, in its samples.

    Attributes:
        starts: First sample of each, ascending.
        length: Length of each.
        first: First sample to estimate.
        last: Sample after the last one to estimate.

    """

    starts: list[int]
    length: int
    first: int
    last: int

    @property
    def stop(self) -> int:
        """The sample after the last window."""
        return self.starts[-1] + self.length


def windows_of(n_times: int, longest: int | None, first: int, last: int) -> Windows:
    """Windows that overlap the samples from `first` to `last` (exclusive) of a recording.

    Each overlaps half of the one before, for any `first`, and the last ends with the recording.
    There is one window if any length is allowed or the recording is not longer.

    Args:
        n_times: Number of samples of the recording.
        longest: Longest window, samples; None: any.
        first: First sample to estimate.
        last: Sample after the last one to estimate.

    """
    if longest is None:
        return Windows([first], last - first, first, last)
    length = min(longest, n_times)
    starts = list(range(0, n_times - length + 1, max(1, length // 2)))
    if starts[-1] + length < n_times:
        starts.append(n_times - length)
    touching = [start for start in starts if start < last and start + length > first]
    return Windows(touching, length, first, last)


def fading(length: int) -> Array:
    """``sin²`` taper, zero at both ends; it sums to 1 over windows with half overlap."""
    return np.asarray(np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2)


def overlap_add(
    run: Callable[[Array], Sequence[NDArray[np.floating]]], data: Array, windows: Windows
) -> list[Array]:
    """Estimates of the requested samples: weighted means over windows.

    The weights of `fading` avoid steps between windows.

    Args:
        run: Function from windows ``(B, C, T)`` to outputs ``(B, D, T)``.
        data: ``(C, N)``, from the first sample of the first window to the end of the last.
        windows: The windows.

    Returns:
        ``(D, last - first)`` for each output.

    """
    starts, length, first, last = windows
    weight = fading(length)
    total, sums = np.zeros(last - first), list[Array]()
    for number in range(0, len(starts), AT_ONCE):
        some = starts[number : number + AT_ONCE]
        outputs = run(np.stack([data[:, s - starts[0] :][:, :length] for s in some]))
        if not sums:
            sums = [np.zeros((output.shape[1], last - first)) for output in outputs]
        for i, start in enumerate(some):
            inside = slice(max(first - start, 0), min(last - start, length))
            there = slice(start + inside.start - first, start + inside.stop - first)
            total[there] += weight[inside]
            for found, output in zip(sums, outputs, strict=True):
                found[:, there] += weight[inside] * output[i][:, inside]
    return [found / total for found in sums]
