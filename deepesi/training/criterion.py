"""Which metrics a training is validated by, and by which one the best weights are chosen."""

from deepesi.metrics.table import METRICS

#: Metrics of every validation, logged as ``val/NAME``.
VALIDATED = ("localization_error", "nemd")
#: The one that chooses ``best.ckpt`` and stops a training early, and its direction.
CRITERION = "val/nemd"
MODE = "max" if METRICS["nemd"].higher_is_better else "min"
