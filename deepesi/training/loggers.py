"""Where the curves of a run go: always to ``metrics.csv``, and to one more place that was named."""

from pathlib import Path

import hydra
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig

from deepesi.utils.optional import require

#: Class of a logger to the package it needs, which is also the extra that installs it.
PACKAGES = {"WandbLogger": "wandb", "TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow"}


def make_loggers(config: DictConfig, run_dir: Path) -> list[Logger]:
    """The logger of a configuration, and that of ``metrics.csv`` before it if it is another.

    Args:
        config: The group ``logger``.
        run_dir: Where ``metrics.csv`` goes.

    Raises:
        ModuleNotFoundError: Its package is not installed; the message names the cure.

    """
    name = config["_target_"].split(".")[-1]
    if name in PACKAGES:
        require(PACKAGES[name], PACKAGES[name], f"log to {name.removesuffix('Logger')}")
    logger: Logger = hydra.utils.instantiate(config)
    if isinstance(logger, CSVLogger):
        return [logger]
    return [CSVLogger(run_dir, name="", version=""), logger]
