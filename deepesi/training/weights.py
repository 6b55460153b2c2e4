"""Saved networks: safetensors and a YAML file, or the checkpoint of a run."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from hydra.errors import InstantiationException
from safetensors.torch import load_file, save_file

from deepesi.core.contracts import InverseModel
from deepesi.models.by_cortex import ByCortex
from deepesi.physics.head import SourceSpace
from deepesi.runtime.packaged import PACKAGED
from deepesi.training.resume import check_identity
from deepesi.uncertainty.ensemble import DeepEnsemble
from deepesi.uncertainty.mc_dropout import MCDropout
from deepesi.utils.files import atomic, parsing
from deepesi.utils.nearest import near_names


def save_network(model: InverseModel, identity: Mapping[str, Any], folder: str | Path) -> None:
    """Write ``weights.safetensors`` and ``model.yaml`` (configuration and source space)."""
    folder = Path(folder)
    with atomic(folder / "weights.safetensors") as partial:
        save_file(model.state_dict(), partial)
    with atomic(folder / "model.yaml") as partial:
        partial.write_text(yaml.safe_dump(dict(identity), sort_keys=False))


def load_network(
    path: str | Path, space: SourceSpace, model: InverseModel | None = None
) -> tuple[InverseModel, dict[str, Any]]:
    """Read a network from a ``.ckpt``, a ``model/`` folder or a run directory.

    Args:
        path: Path of the network.
        space: Source space of the head that the network is applied to.
        model: Network that receives the weights. Needed for networks that were created in Python,
            without a configuration.

    Returns:
        Network, and its identity (configuration, source space, training ranges).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a network of deepesi, or belongs to another source space.

    """
    path = Path(path)
    model, identity = read_network(path, model)
    check_space(path, model, identity, space)
    return model, identity


def load_ensemble(
    paths: Sequence[str | Path], space: SourceSpace
) -> tuple[DeepEnsemble, dict[str, Any]]:
    """Combine networks that were trained separately, for example with different seeds.

    Args:
        paths: One path per member, as for `load_network`.
        space: Source space of the head that the ensemble is applied to.

    Returns:
        Ensemble, and an identity to save it with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A path is given twice or is an exported file; the source spaces of members
            differ from each other or from `space`.

    """
    files = [Path(path) for path in paths]
    if len(set(files)) < len(files):
        raise ValueError(
            f"load_ensemble: a member is named twice in {list(map(str, files))}. Name every "
            "network once."
        )
    exported = [str(path) for path in files if path.suffix == ".onnx"]
    if exported:
        raise ValueError(
            f"load_ensemble: {exported} are exported files. Give the checkpoints or run "
            "directories they came from; the ensemble can be exported as one file."
        )
    networks = {path: read_network(path) for path in files}
    bound = {path: identity for path, (model, identity) in networks.items() if model.bound_to_space}
    if len({identity["space_fingerprint"] for identity in bound.values()}) > 1:
        lines = "; ".join(
            f"{path} belongs to {identity['space']} ({identity['space_fingerprint']})"
            for path, identity in bound.items()
        )
        raise ValueError(
            f"load_ensemble: members of different source spaces: {lines}. Combine networks that "
            "were trained with the same head."
        )
    for path, (model, identity) in networks.items():
        check_space(path, model, identity, space)
    ensemble = DeepEnsemble([model for model, _ in networks.values()])
    identities = [identity for _, identity in networks.values()]
    members = [identity["model"] for identity in identities]
    return ensemble.eval(), _joined(DeepEnsemble, {"members": members}, identities, space)


def load_by_cortex(
    template: str | Path, own: str | Path, space: SourceSpace
) -> tuple[ByCortex, dict[str, Any]]:
    """Combine a network for a template's cortex with one for the person's own.

    Args:
        template: Network trained on other people's cortices, as for `load_network`.
        own: Network trained where the cortex is the right one.
        space: Source space of the head that the network is applied to.

    Returns:
        Network that contains both, and an identity to save it with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is no network of deepesi or belongs to another source space.

    """
    (network, identity), (other, its) = (load_network(path, space) for path in (template, own))
    parts = {"template": identity["model"], "own": its["model"]}
    joined = _joined(ByCortex, parts, [identity, its], space)
    # The other one may have been trained with fixed orientation.
    joined |= {key: identity[key] for key in ("space", "space_fingerprint")}
    return ByCortex(network, other).eval(), joined


def _joined(
    kind: type[InverseModel],
    parts: Mapping[str, Any],
    identities: Sequence[Mapping[str, Any]],
    space: SourceSpace,
) -> dict[str, Any]:
    """Identity of a model made of several trained networks, to save it with."""
    hashes = [i["config_sha256"] for i in identities if i.get("config_sha256")]
    return {
        "model": {"_target_": f"{kind.__module__}.{kind.__qualname__}", **parts},
        "space": space.name,
        "space_fingerprint": space.fingerprint,
        "trained": _common(identities, "trained"),
        "montages": _common(identities, "montages") or [],
        "sensor_kinds": _shared_kinds(identities),
        "config_sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        if len(hashes) == len(identities)
        else None,
    }


def _shared_kinds(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Kinds of sensors that all of these networks were trained on."""
    known = [set(identity.get("sensor_kinds", ["eeg"])) for identity in identities]
    return sorted(set.intersection(*known))


