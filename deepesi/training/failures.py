"""Error messages for failed runs, with advice."""

from pathlib import Path

import torch

from deepesi.training.overrides import typed

#: Texts in errors of torch: no memory on a CPU; another process is gone, for any backend.
NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "Socket")


def error_with_advice(
    error: Exception, folder: Path, batch_size: int, accumulate: int
) -> Exception | None:
    """Return an error that says what to do, or None to raise the original error.

    Args:
        error: Error raised in training.
        folder: Folder of the checkpoints.
        batch_size: Examples per batch of one process.
        accumulate: Batches per step of one process.

    """
    last, text = folder / "last.ckpt", str(error).strip()
    where = (
        f"resume with {typed('ckpt', last)}"
        if last.is_file()
        else "there was no checkpoint yet, so start again"
    )
    if isinstance(error, FloatingPointError):
        return FloatingPointError(f"{text} For this run: {where}.")
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(s in text for s in NO_MEMORY):
        factor = next((f for f in range(2, batch_size + 1) if batch_size % f == 0), 1)
        return MemoryError(
            f"train: out of memory with data.batch_size={batch_size} ({text.splitlines()[0]}). To "
            f"keep the examples per step, {where} data.batch_size={batch_size // factor} "
            f"trainer.accumulate={accumulate * factor}. If it happened in "
            "validation, lower trainer.validation_batch_size and start again."
        )
    if isinstance(error, RuntimeError) and any(s in text for s in LOST):
        return ConnectionError(
            f"train: another process of this run was lost ({text.splitlines()[0]}); if it failed, "
            f"its own message is above. With the same or fewer devices, {where}. With fewer "
            "devices, raise trainer.accumulate: devices x accumulate must not change."
        )
    return None
