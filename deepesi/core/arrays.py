"""Tensors as NumPy arrays."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def as_array(values: Tensor) -> NDArray[np.float64]:
    """A tensor on any device as a float64 array, without gradient."""
    return np.asarray(values.detach().cpu().double().numpy())
