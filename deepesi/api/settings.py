"""Builds the configuration of a command from arguments and overrides, without a Hydra run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from deepesi.cli.config_errors import one_line_error, usual_config
from deepesi.cli.config_types import check_config
from deepesi.cli.overrides import typed_keys
from deepesi.composition import compose
from deepesi.physics.loading import load_head
from deepesi.physics.template import Template, load_template
from deepesi.training.overrides import add_quotes, quoted

#: A head, or an argument of `deepesi.load_head`.
Head = Template | str | Path


def head_of(head: Head) -> Template:
    """The head itself."""
    return head if isinstance(head, Template) else load_head(head)


def head_words(head: Head, template: Template) -> list[str]:
    """Overrides that choose a head; empty if it exists only in memory."""
    if isinstance(head, Template):
        return [f"head.name={quoted(template.name)}"] if is_at_hand(template.name, template) else []
    if template.cap is not None:
        return ["head=forward", f"head.forward={quoted(head)}"]
    return [f"head.name={quoted(head)}"]


def is_at_hand(name: str, template: Template) -> bool:
    """Whether a head equals the one that is loaded by its name."""
    try:
        return load_template(name).fingerprint == template.fingerprint
    except FileNotFoundError:
        return False


def checked(overrides: Sequence[str], arguments: set[str]) -> list[str]:
    """Overrides as Hydra reads them.

    Args:
        overrides: Overrides as on the command line.
        arguments: Keys that are set by arguments in Python.

    Raises:
        TypeError: One text in place of a list of texts.
        ValueError: An override sets the same key as an argument.

    """
    if isinstance(overrides, str):
        raise TypeError(f"overrides: got the text {overrides!r}, expected a list of texts.")
    words = add_quotes(overrides)
    both = typed_keys(words) & arguments
    if both:
        raise ValueError(
            f"overrides: {', '.join(sorted(both))} is set by an argument. Give it there, and "
            "leave it out of overrides."
        )
    return words


@contextmanager
def plain_errors(command: str, config: DictConfig | None = None) -> Iterator[None]:
    """Context that turns errors of Hydra into the messages of the command line.

    Raises:
        ValueError: In place of any error of Hydra.

    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{command}: {one_line_error(error, command, config)}") from error


def composed(words: Sequence[str], out: str | Path | None) -> tuple[DictConfig, Path]:
    """The resolved configuration of a training, and its run directory.

    Args:
        words: Overrides.
        out: The run directory; None: ``outputs/NAME/TIME``, as with the command.

    Raises:
        ValueError: An unknown setting, or one of a wrong type; a run in `out`.

    """
    with plain_errors("train"):
        config = compose("train", words, return_hydra_config=True)
        folder = _run_directory(config, out)
        before = HydraConfig.instance().cfg
        with open_dict(config):
            config.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(config)
            del config["hydra"]
        try:
            OmegaConf.resolve(config)
            check_config(config, usual_config("train"))
        finally:
            HydraConfig.instance().cfg = before
    return config, folder


def _run_directory(config: DictConfig, out: str | Path | None) -> Path:
    """The run directory: the requested one, or a new one."""
    if out is None:
        usual = Path(config.hydra.run.dir).absolute()
        others = (usual.with_name(f"{usual.name}_{number}") for number in range(2, 1000))
        return next(path for path in (usual, *others) if not path.exists())
    folder = Path(out).absolute()
    if config.ckpt is None and (folder / "config.yaml").exists():
        raise ValueError(
            f"train: out={folder} holds a run already. Give another folder, or go on with that run "
            "(overrides=['ckpt=auto'])."
        )
    return folder
