"""Networks on disk: safetensors with a YAML beside them, or the checkpoint of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from safetensors.torch import load_file, save_file

from deepesi.contracts import InverseModel
from deepesi.physics.files import atomic
from deepesi.physics.head import SourceSpace
from deepesi.training.module import check_identity


def save_network(model: InverseModel, identity: Mapping[str, Any], folder: Path) -> None:
    """Write ``weights.safetensors`` and ``model.yaml`` (what the weights belong to)."""
    with atomic(folder / "weights.safetensors") as partial:
        save_file(model.state_dict(), partial)
    with atomic(folder / "model.yaml") as partial:
        partial.write_text(yaml.safe_dump(dict(identity), sort_keys=False))


def load_network(path: Path, space: SourceSpace) -> tuple[InverseModel, dict[str, Any]]:
    """Read a network from a ``.ckpt``, a ``model/`` folder or a run directory.

    Returns:
        The network and its identity: configuration, source space.

    Raises:
        FileNotFoundError: Nothing there.
        ValueError: Not ours, or a network bound to another source space.

    """
    if path.is_dir() and (path / "model").is_dir():
        path = path / "model"
    if path.is_dir():
        for name in ("model.yaml", "weights.safetensors"):
            if not (path / name).is_file():
                raise FileNotFoundError(
                    f"load_network: {path} holds no {name}; give a run directory, its model/ "
                    "folder or a checkpoint."
                )
        identity = yaml.safe_load((path / "model.yaml").read_text())
        weights = load_file(path / "weights.safetensors")
    elif path.is_file():
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        check_identity(checkpoint, {})
        identity = checkpoint["deepesi"]
        weights = {
            key.removeprefix("model."): value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith("model.")
        }
    else:
        raise FileNotFoundError(f"load_network: there is no {path}.")
    kind = hydra.utils.get_class(identity["model"]["_target_"])
    if not issubclass(kind, InverseModel):
        raise ValueError(f"load_network: {path} names {kind.__name__}, which is no InverseModel.")
    if kind.bound_to_space and identity["space_fingerprint"] != space.fingerprint:
        raise ValueError(
            f"load_network: {path} was trained for the source space {identity['space']} "
            f"({identity['space_fingerprint']}), this head has {space.name} "
            f"({space.fingerprint}). Choose the head it was trained on (head.name=...)."
        )
    model: InverseModel = hydra.utils.instantiate(identity["model"], _convert_="all")
    model.load_state_dict(weights)
    return model.eval(), identity
