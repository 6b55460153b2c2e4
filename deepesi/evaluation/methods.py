"""Methods of a benchmark: models, some with a constant per scenario, and their digests."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from deepesi.baselines.tuned import Tuned
from deepesi.core.contracts import InverseModel, Oracle
from deepesi.physics.head_inputs.orientation import LooseInput
from deepesi.physics.template import Template

Model = InverseModel | Oracle
#: Path and session of an exported file, whose content identifies its weights.
OF_A_FILE = ("path", "opened")


@dataclass(frozen=True)
class PerScenario:
    """A method with a constant of its own in every scenario.

    Attributes:
        models: By name of the scenario.

    """

    models: Mapping[str, InverseModel]


Method = InverseModel | Oracle | PerScenario


def check_head(models: Mapping[str, Model | Tuned], template: Template) -> None:
    """Check before any computation that every method can be used on the head of the analyst.

    Raises:
        ValueError: The head does not have what a method needs.

    """
    for name, model in models.items():
        for declaration in model.head_inputs:
            if not isinstance(declaration, LooseInput):
                continue
            try:
                declaration.check_sources(template.space, template.source_normals)
            except ValueError as error:
                raise ValueError(f"{name!r} cannot be compared on this head: {error}") from error


def of_scenario(methods: Mapping[str, Method], scenario: str) -> dict[str, Model]:
    """The models that stand for the methods in a scenario, by name of the method."""
    return {
        name: method.models[scenario] if isinstance(method, PerScenario) else method
        for name, method in methods.items()
    }


def identity_of(model: Model) -> str:
    """Class, settings, weights and what is asked of heads, as a digest."""
    model.eval()
    kinds, digest = bool | int | float | str | tuple | list, hashlib.sha256()
    for name, part in model.named_modules():
        settings = {k: v for k, v in vars(part).items() if k not in OF_A_FILE}
        plain = {k: v for k, v in settings.items() if isinstance(v, kinds)}
        digest.update(f"{name} {type(part).__name__} {sorted(plain.items(), key=str)}".encode())
    for name, weights in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.cpu().numpy().tobytes())
    for declaration in model.head_inputs:
        digest.update(declaration.key.encode())
    return digest.hexdigest()[:16]
