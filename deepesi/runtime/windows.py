"""Long recordings in windows no longer than a network was trained on, laid over each other."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Windows whose estimates are held at once; fewer are computed at once, see `session`.
AT_ONCE = 64


class Windows(NamedTuple):
    """Windows of a recording, in its samples.

    Attributes:
        starts: Their first samples, rising.
        length: Of each.
        first: First sample they are to say something on.
        last: The one after the last of these.

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
    """Windows that say something on samples `first` up to, not with, `last` of a recording.

    Each lies half over the one before, whatever samples are asked for, and the last ends with the
    recording. One window where any length goes or the recording is no longer.

    Args:
        n_times: Samples of the recording.
        longest: Longest window, samples; None: any.
        first: See above.
        last: See above.

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
    """``sin²``, nothing at both ends; of windows that lie half over each other it sums to 1."""
    return np.asarray(np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2)


def overlap_add(
    run: Callable[[Array], Sequence[NDArray[np.floating]]], data: Array, windows: Windows
) -> list[Array]:
    """Estimates of the samples wanted: means over the windows they lie in.

    Weighted by `fading`, so that one window passes into the next without a seam.

    Args:
        run: From windows ``(B, C, T)`` to outputs ``(B, D, T)``.
        data: ``(C, N)``, from the first sample of the first window to the end of the last.
        windows: Which they are.

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
