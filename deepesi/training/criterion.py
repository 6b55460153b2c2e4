"""Validation metrics of a training, and the one that chooses the best weights."""

from deepesi.core.contracts import InverseModel, PosteriorModel
from deepesi.metrics.table import METRICS

#: Metrics of every validation, logged as ``val/NAME``.
VALIDATED = ("localization_error", "nemd")
#: Metric for ``best.ckpt`` and early stopping, and its direction.
CRITERION = "val/nemd"
MODE = "max" if METRICS["nemd"].higher_is_better else "min"
#: The same for recordings without targets (the loss of the task) and for posterior samples (the
#: loss of the model, since the mean of samples does not tell how good they are). Smaller is better.
OWN_LOSS = "val/loss"


def criterion_of(model: InverseModel, simulated: bool) -> str:
    """Logged value that chooses the best weights of a model, trained on simulations or not."""
    return OWN_LOSS if isinstance(model, PosteriorModel) or not simulated else CRITERION
