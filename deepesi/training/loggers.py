"""Loggers of a run: always ``metrics.csv``, and one more if configured."""

from pathlib import Path

import hydra
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig

from deepesi.utils.optional import require

#: Package that a logger needs, by class name. The extra that installs it has the same name.
PACKAGES = {"WandbLogger": "wandb", "TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow"}


def make_loggers(config: DictConfig, run_dir: Path) -> list[Logger]:
    """Create the configured logger, preceded by that of ``metrics.csv``.

    Args:
        config: Configuration group ``logger``.
        run_dir: Folder for ``metrics.csv``.

    Raises:
        ModuleNotFoundError: The package of the logger is not installed; the message says how to
            install it.

    """
    name = config["_target_"].split(".")[-1]
    if name in PACKAGES:
        require(PACKAGES[name], PACKAGES[name], f"log to {name.removesuffix('Logger')}")
    logger: Logger = hydra.utils.instantiate(config)
    if isinstance(logger, CSVLogger):
        return [logger]
    return [CSVLogger(run_dir, name="", version=""), logger]
