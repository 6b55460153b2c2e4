"""The samples of a recording that the estimate of one sample depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.runtime.windows import fading, windows_of

Array = NDArray[np.float64]
#: An array of NumPy or a tensor: what explains an estimate is written once for both.
Values = Any
#: Means ``(B, D, T)``, A m, of referenced windows ``(B, C, T)``, V.
Run = Callable[[Values], Values]
#: Quantity ``(B,)`` that is explained, of recordings ``(B, C, T)``, V.
Explained = Callable[[Values], Values]


@dataclass(frozen=True)
class Frame:
    """The samples that are input of a model when it estimates one of them.

    A network that was trained on windows gets one or two windows of the length of training, whose
    estimates are averaged as in `deepesi.runtime.windows.overlap_add`. Any other model gets
    this sample alone.

    Attributes:
        data: Referenced data ``(C, T)``, V.
        starts: First sample of each window, in `data`.
        length: Length of the windows, samples.
        sample: The explained sample, in `data`.
        first: First sample of `data` in the recording.

    """

    data: Array
    starts: tuple[int, ...]
    length: int
    sample: int
    first: int = 0

    def moments(self, run: Run, data: Values) -> Values:
        """Dipole moments of the sample ``(B, D)``, A m, for data in place of these ``(B, C, T)``.

        Args:
            run: Estimates windows.
            data: Referenced data of the size of `data`, V.

        """
        taper = [float(fading(self.length)[self.sample - start]) for start in self.starts]
        parts = [
            weight
            / sum(taper)
            * run(data[:, :, start : start + self.length])[:, :, self.sample - start]
            for start, weight in zip(self.starts, taper, strict=True)
        ]
        return sum(parts[1:], start=parts[0])


def frame_at(data: Array, sample: int, longest: int | None) -> Frame:
    """The frame of one sample of a recording.

    Args:
        data: Referenced recording ``(C, T)``, V.
        sample: Number of the sample.
        longest: Longest window of the model, samples; None: it takes a sample alone.

    Raises:
        ValueError: The recording has no such sample.

    """
    if not 0 <= sample < data.shape[1]:
        raise ValueError(
            f"frame_at: sample {sample} of a recording of {data.shape[1]} samples, expected 0 to "
            f"{data.shape[1] - 1}."
        )
    windows = windows_of(data.shape[1], longest, sample, sample + 1)
    first = windows.starts[0]
    starts = tuple(start - first for start in windows.starts)
    return Frame(data[:, first : windows.stop], starts, windows.length, sample - first, first)


def run_of(inverse: PreparedInverse) -> Run:
    """Means of the windows of an exported file or a solver, in NumPy.

    The function raises `ValueError` for moments that are not finite.
    """

    def run(batch: Array) -> Array:
        means = inverse.model.run(batch, inverse.feeds)["mean"]
        if not np.isfinite(means).all():
            raise ValueError(
                "explain: the model gave NaN or infinite moments for the recording with a small "
                "change. Its training diverged or its file is damaged; use another model."
            )
        return np.asarray(means, dtype=np.float64)

    return run
