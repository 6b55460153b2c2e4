"""Resuming a run: checks of the checkpoint, and its position in the training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Settings that may change when a run is resumed, because they do not change the computation.
#: The learning rate may change after a loss that was not finite. The batch size may change as well
#: if the examples per step stay the same, as `check_settings` checks.
CHANGEABLE_ON_RESUME = {
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
    """Find the checkpoint to resume from.

    Args:
        ckpt: Path; ``"auto"``: ``last.ckpt`` in `folder` if there is one; None: start a new run.
        folder: Folder of the checkpoints of this run.

    Raises:
        FileNotFoundError: There is no file at the path.

    """
    if ckpt is None:
        return None
    path = folder / "last.ckpt" if ckpt == "auto" else Path(ckpt)
    if not path.is_file():
        if ckpt == "auto":
            return None
        raise FileNotFoundError(
            f"train: there is no ckpt={path}. Give the checkpoints/last.ckpt of a run; or "
            "ckpt=auto, which resumes the run in hydra.run.dir if there is one."
        )
    return path


def rename_old_metrics(run_dir: Path, ckpt: Path | None) -> None:
    """Rename an existing ``metrics.csv`` if a run is resumed in its own directory."""
    curves = run_dir / "metrics.csv"
    if ckpt is not None and curves.is_file():
        number = 1 + len(list(run_dir.glob("metrics.*.csv")))
        curves.rename(run_dir / f"metrics.{number}.csv")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Convert a nested configuration to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def check_settings(begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings.

    The batch size may change if the examples per step, over all devices, stay the same.

    Raises:
        ValueError: The message names the settings that differ.

    """
    before, after = flatten(begun), flatten(now)
    free = CHANGEABLE_ON_RESUME
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
            "Resume with the settings in config.yaml of its run directory, or start a new run."
        )


def check_identity(checkpoint: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was not written by deepesi or belongs to another model.

    Raises:
        ValueError: The message says what arrived and what was expected.

    """
    identity = checkpoint.get("deepesi")
    if identity is None:
        raise ValueError(
            "checkpoint: it was not written by deepesi (no 'deepesi' entry). Give the path of a "
            "checkpoints/last.ckpt or best.ckpt of a deepesi run."
        )
    different = {k: (identity.get(k), v) for k, v in expected.items() if identity.get(k) != v}
    if different:
        lines = "; ".join(f"{k} is {a}, this run has {b}" for k, (a, b) in different.items())
        raise ValueError(
            f"checkpoint: it belongs to another model: {lines}. Start the run with the "
            "configuration of the checkpoint (config.yaml in its run directory), or without ckpt."
        )


def set_learning_rate(checkpoint: Mapping[str, Any], learning_rate: float) -> None:
    """Change the peak learning rate of a checkpoint; the schedule stays the same."""
    for optimizer in checkpoint["optimizer_states"]:
        for group in optimizer["param_groups"]:
            group["lr"] *= learning_rate / group["initial_lr"]
            group["initial_lr"] = learning_rate
    for schedule in checkpoint["lr_schedulers"]:
        schedule["base_lrs"] = [learning_rate] * len(schedule["base_lrs"])


def _epoch_loop(checkpoint: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Part of the checkpoint in which Lightning stores the progress within an epoch."""
    return checkpoint["loops"]["fit_loop"][f"epoch_loop.{part}"]


def rescale_counts(checkpoint: Mapping[str, Any], before: int, now: int) -> None:
    """Change the batch counts from `before` batches per step of a process to `now`.

    Lightning counts batches, not steps, so the counts depend on the accumulation.
    """
    progress = _epoch_loop(checkpoint, "batch_progress")
    for counts in (progress["total"], progress["current"]):
        ready = counts["ready"] // before * now
        counts |= {name: ready - (counts["ready"] - count) for name, count in counts.items()}


def rewind_counts(checkpoint: Mapping[str, Any], steps_in_epoch: int, accumulate: int) -> None:
    """Set the batch counts to the end of the last complete step.

    After an error within a step, weights and optimizer are those of the last complete step, but
    the counts are not.

    Args:
        checkpoint: Checkpoint to change.
        steps_in_epoch: Complete steps since the last validation, at least 1.
        accumulate: Batches per step of this process.

    """
    progress = _epoch_loop(checkpoint, "batch_progress")
    behind = progress["current"]["ready"] - steps_in_epoch * accumulate
    for counts in (progress["total"], progress["current"]):
        ready = counts["ready"] - behind
        counts |= dict.fromkeys(counts, ready) | {"completed": ready - 1}
    progress["is_last_batch"] = False
    _epoch_loop(checkpoint, "state_dict")["_batches_that_stepped"] = checkpoint["global_step"] - 1
