"""Test-time adaptation: corrects the lead field of a head by the recordings to invert.

The estimate of a model explains a recording through the lead field. What it explains wrongly in the
same way in many windows is an error of the head, not of the sources. One matrix over the sensors
takes it up. The adapted head is an ordinary head: its inputs go into any network and any exported
file, so only the adaptation needs torch.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepesi.core.contracts import InverseModel, as_tensors
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import Whitener, prepare

Array = NDArray[np.float64]

#: Windows that a model inverts at a time.
AT_ONCE = 64
#: Fewest windows to adapt to, per channel: with fewer, sources are taken for errors of the head.
FEWEST_PER_CHANNEL = 1.0


@dataclass(frozen=True)
class Adaptation:
    """Result of an adaptation to one recording.

    Attributes:
        head: The adapted head, or the head as it was if the correction did not help.
        correction: Matrix ``(C, C)`` on the lead field, no unit; the identity if it did not help.
        residual: Share of the whitened power of the windows not used for the fit that the model
            leaves unexplained, before and after the correction.
        seconds: Time taken, s.

    """

    head: HeadModel
    correction: Array
    residual: tuple[float, float]
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether the correction explains windows better that it was not fitted to."""
        return self.residual[1] < self.residual[0]


def adapt(
    model: InverseModel,
    head: HeadModel,
    data: Float[Tensor, "B C T"],
    strength: float = 0.3,
    n_steps: int = 1,
) -> Adaptation:
    """Adapt a head to windows of one recording, without targets.

    Give four windows per channel or more: with fewer, the correction is seldom kept.

    Every step inverts the windows and fits ``A = argmin ‖V − A E‖² + strength tr(E Eᵀ)/C ‖A − I‖²``
    in closed form, ``V`` the whitened windows and ``E`` what the nominal lead field explains of
    them. The fit uses every other window. The correction is kept if the model then explains more of
    the other windows. There are no random numbers.

    Args:
        model: Any inverse model, exported files included.
        head: Nominal head under the set-up of the recording.
        data: Windows with different sources, V, any reference.
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
    fitted, others = data[::2], data[1::2]
    whitener = Whitener().compute(head)
    correction, adapted = np.eye(head.n_channels), head
    for _ in range(n_steps):
        explained = head.leadfield @ _rows(_invert(model, adapted, fitted))
        correction = _ridge(whitener @ _rows(fitted), whitener @ explained, strength)
        adapted = _corrected(head, whitener, correction)
    residual = tuple(_residual(model, one, others, whitener) for one in (head, adapted))
    if not residual[1] < residual[0]:
        correction, adapted = np.eye(head.n_channels), head
    seconds = time.perf_counter() - started
    return Adaptation(adapted, correction, (residual[0], residual[1]), seconds)


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


def _ridge(data: Array, explained: Array, strength: float) -> Array:
    gram = explained @ explained.T
    identity = strength * np.trace(gram) / len(gram) * np.eye(len(gram))
    # A source that explains nothing leaves the identity.
    if not identity.any():
        return np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram + identity, (data @ explained.T + identity).T).T)


def _corrected(head: HeadModel, whitener: Array, correction: Array) -> HeadModel:
    """The head with the correction between whitened channels."""
    change = np.linalg.pinv(whitener, hermitian=True) @ (correction - np.eye(len(correction)))
    leadfield = head.leadfield + change @ whitener @ head.leadfield
    return replace(head, leadfield=head.sensors.reference(leadfield))


def _residual(model: InverseModel, head: HeadModel, data: Tensor, whitener: Array) -> float:
    """Share of the whitened power that the model leaves."""
    white = whitener @ _rows(data)
    explained = whitener @ head.leadfield @ _rows(_invert(model, head, data))
    power = max(float((white**2).sum()), float(np.finfo(float).tiny))
    return float(((white - explained) ** 2).sum()) / power
