"""Initial weights of a run from a trained network, for another head or other data."""

from collections.abc import Mapping
from pathlib import Path

from deepesi.core.contracts import InverseModel
from deepesi.physics.head import SourceSpace
from deepesi.training.resume import flatten
from deepesi.training.weights import load_network


def start_from(
    model: InverseModel, settings: dict[str, object], path: Path, space: SourceSpace
) -> list[str]:
    """Copy the weights of a trained network of the same architecture, for fine-tuning.

    Optimizer, schedule and step start from the beginning. To resume an interrupted run, use
    ``ckpt``.

    Args:
        model: Network that receives the weights.
        settings: Configuration of `model`.
        path: Run directory, ``model/`` folder or checkpoint of the trained network.
        space: Source space of the new run.

    Returns:
        Settings that differ although all weights fit, such as ``model.output_scale``. They change
        the estimates of the network.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Class, sizes or source space differ; the message names the differences.

    """
    trained, identity = load_network(path, space)
    new_shapes, old_shapes = (
        {k: v.shape for k, v in m.state_dict().items()} for m in (model, trained)
    )
    different = [
        f"model.{key} was {before}, now {now}"
        for key, (before, now) in differences(identity["model"], settings).items()
    ]
    if type(model) is not type(trained) or new_shapes != old_shapes:
        raise ValueError(
            f"train: init_from={path} holds a network of another architecture: "
            f"{'; '.join(different)}. Use the model and sizes it was trained with. To start a "
            "narrower network, use pruned_from."
        )
    model.load_state_dict(trained.state_dict())
    return different


def differences(
    before: Mapping[str, object], now: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Settings that differ between two configurations of a model, each with both values."""
    old, new = flatten(before), flatten(now)
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def check_only_narrower(
    path: Path, before: Mapping[str, object], now: Mapping[str, object]
) -> None:
    """Refuse a configuration that differs from that of a wider network in more than widths.

    Args:
        path: The run of the wider network, for the error.
        before: Configuration of the wider network.
        now: Configuration of the narrower one.

    Raises:
        ValueError: A setting differs that is not a smaller whole number.

    """
    other = [
        f"model.{key} was {old}, now {new}"
        for key, (old, new) in differences(before, now).items()
        if not (type(old) is type(new) is int and new < old)
    ]
    if other:
        raise ValueError(
            f"train: pruned_from={path} takes the strongest units of a network that differs in its "
            f"widths only, but {'; '.join(other)}. Use its settings, with smaller widths."
        )
