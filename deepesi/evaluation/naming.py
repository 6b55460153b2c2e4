"""Names and sizes of models that were read from files, for tables and reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from deepesi.baselines.other_orientation import FixedOrientation, FreeOrientation
from deepesi.core.contracts import InverseModel
from deepesi.core.onnx_model import OnnxModel
from deepesi.models.by_cortex import ByCortex
from deepesi.runtime.names import is_classical, network_title, short_count, short_names
from deepesi.uncertainty.ensemble import DeepEnsemble
from deepesi.uncertainty.mc_dropout import MCDropout
from deepesi.uncertainty.tempered import Tempered


def n_weights(model: object) -> int:
    """Weights of a network; of a file, the numbers it keeps; 0 for any other method."""
    if isinstance(model, FixedOrientation | FreeOrientation):
        return n_weights(model.model)
    if isinstance(model, OnnxModel):
        return 0 if is_classical(model.opened.contract.model) else model.n_weights
    if not isinstance(model, nn.Module):
        return 0
    return sum(weights.numel() for weights in model.parameters())


def names_of(models: Sequence[InverseModel], paths: Sequence[Path], who: str) -> list[str]:
    """A name for each model by what it is, how large and from which run.

    Args:
        models: Read from files.
        paths: Where from.
        who: The command, for errors.

    Raises:
        ValueError: A path is given twice.

    """
    titles = [
        f"{network_title(_config(model))} {short_count(n_weights(model))}".strip()
        for model in models
    ]
    return short_names(titles, paths, who)


def _config(model: nn.Module) -> Mapping[str, Any]:
    """What a title needs of a configuration."""
    if isinstance(model, FixedOrientation | FreeOrientation):
        return _config(model.model)
    if isinstance(model, OnnxModel):
        return model.opened.contract.model
    config: dict[str, Any] = {"_target_": type(model).__name__}
    if isinstance(model, DeepEnsemble):
        config["members"] = [_config(member) for member in model.members]
    if isinstance(model, ByCortex):
        config |= {"template": _config(model.template), "own": _config(model.own)}
    if isinstance(model, MCDropout | Tempered):
        config["model"] = _config(model.model)
    return config
