"""Attributions by gradients: saliency, integrated gradients, DeepLIFT-like.

Integrated gradients are those of captum. Saliency is one call of torch, so that reports need no
captum; a test compares it with captum's. All take a function of recordings ``(B, C, T)``, V, as
`deepesi.interpret.any_model.targets.explained` makes one of a model.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.arrays import as_array
from deepesi.core.contracts import InverseModel
from deepesi.core.onnx_model import OnnxModel
from deepesi.interpret.any_model.frames import Explained, Run
from deepesi.interpret.networks.deep_lift import deep_lift
from deepesi.utils.optional import require

Array = NDArray[np.float64]

#: Steps of integrated gradients, and recordings computed at once.
N_STEPS, AT_ONCE = 32, 64


def has_gradients(model: InverseModel) -> bool:
    """Whether torch computes all of a model: it is neither an exported file nor a solver."""
    return not isinstance(model, OnnxModel) and model.exportable


def run_of_model(model: InverseModel, inputs: dict[str, Tensor]) -> Run:
    """Means of windows by a model that has gradients.

    Args:
        model: The network.
        inputs: Prepared head inputs.

    Raises:
        ValueError: The model has no gradients: an exported file, or a solver in NumPy.

    """
    if isinstance(model, OnnxModel):
        raise ValueError(
            f"explain: {model.path} is an exported file, which has no gradients. They need torch "
            "and the network itself: give the run directory that it was exported from. Occlusion "
            "runs on any file (deepesi.interpret.any_model.occlusion, --methods occlusion)."
        )
    if not model.exportable:
        raise ValueError(
            f"explain: {type(model).__name__} computes in NumPy and has no gradients. Use "
            "occlusion, which runs on any model."
        )
    model.eval()
    return lambda data: model(data, inputs).mean


def saliency(function: Explained, data: Array, noise_std: Array) -> Array:
    """Change of the explained value per standard deviation of the noise of a channel ``(C, T)``.

    Args:
        function: What is explained.
        data: Referenced data ``(C, T)``, V.
        noise_std: Standard deviation of the noise of every sensor ``(C,)``, V.

    Source: Simonyan et al. 2014, arXiv:1312.6034. Difference: signed, and in units of the noise, so
    that channels can be compared.

    """
    recording = _tensor(data[None]).requires_grad_()
    (slope,) = torch.autograd.grad(function(recording).sum(), recording)
    return as_array(slope[0]) * noise_std[:, None]


def integrated_gradients(function: Explained, data: Array, baselines: Array) -> Array:
    """What each value adds to the explained value, compared with baselines ``(C, T)``, in its unit.

    The sum is the value for the recording minus the mean over the baselines (completeness).

    Args:
        function: What is explained.
        data: Referenced data ``(C, T)``, V.
        baselines: Recordings ``(N, C, T)``, V, without what is explained: zeros, or noise of
            `noise_recordings`. The result is the mean over them.

    Raises:
        ModuleNotFoundError: captum is not installed.

    Source: Sundararajan et al. 2017, arXiv:1703.01365, by captum; several baselines: Erion et al.
    2021, doi:10.1038/s42256-021-00343-w.

    """
    captum = require("captum.attr", "interpret", "explain by integrated gradients")
    attribution = captum.IntegratedGradients(function).attribute(
        _tensor(np.broadcast_to(data, baselines.shape)),
        _tensor(baselines),
        n_steps=N_STEPS,
        internal_batch_size=AT_ONCE,
    )
    return as_array(attribution.mean(0))


def deep_lift_attribution(function: Explained, data: Array, baselines: Array) -> Array:
    """Contributions by `deep_lift`; arguments and unit as in `integrated_gradients`."""
    inputs = _tensor(np.broadcast_to(data, baselines.shape))
    return as_array(deep_lift(function, inputs, _tensor(baselines)).mean(0))


#: Methods that compare with baselines, by their names.
AGAINST_BASELINES: dict[str, Callable[[Explained, Array, Array], Array]] = {
    "integrated_gradients": integrated_gradients,
    "deep_lift": deep_lift_attribution,
}


def noise_recordings(noise_cov: Array, n_times: int, n: int, seed: int = 0) -> Array:
    """Recordings of noise alone ``(n, C, n_times)``, V, in pairs of opposite sign.

    Args:
        noise_cov: Noise covariance ``(C, C)``, V².
        n_times: Samples, independent of each other.
        n: Number of recordings, even.
        seed: Random seed.

    """
    values, vectors = np.linalg.eigh(noise_cov)
    root = vectors * np.sqrt(values.clip(0))
    white = np.random.default_rng(seed).standard_normal((n // 2, len(root), n_times))
    drawn = np.asarray(root @ white)
    return np.concatenate([drawn, -drawn])


def completeness(function: Explained, data: Array, baselines: Array, attribution: Array) -> float:
    """Error of the sum of an attribution, over the largest difference that it could explain.

    0 for a method that explains the whole difference to the baselines.
    """
    with torch.no_grad():
        whole = float(function(_tensor(data[None]))[0])
        without = as_array(function(_tensor(baselines)))
    scale = float(np.abs(whole - without).max())
    return abs(float(attribution.sum()) - (whole - float(without.mean()))) / max(scale, 1e-300)


def _tensor(values: Array) -> Float[Tensor, "B C T"]:
    return torch.tensor(values, dtype=torch.float32)
