"""InverseTraining: one Lightning module that trains any network with any objective."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from deepesi.core.batch import Batch
from deepesi.core.contracts import InverseModel, PosteriorModel
from deepesi.core.unlabelled import Key, Mixed, Unlabelled
from deepesi.data_gen.keys import key_entropy
from deepesi.losses.base import WeightedSum
from deepesi.metrics.source_metric import SourceMetric
from deepesi.physics.head import SourceSpace
from deepesi.training.criterion import VALIDATED
from deepesi.training.mixed import recordings_of
from deepesi.training.resume import (
    check_identity,
    check_settings,
    rescale_counts,
    set_learning_rate,
)
from deepesi.training.tasks.base import Task


class InverseTraining(LightningModule):
    """Training of an inverse model: AdamW, linear warm-up, cosine decay to zero.

    Args:
        model: Network to train.
        loss: Objective.
        model_config: Configuration of the model, stored in the checkpoint.
        space: Source space of the training head; its name and fingerprint are stored in the
            checkpoint.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps of linear warm-up.
        total_steps: Step at which the learning rate reaches zero.
        run_config: Configuration of seed, heads, data, loss and trainer, stored in the checkpoint
            and checked when a run is resumed.
        trained: Ranges of the training data, as fields of
            `deepesi.runtime.contract.TrainingRanges`; stored with the weights and in exported
            files.
        task: How to learn from recordings without targets; None: supervised training.

    Raises:
        ValueError: The learning rate is not positive.

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
        run_config: Mapping[str, Any],
        trained: Mapping[str, Any] | None = None,
        task: Task | None = None,
    ) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise ValueError(
                f"InverseTraining: learning_rate must be positive, got {learning_rate}. Try 1e-3."
            )
        self.model, self.loss, self.task = model, loss, task
        self.identity: dict[str, Any] = {
            "model": dict(model_config),
            "space": space.name,
            "space_fingerprint": space.fingerprint,
            "trained": None if trained is None else dict(trained),
        }
        self.run_config = run_config
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.metrics = nn.ModuleDict({name: SourceMetric(name) for name in VALIDATED})

    def training_step(self, batch: Batch | Unlabelled | Mixed, batch_idx: int) -> Tensor:
        """Loss of one batch. Random layers use the key of the batch, for resumed runs."""
        layer_seed, loss_seed = seeds_of(batch.key)
        torch.manual_seed(layer_seed)  # dropout
        rng = torch.Generator(batch.data.device).manual_seed(loss_seed)
        terms = self._training_loss(batch, rng)
        # Members of an ensemble are trained as if alone: losses are summed, and gradients are
        # clipped per member. Means are logged.
        loss = terms.pop("loss")
        self.objective = loss.detach().mean()
        self.log("loss", self.objective, prog_bar=True, on_step=True)
        for name, values in terms.items():
            self.log(f"train/{name}", values.mean(), on_step=True)
        return loss.sum()

    def _training_loss(
        self, batch: Batch | Unlabelled | Mixed, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Loss of the task, or else that of the network on examples with targets."""
        if self.task is not None:
            return self.task.training_loss(self.model, batch, self.loss, rng)
        assert isinstance(batch, Batch), "`check_batches` refuses others before the training."
        return self.model.training_loss(batch, self.loss, rng)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient; stop before a step with a loss that is not finite.

        The gradient is the mean over all processes, so all of them stop.

        Raises:
            FloatingPointError: The loss or its gradient is not finite.

        """
        norm = self.model.clip_gradients(gradient_clip_val or math.inf).max()
        others = [weight for part in (self.loss, self.task) for weight in weights_of(part)]
        if others:
            clip_grad_norm_(others, gradient_clip_val or math.inf)
        if not torch.isfinite(self.objective + norm):
            raise FloatingPointError(
                f"training: the loss is {self.objective.item():g} at step {self.global_step}, the "
                f"norm of its gradient {norm.item():g}. Resume from a checkpoint before this step "
                "with ckpt=PATH and a smaller trainer.learning_rate. If it fails again at the same "
                "step, check the data (deepesi preview)."
            )
        self.log("gradient_norm", norm, on_step=True)

    def validation_step(
        self, batch: Batch | Unlabelled, batch_idx: int
    ) -> dict[str, Tensor] | None:
        """Log loss and metrics of one validation batch; return the estimate for callbacks.

        The loss is the objective. Without targets it is that of the task, and for posterior samples
        that of the model, with the same random numbers every time.
        """
        size = len(batch.data)
        rng = torch.Generator(batch.data.device).manual_seed(seeds_of(batch.key)[1])
        if isinstance(batch, Unlabelled):
            loss = self._training_loss(batch, rng)["loss"]
            self.log("val/loss", loss, batch_size=size, sync_dist=True)
            return None
        estimate = self.model(batch.data, batch.inputs)
        if isinstance(self.model, PosteriorModel):
            terms = self.model.training_loss(batch, self.loss, rng)
            objective = terms.pop("loss")
        else:
            objective, terms = self.loss(estimate, batch)
        self.log_dict({f"val/{k}": v for k, v in terms.items()}, batch_size=size, sync_dist=True)
        self.log("val/loss", objective, batch_size=size, sync_dist=True)
        for name, metric in self.metrics.items():
            assert isinstance(metric, SourceMetric)
            metric.update(estimate, batch)
            self.log(f"val/{name}", metric, batch_size=size, prog_bar=True)
        return {"mean": estimate.mean}

    def configure_optimizers(self) -> Any:
        """AdamW with a schedule per step, for the network and any weights of the objective."""

        def schedule(step: int) -> float:
            progress = min(step / max(self.total_steps, 1), 1.0)
            warmup = min((step + 1) / max(self.warmup_steps, 1), 1.0)
            return warmup * 0.5 * (1 + math.cos(math.pi * progress))

        optimizer = AdamW(
            self.parameters(),
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=True,  # three times as fast
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, schedule), "interval": "step"},
        }

    @property
    def run(self) -> dict[str, Any]:
        """Settings of the run, with real recordings, precision and batch sizes as used."""
        trainer, data = self.trainer, self.trainer.datamodule  # type: ignore[attr-defined] # set later
        batches = trainer.world_size * trainer.accumulate_grad_batches
        used = {
            "precision": str(trainer.precision),
            "accumulate": trainer.accumulate_grad_batches,
            "examples_per_step": batches * data.train.batch_size,
        }
        settings = {**self.run_config.get("trainer", {}), **used}
        return {**self.run_config, "trainer": settings, "recordings": recordings_of(data.train)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store model, source space and settings with the weights."""
        checkpoint["deepesi"] = self.identity
        checkpoint["deepesi_run"] = self.run

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model, or of a run with other settings."""
        check_identity(checkpoint, self.identity)
        begun, now = checkpoint["deepesi_run"], self.run
        check_settings(begun, now)
        rescale_counts(checkpoint, begun["trainer"]["accumulate"], now["trainer"]["accumulate"])
        set_learning_rate(checkpoint, self.learning_rate)


def weights_of(part: nn.Module | None) -> list[nn.Parameter]:
    """Weights that are trained."""
    return [] if part is None else [w for w in part.parameters() if w.requires_grad]


def seeds_of(key: Key) -> tuple[int, int]:
    """Seeds of a batch, for random layers and for its loss; not those that it was drawn with."""
    layer_seed, loss_seed = np.random.SeedSequence([*key_entropy(*key), 2]).generate_state(2)
    return int(layer_seed), int(loss_seed)
