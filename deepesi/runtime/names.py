"""Short names of saved networks for tables and figures: class, size, run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepesi.runtime.packaged import PACKAGED

#: Names in every run directory, which do not identify a run.
RUN_FOLDERS = (
    "checkpoints",
    "export",
    "fitted",
    "model",
    "model.onnx",
    "best.ckpt",
    "last.ckpt",
)


def network_title(config: Mapping[str, Any]) -> str:
    """Title of a model, from its configuration: ``ConvDip``, ``3 x UnrolledMatchedFilter``."""
    name = str(config["_target_"]).rpartition(".")[2]
    if name in ("Tempered", "TemperedPosterior"):  # the same network, its uncertainty scaled
        return network_title(config["model"])
    if name == "DeepEnsemble":
        titles = Counter(network_title(member) for member in config["members"])
        return " + ".join(f"{count} x {title}" for title, count in titles.items())
    if name == "ByCortex":
        return f"{network_title(config['template'])} / {network_title(config['own'])}"
    if name == "MinimumNorm":
        return str(config.get("method", name))
    inner = config.get("model")
    return f"{name} of {network_title(inner)}" if isinstance(inner, Mapping) else name


def file_title(contract_model: Mapping[str, Any], n_values: int) -> str:
    """Title and size of an exported file; a classical method has no size.

    Args:
        contract_model: Configuration of the model in its contract.
        n_values: Number of values in the file.

    """
    n_weights = 0 if is_classical(contract_model) else n_values
    return f"{network_title(contract_model)} {short_count(n_weights)}".strip()


def is_classical(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a method that has no weights."""
    return str(config["_target_"]).startswith("deepesi.baselines.")


def short_count(count: int) -> str:
    """Number of weights in two digits: ``2.3 M``, ``20 k``; empty for none."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * size:
            scaled = count / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return str(count) if count else ""


def short_names(titles: Sequence[str], paths: Sequence[Path], who: str) -> list[str]:
    """Unique names of saved models, as short as possible.

    ``ConvDip 2.3 M`` from ``outputs/convdip/2026-11-29_01-02-03`` becomes ``ConvDip 2.3 M (run
    2026-11-29_01-02-03)``. More of the path is used only where two names would be equal.

    Args:
        titles: Title of each.
        paths: Path of each: a run, a folder or file of it, or the name of a packaged one.
        who: Name of the command, for errors.

    Raises:
        ValueError: A path is given twice.

    """
    absolute = [str(path.absolute()) for path in paths]
    twice = [str(path) for path, n in Counter(absolute).items() if n > 1]
    if twice:
        raise ValueError(f"{who}: the model {twice[0]} is given twice. Name every model once.")
    choices, taken = [_tails(path) for path in paths], [0] * len(paths)
    while True:
        names = [
            f"{title} ({tails[number]})"
            for title, tails, number in zip(titles, choices, taken, strict=True)
        ]
        alike = [count > 1 for count in map(Counter(names).__getitem__, names)]
        if not any(alike):
            return names
        taken = [
            min(number + again, len(tails) - 1)
            for number, again, tails in zip(taken, alike, choices, strict=True)
        ]


def _tails(path: Path) -> list[str]:
    """Names of a path, from the shortest to the whole path."""
    if str(path) in PACKAGED and not path.exists():
        return [f"packaged {path}", f"packaged {path}.onnx"]
    parts = path.absolute().parts
    run = len(parts) - 1
    while run > 1 and (parts[run] in RUN_FOLDERS or parts[run - 1] == "fitted"):
        run -= 1
    word = "" if Path(parts[run]).suffix in (".onnx", ".ckpt") else "run "
    first = run - 1 if parts[run].isdigit() else run  # in a sweep, the number alone is not enough
    longer = ["/".join(parts[n:]) for n in range(first, 0, -1)]
    return [word + "/".join(parts[first : run + 1]), *(word + text for text in longer)]
