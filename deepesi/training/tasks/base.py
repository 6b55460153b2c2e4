"""Base class of tasks: losses of a network on recordings without targets."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deepesi.core.contracts import InverseModel, Objective
from deepesi.core.unlabelled import Mixed, Unlabelled


class Task(nn.Module, ABC):
    """One way to learn without targets. Its own weights are trained with the network, not saved.

    Attributes:
        batches: Kind of batch that the task needs: `Unlabelled` from ``data=real``, or `Mixed` from
            simulated data together with ``data@unlabelled=...``.

    """

    batches: ClassVar[type[Unlabelled] | type[Mixed]]

    @abstractmethod
    def training_loss(
        self, model: InverseModel, batch: Any, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Loss of one step, and detached terms for the log, as `InverseModel.training_loss`.

        Args:
            model: Network that is trained.
            batch: A batch of the kind `batches`.
            objective: Objective on examples with targets; a task may ignore it.
            rng: Random generator, seeded by the key of the batch.

        """


def check_batches(task: Task | None, kind: type) -> None:
    """Refuse data that do not fit the task.

    Args:
        task: The task; None: supervised training.
        kind: Kind of the training batches.

    Raises:
        ValueError: The message says which data or which task to choose.

    """
    if task is None and kind in (Unlabelled, Mixed):
        raise ValueError(
            "train: recordings without targets (data=real, data@unlabelled) need a task. Add "
            "task=masked or contrastive for data=real (experiment=pretrain); task=coral, mmd, dann "
            "or weak_labels for data@unlabelled=... (experiment=adapt)."
        )
    if task is not None and kind is not task.batches:
        needed = {
            Unlabelled: "recordings without targets: data=real data.files=...",
            Mixed: "simulated data and recordings without targets: data@unlabelled=...",
        }
        raise ValueError(
            f"train: task {type(task).__name__} needs {needed[task.batches]}; got batches of the "
            f"kind {kind.__name__}."
        )
