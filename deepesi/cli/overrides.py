"""Arguments of a command: scenarios, keys, and keys without an effect."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from deepesi.cli.loading import known_scenarios
from deepesi.composition import compose
from deepesi.utils.nearest import nearest

#: Scenarios that `all` leaves out: heads must be built, some networks do not take the sensors, or
#: it is the prior of training.
NOT_IN_ALL = ("volume", "modality", "modality_stranger", "prior")


def _parsed(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def named_scenarios(overrides: Sequence[str]) -> list[str]:
    """The scenarios that a command names.

    Raises:
        ValueError: There is no such scenario.

    """
    parsed = _parsed(overrides)
    named = [o.value() for o in parsed if o.key_or_group == "scenario"]
    last = named[-1] if named else "snr"
    known = [name for name in known_scenarios() if name != "all"]
    if last == "all":
        return [name for name in known if name not in NOT_IN_ALL]
    names = list(map(str, last if isinstance(last, list) else [last]))
    for name in names:
        if name not in known:
            raise ValueError(f"evaluate: no scenario {name!r}. {nearest(name, known)}")
    return names


def chosen_scenarios(overrides: Sequence[str]) -> list[DictConfig]:
    """Configurations of the scenarios a command names, each with its other overrides."""
    parsed = _parsed(overrides)
    others = [
        text for text, o in zip(overrides, parsed, strict=True) if o.key_or_group != "scenario"
    ]
    return [
        compose("evaluate", [*others, f"scenario={name}"]).scenario
        for name in named_scenarios(overrides)
    ]


def check_one_scenario(overrides: Sequence[str], command: str) -> None:
    """Refuse a command that names several scenarios where one is used.

    Raises:
        ValueError: It names several.

    """
    names = named_scenarios(overrides)
    if len(names) > 1:
        raise ValueError(
            f"{command}: takes one scenario, got {names}. Name one (scenario=snr); 'deepesi "
            "evaluate' takes several."
        )


def typed_keys(overrides: Sequence[str]) -> set[str]:
    """First parts of the keys that a command names: ``scenario`` of ``scenario.snr_db=[5]``."""
    parsed = _parsed(overrides)
    return {override.key_or_group.split(".")[0] for override in parsed}


def check_effect(useless: set[str], command: str, because: str) -> None:
    """Refuse overrides of keys that would change nothing, in place of ignoring them.

    Raises:
        ValueError: There are some.

    """
    if useless:
        raise ValueError(
            f"{command}: {', '.join(sorted(useless))} would change nothing, {because}. Leave it "
            "out."
        )


def this_command() -> str:
    """Arguments as text that can be typed in a shell."""
    first, *typed = sys.argv
    name = Path(first).name
    entry = ["python", name] if name in ("train.py", "evaluate.py") else ["deepesi"]
    return shlex.join([*entry, *typed])
