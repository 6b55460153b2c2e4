"""`deepesi.train` and its result."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import open_dict

from deepesi.api.evaluation import evaluate
from deepesi.api.settings import (
    Head,
    checked,
    composed,
    head_of,
    head_words,
    is_at_hand,
    plain_errors,
)
from deepesi.cli.train import quiet_lightning
from deepesi.cli.train import run as run_training
from deepesi.composition import names_in
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.benchmark import Row
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.runtime.inverse import Inverse
from deepesi.training.weights import described, load_network


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: Run directory, as of ``deepesi train``.
        checkpoint: The best checkpoint.
        head: Head of the training.

    """

    folder: Path
    checkpoint: Path
    head: Template = field(repr=False)
    _network: InverseModel | None = field(default=None, repr=False)

    def model(self) -> InverseModel:
        """The network with its best weights, in evaluation mode."""
        network = copy.deepcopy(self._network)
        return load_network(self.checkpoint, self.head.space, network)[0]

    def inverse(self) -> Inverse:
        """The exported file, which can be applied to recordings.

        Raises:
            FileNotFoundError: The run has ``export=false``.

        """
        path = self.folder / "export" / "model.onnx"
        if not path.is_file():
            raise FileNotFoundError(
                f"Run: there is no {path}, because the run has export=false. Write a file with "
                "deepesi.export_onnx(run.model(), run.head, PATH)."
            )
        usual = Inverse.load(path)
        name = usual.contract.space_name or "fsaverage-ico3"
        is_usual = self.head.cap is not None or is_at_hand(name, self.head)
        return usual if is_usual else Inverse(usual.model, self.head)

    def evaluate(
        self,
        scenario: str | Sequence[str] = "snr",
        baselines: Sequence[str] = ("eloreta",),
        *,
        out: str | Path | None = None,
        processes: int = 1,
        overrides: Sequence[str] = (),
    ) -> list[Row]:
        """Compare the network with classical methods on its head, as `deepesi.evaluate` does."""
        return evaluate(
            self.model(),
            self.head,
            scenario,
            baselines,
            out=out,
            processes=processes,
            overrides=overrides,
        )


def train(
    model: str | InverseModel,
    head: Head = "fsaverage-ico3",
    *,
    experiment: str | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Train a network on simulated recordings of a head, and export it.

    The same as ``deepesi train compare=false``.

    >>> import deepesi
    >>> head = deepesi.load_head("fsaverage-ico3")
    >>> run = deepesi.train("matched_filter", head, max_steps=960)  # doctest: +SKIP

    Args:
        model: Name of a network, as in ``model=NAME``; or a network of your own, which is copied.
        head: A head, or an argument of `deepesi.load_head`.
        experiment: Name of a set of settings, as in ``experiment=NAME``.
        max_steps: Number of optimizer steps; by default that of the configuration.
        seed: Random seed of weights and data.
        out: Run directory, without an earlier run; by default ``outputs/NAME/TIME``.
        overrides: Further settings, as on the command line of ``deepesi train``: ``["data=erp"]``.

    Returns:
        The run: its directory, network and exported file.

    Raises:
        TypeError: `model` is neither a name nor an `InverseModel`.
        ValueError: An unknown name or setting; a network that cannot be exported; or as in
            ``deepesi train``.

    """
    own = None if isinstance(model, str) else _network(model)
    taken = {"head", "seed"} if own is None else {"head", "seed", "model"}
    others, template = checked(overrides, taken), head_of(head)
    chosen = [f"model={model}"] if own is None else [f"name={type(own).__name__}"]
    named = head_words(head, template)
    words = [*chosen, *named, f"seed={seed}", "compare=false"]
    words += [] if experiment is None else [f"experiment={experiment}"]
    words += [] if max_steps is None else [f"trainer.max_steps={max_steps}"]
    config, folder = composed([*words, *others], out)
    with open_dict(config):
        if own is not None:
            config.model = described(own)
        if not named:
            config.head = {"name": template.name, "fingerprint": template.fingerprint}
    command = f"deepesi.train in Python: {' '.join([*words, *others])}"
    with quiet_lightning(), plain_errors("train", config):
        best = run_training(config, folder, Cohort.single(template), copy.deepcopy(own), command)
    return Run(folder, best, template, own)


def _network(model: object) -> InverseModel:
    if isinstance(model, InverseModel):
        return model
    raise TypeError(
        f"train: model is a {type(model).__name__}, expected the name of a network "
        f"({', '.join(names_in('model'))}) or an object of a class derived from "
        "deepesi.core.contracts.InverseModel."
    )
