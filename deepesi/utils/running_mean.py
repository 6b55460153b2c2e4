"""Mean and standard deviation of values that come one after the other."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class RunningMoments:
    """Mean and standard deviation of arrays of one shape, in constant memory.

    Attributes:
        n: Number of arrays.
        mean: Their mean; empty before the first.

    Source: running mean and variance, Welford 1962, doi:10.1080/00401706.1962.10490022.

    """

    def __init__(self) -> None:
        self.n, self.mean, self._squares = 0, np.zeros(0), np.zeros(0)

    def add(self, values: Array) -> None:
        """Add one array."""
        if self.n == 0:
            self.mean, self._squares = np.zeros_like(values), np.zeros_like(values)
        self.n += 1
        change = values - self.mean
        self.mean = self.mean + change / self.n
        self._squares = self._squares + change * (values - self.mean)

    @property
    def std(self) -> Array | None:
        """Standard deviation; None of fewer than two arrays."""
        return np.sqrt(self._squares / (self.n - 1)) if self.n > 1 else None
