"""The weights that a new run starts from: those of another run, on another head or other data."""

from pathlib import Path

from deepesi.core.contracts import InverseModel
from deepesi.physics.head import SourceSpace
from deepesi.training.resume import flatten
from deepesi.training.weights import load_network


def start_from(
    model: InverseModel, settings: dict[str, object], path: Path, space: SourceSpace
) -> None:
    """Give a network the weights of a trained one of the same architecture, and nothing else.

    Optimizer, schedule and step begin anew, which is what fine-tuning asks for; a run that was
    interrupted goes on with ``ckpt`` instead.

    Args:
        model: Takes the weights.
        settings: Plain configuration it was made from.
        path: Run directory, ``model/`` folder or checkpoint of the trained network.
        space: Source space of the new run.

    Raises:
        FileNotFoundError: Nothing there.
        ValueError: Another class or other sizes, or a network bound to another source space; what
            differs is named.

    """
    trained, identity = load_network(path, space)
    before, now = flatten(identity["model"]), flatten(settings)
    ours, theirs = ({k: v.shape for k, v in m.state_dict().items()} for m in (model, trained))
    if type(model) is not type(trained) or ours != theirs:
        different = [
            f"model.{key} was {before.get(key)}, now {now.get(key)}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        raise ValueError(
            f"train: init_from={path} holds a network of another architecture: "
            f"{'; '.join(different)}. Choose the model and the sizes it was trained with; a "
            "narrower network starts with pruned_from."
        )
    model.load_state_dict(trained.state_dict())
