"""Test-time adaptation: corrects the lead field of a head by the recordings to invert.

The estimate of a model explains a recording through the lead field. Errors that are the same
in many windows are errors of the head, not of the sources. One matrix over the sensors corrects
them. The adapted head is an ordinary head: its inputs go into any network and any exported
file, so only the adaptation needs torch.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import wilcoxon
from torch import Tensor

from deepesi.core.contracts import InverseModel, as_tensors
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import Whitener, prepare

Array = NDArray[np.float64]

#: Windows that a model inverts at a time.
AT_ONCE = 64
#: Largest p value of the signed-rank test of the correction, on windows it was not fitted to.
LARGEST_P = 0.025
#: Fewest windows to adapt to, per channel: with fewer, sources count as errors of the head.
FEWEST_PER_CHANNEL = 1.0


@dataclass(frozen=True)
class Adaptation:
    """Result of an adaptation to one recording.

    Attributes:
        head: The adapted head, or the given head if the correction did not help.
        correction: Matrix ``(C, C)`` on the lead field, no unit; the identity if it did not help.
        residual: Share of the whitened power of the windows not used for the fit that the model
            leaves unexplained, before and after the correction.
        accepted: Whether the correction explains these windows significantly better.
        seconds: Time taken, s.
        unchecked: The head with the correction, kept or not: for comparison.

    """

    head: HeadModel
    correction: Array
    residual: tuple[float, float]
    accepted: bool
    seconds: float
    unchecked: HeadModel


def adapt(
    model: InverseModel,
    head: HeadModel,
    data: Float[Tensor, "B C T"],
    strength: float = 1.0,
    n_steps: int = 1,
) -> Adaptation:
    """Adapt a head to windows of one recording, without targets.

    Give four windows per channel or more: with fewer, the correction is rarely kept.

    Every step inverts the windows and fits ``A = argmin ‖V/g − A E‖² + strength tr(E Eᵀ)/C
    ‖A − I‖²`` in closed form: ``V`` the whitened windows, ``E`` what the nominal lead field
    explains of them, and ``g = tr(V Eᵀ)/tr(E Eᵀ)`` the gain of the estimates, below 1 because of
    regularization. The fit uses the first half of the windows. The correction is kept if the model
    then explains more of the second half, in all and by Wilcoxon's signed-rank test. The halves do
    not take turns: neighbouring windows of a recording have the same sources, and a correction that
    fits these sources would pass. There are no random numbers.

    Args:
        model: Any inverse model, exported files included.
        head: Nominal head under the set-up of the recording.
        data: Windows with different sources, in the order of the recording, V, any reference.
        strength: Weight of the identity, above 0.
        n_steps: Number of steps, 1 to 10. Measured: one is best.

    Raises:
        ValueError: Too few windows, data of another set-up, or a setting out of range.

    Source: ours; the closed form is ridge regression. Compare the "approximation error" of
    arXiv:2501.13109, which models the same error as noise.

    """
    _check(head, data, strength, n_steps)
    started = time.perf_counter()
    referenced = head.sensors.reference(data.cpu().numpy(), axis=1)
    data = torch.as_tensor(referenced, dtype=data.dtype, device=data.device)
    model.eval()
    fitted, others = data.tensor_split(2)
    whitener = Whitener().compute(head)
    correction, adapted = np.eye(head.n_channels), head
    for _ in range(n_steps):
        explained = head.leadfield @ _rows(_invert(model, adapted, fitted))
        correction = fit_correction(whitener @ _rows(fitted), whitener @ explained, strength)
        adapted = corrected(head, correction)
    power = max(float(_power(whitener @ _rows(others), 1).sum()), float(np.finfo(float).tiny))
    before, after = (_unexplained(model, one, others, whitener) for one in (head, adapted))
    accepted, unchecked = _explains_more(before, after), adapted
    if not accepted:
        correction, adapted = np.eye(head.n_channels), head
    residual = float(before.sum()) / power, float(after.sum()) / power
    seconds = time.perf_counter() - started
    return Adaptation(adapted, correction, residual, accepted, seconds, unchecked)


def _explains_more(before: Array, after: Array) -> bool:
    """Whether the residual of the windows is significantly smaller after than before."""
    if not (before != after).any():
        return False
    test = wilcoxon(before, after, alternative="greater")
    return bool(test.pvalue < LARGEST_P and after.sum() < before.sum())


def _check(head: HeadModel, data: Tensor, strength: float, n_steps: int) -> None:
    if data.ndim != 3 or data.shape[1] != head.n_channels or not torch.isfinite(data).all():
        raise ValueError(
            f"adapt: got data of shape {tuple(data.shape)}, expected finite windows of shape "
            f"(windows, {head.n_channels} channels of the head, times)."
        )
    fewest = int(FEWEST_PER_CHANNEL * head.n_channels)
    if len(data) < fewest:
        raise ValueError(
            f"adapt: {len(data)} windows of {head.n_channels} channels, expected at least "
            f"{fewest}, with different sources. Give more of the recording, or leave the head."
        )
    if not (strength > 0 and 1 <= n_steps <= 10):
        raise ValueError(
            f"adapt: strength must be above 0 and n_steps 1 to 10, got {strength} and {n_steps}."
        )


def _invert(model: InverseModel, head: HeadModel, data: Tensor) -> Tensor:
    inputs = as_tensors(prepare(model.head_inputs, head), data.device)
    with torch.no_grad():
        return torch.cat([model(some, inputs).mean for some in data.split(AT_ONCE)])


def _rows(values: Float[Tensor, "B N T"]) -> Array:
    """One row per channel or dipole, float64."""
    return np.asarray(values.double().cpu().transpose(0, 1).flatten(1).numpy())


def fit_correction(data: Array, explained: Array, strength: float) -> Array:
    """Correction ``(C, C)`` of `adapt`, from whitened data ``(C, N)`` and their explained part."""
    gram, cross = explained @ explained.T, data @ explained.T
    prior = strength * np.trace(gram) / len(gram) * np.eye(len(gram))
    gain = np.trace(cross) / max(np.trace(gram), np.finfo(float).tiny)
    # The identity where nothing is explained, or the explained part does not correlate with the
    # data.
    if not (prior.any() and gain > 0):
        return np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram + prior, (cross / gain + prior).T).T)


def corrected(head: HeadModel, correction: Array) -> HeadModel:
    """The head with a correction ``(C, C)`` between whitened channels."""
    whitener = Whitener().compute(head)
    change = np.linalg.pinv(whitener, hermitian=True) @ (correction - np.eye(len(correction)))
    leadfield = head.leadfield + change @ whitener @ head.leadfield
    return replace(head, leadfield=head.sensors.reference(leadfield))


def _unexplained(model: InverseModel, head: HeadModel, data: Tensor, whitener: Array) -> Array:
    """Whitened power of the residual of every window ``(B,)``."""
    explained = head.leadfield @ _rows(_invert(model, head, data))
    return _power(whitener @ (_rows(data) - explained), len(data))


def _power(white: Array, n_windows: int) -> Array:
    """Power of every window ``(B,)``, from rows as in `_rows`."""
    return np.asarray((white**2).reshape(len(white), n_windows, -1).sum((0, 2)))