def _common(identities: Sequence[Mapping[str, Any]], key: str) -> Any:
    """Value that is the same in all identities, else None."""
    first, *others = (identity.get(key) for identity in identities)
    return first if all(other == first for other in others) else None


def load_mc_dropout(
    path: str | Path, space: SourceSpace, n_samples: int
) -> tuple[MCDropout, dict[str, Any]]:
    """Load a network trained with dropout as a Monte Carlo dropout model.

    Args:
        path: Path of the network, as for `load_network`.
        space: Source space of the head that the model is applied to.
        n_samples: Number of dropout masks.

    Returns:
        Model, and an identity to save it with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The network has no dropout, is not one of deepesi, or belongs to another source
            space.

    """
    model, identity = load_network(path, space)
    kind = f"{MCDropout.__module__}.{MCDropout.__qualname__}"
    wrapped = {"_target_": kind, "model": identity["model"], "n_samples": n_samples}
    return MCDropout(model, n_samples).eval(), identity | {"model": wrapped}


def check_space(
    path: Path, model: InverseModel, identity: Mapping[str, Any], space: SourceSpace
) -> None:
    """Refuse a network bound to another source space.

    Raises:
        ValueError: It was trained for another space.

    """
    if model.bound_to_space and identity["space_fingerprint"] != space.fingerprint:
        raise ValueError(
            f"load_network: {path} was trained for the source space {identity['space']} "
            f"({identity['space_fingerprint']}), this head has {space.name} "
            f"({space.fingerprint}). Use the head it was trained with (head.name=...)."
        )


def read_network(
    path: Path, model: InverseModel | None = None
) -> tuple[InverseModel, dict[str, Any]]:
    """Read a network of any source space, and its identity; as `load_network`."""
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
    elif path.suffix == ".onnx":
        raise ValueError(
            f"load_network: {path} is an exported file and cannot be loaded as a network. Give the "
            "run directory or checkpoint that it was exported from."
        )
    elif path.is_file():
        with parsing(path, "checkpoint", "Give last.ckpt or best.ckpt of a run."):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        check_identity(checkpoint, {})
        identity = checkpoint["deepesi"]
        weights = {
            key.removeprefix("model."): value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith("model.")
        }
    else:
        raise FileNotFoundError(
            f"load_network: there is no {path}. Give a run directory, its model/, or a checkpoint."
            f"{_packaged(path)}"
        )
    model = _made_from(identity["model"], path) if model is None else model
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise _of_another_version(path, " ".join(str(error).split())[:200]) from error
    return model.eval(), identity


#: Entry in the identity of a network that was created in Python, without a configuration.
MADE_IN_PYTHON = {"made": "in Python"}


def described(model: InverseModel) -> dict[str, Any]:
    """Identity of a network that was created in Python, in place of a configuration."""
    kind = type(model)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **MADE_IN_PYTHON}


def _made_from(config: Mapping[str, Any], path: Path) -> InverseModel:
    """Create the network of a configuration, with initial weights."""
    if MADE_IN_PYTHON.items() <= config.items():
        raise ValueError(
            f"load_network: {path} holds the weights of a {config['_target_']} that was made in "
            "Python, and its settings are not known. Make it again and give it the weights: "
            "load_network(path, space, model). Its exported file needs neither."
        )
    try:
        kind = hydra.utils.get_class(config["_target_"])
    except ImportError as error:
        raise _of_another_version(path, f"there is no class {config['_target_']}") from error
    if not issubclass(kind, InverseModel):
        raise ValueError(f"load_network: {path} names {kind.__name__}, which is no InverseModel.")
    try:
        model: InverseModel = hydra.utils.instantiate(config, _convert_="all")
    except InstantiationException as error:
        raise _of_another_version(path, " ".join(str(error).split())) from error
    return model


def _packaged(path: Path) -> str:
    """Advice to use the packaged file of that name in evaluations, for an error."""
    near = near_names(path.name, PACKAGED)
    return f" Packaged is {near[0]!r}, for evaluate and calibrate." if near else ""


def _of_another_version(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"load_network: the network in {path} cannot be made: {reason.rstrip('.')}. It was saved "
        "by another version of deepesi, or needs a plugin that is not installed. Train it again, "
        "use its exported .onnx file, or install the plugin."
    )
