"""Builds the objects of a configuration: heads, test sets, baselines and networks."""

from collections.abc import Sequence
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from deepesi.baselines.tuned import Tuned
from deepesi.composition import compose, names_in
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.methods import Model
from deepesi.evaluation.naming import names_of
from deepesi.evaluation.scenario import Scenario
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.runtime.packaged import model_path
from deepesi.training.run import build_model
from deepesi.training.saved import load_any
from deepesi.utils.nearest import nearest


def load_heads(config: DictConfig) -> Cohort:
    """The heads of a configuration: a cohort, or one head for every split."""
    heads: Cohort | Template = hydra.utils.instantiate(config)
    return Cohort.single(heads) if isinstance(heads, Template) else heads


def load_scenarios(configs: Sequence[DictConfig]) -> list[Scenario]:
    """The test sets of scenarios: one each, or one per level of its axis."""
    found: list[Scenario] = []
    for config in configs:
        base = OmegaConf.create({k: v for k, v in config.items() if k not in ("axis", "levels")})
        for level, changes in (config.get("levels") or {"": {}}).items():
            axis = {"axis": config.axis, "level": str(level)} if level != "" else {}
            merged = OmegaConf.merge(base, changes, axis)
            found.append(hydra.utils.instantiate(merged, _convert_="all"))
    return found


def known_scenarios() -> list[str]:
    """Names of the scenarios: of deepesi, of the user's folders and of plugins."""
    return names_in("scenario")


def load_baselines(config: DictConfig) -> dict[str, Model | Tuned]:
    """The baselines of a configuration; ``baselines=[]`` leaves none."""
    torch.manual_seed(0)  # seeds the initial weights of networks among them
    chosen: dict[str, Model | Tuned] = hydra.utils.instantiate(
        config.get("baselines", {}), _convert_="all"
    )
    return chosen


#: ``models=[untrained:NAME]``: the network of ``model=NAME`` with its initial weights.
UNTRAINED = "untrained:"


def load_untrained(name: str, template: Template) -> InverseModel:
    """A network of `deepesi train` with its initial weights.

    Raises:
        ValueError: There is no such network.

    """
    known = names_in("model")
    if name not in known:
        raise ValueError(
            f"evaluate: no network {name!r} for models=[{UNTRAINED}{name}]. {nearest(name, known)}"
        )
    torch.manual_seed(0)
    return build_model(compose("train", [f"model={name}"]).model, template)[0]


def load_named(
    paths: Sequence[str], template: Template, who: str
) -> tuple[dict[str, InverseModel], dict[str, Path]]:
    """Models by their short names (`deepesi.evaluation.naming.names_of`), and the paths of files.

    ``untrained:NAME`` stands for the network of ``model=NAME`` with its initial weights.
    """
    typed = [str(path) for path in paths]
    found: dict[str, InverseModel] = {}
    for name in typed:
        if name.startswith(UNTRAINED):
            network = name.removeprefix(UNTRAINED)
            found[f"{network} (untrained)"] = load_untrained(network, template)
    files = [Path(name) for name in typed if not name.startswith(UNTRAINED)]
    models = [load_any(path, template) for path in files]
    names = names_of(models, files, who)
    read = [path if path.exists() else model_path(path) for path in files]
    return found | dict(zip(names, models, strict=True)), dict(zip(names, read, strict=True))
