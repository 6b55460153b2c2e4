"""Samples of a stream, before and after the clock has decided on them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Stamp, arrival where it is a mark, and arrival of a sample (s).
Marks = tuple[float, float, float]


class Sample(NamedTuple):
    """A sample as it came: its times (NaN if they are no marks), and how late these are, s."""

    stamp: float
    arrival: float
    arrived: float
    late: float
    arrived_late: float


class Decided(NamedTuple):
    """Samples that were decided on, in the order they came.

    Attributes:
        times: Times of the fitted clock ``(n,)``, s, strictly rising; NaN where late.
        arrived: When they came ``(n,)``, s.
        late: Older than what had come before ``(n,)``.
        breaks: Behind a gap or a step of the clock ``(n,)``.

    """

    times: Array
    arrived: Array
    late: NDArray[np.bool_]
    breaks: NDArray[np.bool_]
