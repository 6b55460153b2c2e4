"""Initial weights of a run from a trained network, for another head or other data."""

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
        Settings that differ although all weights fit, such as ``model.output_scale``: the network
        computes something else with them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Class, sizes or source space differ; the message names the differences.

    """
    trained, identity = load_network(path, space)
    before, now = flatten(identity["model"]), flatten(settings)
    new_shapes, old_shapes = (
        {k: v.shape for k, v in m.state_dict().items()} for m in (model, trained)
    )
    different = [
        f"model.{key} was {before.get(key)}, now {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if type(model) is not type(trained) or new_shapes != old_shapes:
        raise ValueError(
            f"train: init_from={path} holds a network of another architecture: "
            f"{'; '.join(different)}. Use the model and sizes it was trained with. To start a "
            "narrower network, use pruned_from."
        )
    model.load_state_dict(trained.state_dict())
    return different
