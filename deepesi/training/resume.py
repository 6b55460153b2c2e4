"""Going on with a run: what a checkpoint must share with it, and where in it the run stands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Settings that may differ: they decide where and how often, not what is computed. The learning
#: rate is a way out of a loss that is not finite. Batch size and micro-batches may be traded for
#: each other, see `check_settings`.
FREE_ON_RESUME = {
    f"trainer.{name}"
    for name in (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "compile",
        "checkpoint_every",
        "log_every",
        "pictures",
        "accumulate",
        "learning_rate",
        "stop_within",
    )
} | {"data.device"}
PER_STEP = "trainer.examples_per_step"


def checkpoint_of(ckpt: str | Path | None, folder: Path) -> Path | None:
    """The checkpoint to go on with.

    Args:
        ckpt: Path; or ``"auto"``, the last one in `folder` if there is any; or None, a new run.
        folder: Where this run keeps its own.

    Raises:
        FileNotFoundError: Nothing at the path.

    """
    if ckpt is None:
        return None
    path = folder / "last.ckpt" if ckpt == "auto" else Path(ckpt)
    if not path.is_file():
        if ckpt == "auto":
            return None
        raise FileNotFoundError(
            f"train: there is no ckpt={path}. Give the checkpoints/last.ckpt of a run; or "
            "ckpt=auto, which goes on with the run in hydra.run.dir if there is one."
        )
    return path


def keep_curves(run_dir: Path, ckpt: Path | None) -> None:
    """Put ``metrics.csv`` of the run so far aside, where it goes on in its own directory."""
    curves = run_dir / "metrics.csv"
    if ckpt is not None and curves.is_file():
        number = 1 + len(list(run_dir.glob("metrics.*.csv")))
        curves.rename(run_dir / f"metrics.{number}.csv")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def check_settings(begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings than it was begun with.

    The batch size may change where devices and accumulation make up for it.

    Raises:
        ValueError: Which settings differ, what to do.

    """
    before, after = flatten(begun), flatten(now)
    free = FREE_ON_RESUME
    if before.get(PER_STEP) == after.get(PER_STEP):
        free = free | {"data.batch_size"}
    different = [
        f"{key} was {before.get(key)}, now {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in free
    ]
    if different:
        raise ValueError(
            f"checkpoint: the run it comes from had other settings: {'; '.join(different)}. "
            "Resume with the settings in config.yaml of its run directory; to train on with "
            "others, start a new run."
        )


def check_identity(checkpoint: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that is not ours or was made by another model.

    Raises:
        ValueError: What it is, what was expected, what to do.

    """
    found = checkpoint.get("deepesi")
    if found is None:
        raise ValueError(
            "checkpoint: it was not written by deepesi (no 'deepesi' entry). Give the path of a "
            "checkpoints/last.ckpt or best.ckpt of a deepesi run."
        )
    different = {k: (found.get(k), v) for k, v in expected.items() if found.get(k) != v}
    if different:
        lines = "; ".join(f"{k} is {a}, this run has {b}" for k, (a, b) in different.items())
        raise ValueError(
            f"checkpoint: it belongs to another model: {lines}. Start the run with the "
            "configuration of the checkpoint (config.yaml in its run directory), or without ckpt."
        )


def set_learning_rate(checkpoint: Mapping[str, Any], learning_rate: float) -> None:
    """Go on with another peak learning rate on the same schedule; the same one changes nothing."""
    for optimizer in checkpoint["optimizer_states"]:
        for group in optimizer["param_groups"]:
            group["lr"] *= learning_rate / group["initial_lr"]
            group["initial_lr"] = learning_rate
    for schedule in checkpoint["lr_schedulers"]:
        schedule["base_lrs"] = [learning_rate] * len(schedule["base_lrs"])


def _epoch_loop(checkpoint: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Where Lightning keeps how far an epoch is."""
    return checkpoint["loops"]["fit_loop"][f"epoch_loop.{part}"]


def recount(checkpoint: Mapping[str, Any], before: int, now: int) -> None:
    """Count the batches done as if every step had taken `now` of them in a process, not `before`.

    Lightning counts batches, not steps, so its counts depend on the accumulation.
    """
    progress = _epoch_loop(checkpoint, "batch_progress")
    for counts in (progress["total"], progress["current"]):
        ready = counts["ready"] // before * now
        counts |= {name: ready - (counts["ready"] - count) for name, count in counts.items()}


def rewind(checkpoint: Mapping[str, Any], steps_in_epoch: int, accumulate: int) -> None:
    """Count the batches done as at the end of the last whole step.

    What failed in mid-step left weights and optimizer as they were then, but not the counts.

    Args:
        checkpoint: To change.
        steps_in_epoch: Whole steps since the last validation, at least 1.
        accumulate: Batches in a step of this process.

    """
    progress = _epoch_loop(checkpoint, "batch_progress")
    behind = progress["current"]["ready"] - steps_in_epoch * accumulate
    for counts in (progress["total"], progress["current"]):
        ready = counts["ready"] - behind
        counts |= dict.fromkeys(counts, ready) | {"completed": ready - 1}
    progress["is_last_batch"] = False
    _epoch_loop(checkpoint, "state_dict")["_batches_that_stepped"] = checkpoint["global_step"] - 1
