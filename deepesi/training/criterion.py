"""Validation metrics of a training, and the one that chooses the best weights."""

from deepesi.metrics.table import METRICS

#: Metrics of every validation, logged as ``val/NAME``.
VALIDATED = ("localization_error", "nemd")
#: Metric for ``best.ckpt`` and early stopping, and its direction.
CRITERION = "val/nemd"
MODE = "max" if METRICS["nemd"].higher_is_better else "min"
#: The same for recordings without targets: the loss of the task. Smaller is better, too.
TASK_CRITERION = "val/loss"
