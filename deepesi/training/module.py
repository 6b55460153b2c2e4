"""InverseTraining: one Lightning module that trains any network with any objective."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from deepesi.contracts import Batch, InverseModel
from deepesi.data_gen.keys import key_entropy
from deepesi.losses.base import WeightedSum
from deepesi.metrics.classes import NEMD, LocalizationError
from deepesi.physics.head import SourceSpace


class InverseTraining(LightningModule):
    """Trains an inverse model: AdamW, linear warm-up, cosine decay to zero.

    Args:
        model: The network.
        loss: The objective.
        model_config: Plain configuration the model was made from; travels in the checkpoint.
        space: Source space it is trained for; its identity travels in the checkpoint.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps of linear warm-up.
        total_steps: Steps at which the learning rate reaches zero.
        seed: Keys what randomness the network itself uses (dropout).
        run_config: Plain configuration of data, loss and trainer; travels in the checkpoint, so
            that a run is resumed as it was begun.

    """

    def __init__(
        self,
        model: InverseModel,
        loss: WeightedSum,
        model_config: Mapping[str, Any],
        space: SourceSpace,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        total_steps: int,
        seed: int,
        run_config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.identity = {
            "model": dict(model_config),
            "space": space.name,
            "space_fingerprint": space.fingerprint,
        }
        self.run = {"seed": seed, **run_config}
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.total_steps, self.seed = warmup_steps, total_steps, seed
        self.localization_error, self.nemd = LocalizationError(), NEMD()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; the network's own randomness is keyed by the step, so that runs resume."""
        # The last entry tells it apart from the key the batch itself was drawn with.
        key = [*key_entropy(self.seed, "train", self.global_rank, self.global_step), 2]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        objective, terms = self.loss(self.model(batch.eeg, batch.inputs), batch)
        if not torch.isfinite(objective):
            raise FloatingPointError(
                f"training: the loss is {objective.item()} at step {self.global_step}. The last "
                "checkpoint is in checkpoints/last.ckpt; resume from it with ckpt=PATH and a "
                "smaller trainer.learning_rate."
            )
        self.log("loss", objective, prog_bar=True, on_step=True)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, on_step=True)
        return objective

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Objective and metrics on the fixed validation set."""
        estimate = self.model(batch.eeg, batch.inputs)
        objective, terms = self.loss(estimate, batch)
        size = len(batch.eeg)
        self.log_dict({f"val/{k}": v for k, v in terms.items()}, batch_size=size, sync_dist=True)
        self.log("val/loss", objective, batch_size=size, sync_dist=True)
        for name, metric in (("localization_error", self.localization_error), ("nemd", self.nemd)):
            metric.update(estimate, batch)
            self.log(f"val/{name}", metric, batch_size=size, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with a schedule per step."""

        def schedule(step: int) -> float:
            progress = min(step / max(self.total_steps, 1), 1.0)
            warmup = min((step + 1) / max(self.warmup_steps, 1), 1.0)
            return warmup * 0.5 * (1 + math.cos(math.pi * progress))

        optimizer = AdamW(
            self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, schedule), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write what the weights belong to beside them."""
        checkpoint["deepesi"] = self.identity
        checkpoint["deepesi_run"] = self.run

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another model, or of a run with other settings."""
        check_identity(checkpoint, self.identity)
        begun, now = (flatten(run) for run in (checkpoint["deepesi_run"], self.run))
        different = [
            f"{key} was {begun.get(key)}, now {now.get(key)}"
            for key in sorted(begun.keys() | now.keys())
            if begun.get(key) != now.get(key) and key not in FREE_ON_RESUME
        ]
        if different:
            raise ValueError(
                f"checkpoint: the run it comes from had other settings: {'; '.join(different)}. "
                "Resume with the settings in config.yaml of its run directory; to train on with "
                "others, start a new run."
            )


#: Settings that decide where and how often, not what is computed.
FREE_ON_RESUME = {
    f"trainer.{name}" for name in ("accelerator", "devices", "checkpoint_every", "log_every")
} | {"data.device"}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


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
