"""Linear inverses, exported files and solvers behind one small interface, without torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import LinearInverse
from deepesi.physics.linear_inverse import METHODS
from deepesi.physics.noise import rank_of, snr_db_of_power, whitened_power, whitener
from deepesi.physics.template import Template, load_template
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.names import file_title, short_names
from deepesi.runtime.packaged import model_path
from deepesi.runtime.prediction_sets import PredictionSet
from deepesi.runtime.protobuf import n_values
from deepesi.utils.config_folders import config_names
from deepesi.utils.nearest import near_names

Array = NDArray[np.float64]
#: Window length of solvers, samples, as in the training of networks.
SAMPLES = 20
#: Names of the linear inverses on the command line.
NAMES = {method.lower(): method for method in METHODS}


def _no_set(mean: Array, data: Array) -> None:
    """No prediction set: for methods that are not calibrated."""


@dataclass(frozen=True)
class Estimator:
    """A method that is prepared for a head under a recording set-up.

    Attributes:
        estimate: From EEG ``(C, T)`` (V, any reference) to ``[mean]`` or ``[mean, std]``, each
            ``(D, T)``, A m.
        prediction_set: Prediction set of one sample, from its estimate ``(D,)`` and EEG ``(C,)``;
            None if the method is not calibrated.

    """

    estimate: Callable[[Array], Sequence[Array]]
    prediction_set: Callable[[Array, Array], PredictionSet | None] = _no_set

    def __call__(self, data: Array) -> Array:
        """The mean alone."""
        return self.estimate(data)[0]


class Method(Protocol):
    """Interface of methods that give an estimator for a head.

    Attributes:
        name: Name in tables.
        bound_to: Name of its source space; None if it takes any.
        n_orient: Dipole components per source that it needs; None if it takes any number.

    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def bound_to(self) -> str | None: ...  # noqa: D102

    @property
    def n_orient(self) -> int | None: ...  # noqa: D102

    def template(self) -> Template:
        """The packaged head it is used on."""
        ...

    def estimator(self, head: HeadModel, nave: float) -> Estimator:
        """Prepare for a head under a recording set-up; `nave` trials were averaged."""
        ...


@dataclass(frozen=True)
class Classical:
    """A linear inverse with ``lambda2 = 1 / SNR``, the SNR estimated from the whitened power.

    The same rule as in `deepesi.baselines.minimum_norm.MinimumNorm`, so that a method and its
    exported file give the same estimate.

    Attributes:
        name: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.

    """

    name: str
    bound_to: None = None
    n_orient: None = None

    def template(self) -> Template:
        """fsaverage, ico-3."""
        return load_template()

    def estimator(self, head: HeadModel, nave: float) -> Estimator:
        """Prepare for a head, as in `Method`; its noise covariance is that of the average."""
        white, rank = whitener(head.noise_cov), rank_of(head.noise_cov)

        def estimate(data: Array) -> list[Array]:
            data = head.sensors.to_head(data)
            snr_db = snr_on_grid(white @ data, rank)
            declared = LinearInverse(method=self.name, snr_db_low=snr_db, n_steps=1)
            return [np.asarray(declared.compute(head)[0] @ data)]

        return Estimator(estimate)


def snr_on_grid(whitened: Array, rank: int, grid: LinearInverse | None = None) -> float:
    """Grid value nearest to the SNR, dB, ``‖W v‖² / (T R) - 1``, of whitened ``(C, T)``, rank R."""
    grid = grid or LinearInverse()
    snr_db = float(snr_db_of_power(whitened_power(whitened, rank).mean()))
    step = np.clip(round((snr_db - grid.snr_db_low) / grid.snr_db_step), 0, grid.n_steps - 1)
    return float(grid.snr_db_low + grid.snr_db_step * step)


@dataclass(frozen=True)
class Exported:
    """A file of ``deepesi export``.

    Attributes:
        name: Name in tables.
        inverse: The opened file.
        path: Path of the file.

    """

    name: str
    inverse: Inverse
    path: Path

    @property
    def bound_to(self) -> str | None:
        """Source space of the contract."""
        return self.inverse.contract.space_name

    @property
    def n_orient(self) -> int | None:
        """Orientation of the contract."""
        return self.inverse.contract.n_orient

    def template(self) -> Template:
        """The packaged head with this source space."""
        return self.inverse.template

    def estimator(self, head: HeadModel, nave: float) -> Estimator:
        """Prepare for a head, as in `Method`."""
        prepared = self.inverse.prepare_for(head, nave, "validation")
        return Estimator(prepared.estimate, prepared.prediction_set)


def solver_names() -> list[str]:
    """Names of the packaged baselines, without those that need simulated recordings."""
    # They need simulated sources, the ranges of a simulation, or parameters chosen on one.
    simulated = ("_best", "_stranger", "_true", "_tuned")
    return [
        name
        for name in config_names("baselines")
        if name not in NAMES and not name.endswith(simulated)
    ]


def find_methods(
    names: Sequence[str], models: Sequence[Path], solver: Callable[[str], Method]
) -> list[Method]:
    """The requested methods in their order, then the files.

    Args:
        names: Names of linear inverses and solvers, in any case; ``all`` for every one.
        models: Exported files.
        solver: Makes the method of one of `solver_names`; it may need more packages.

    Raises:
        FileNotFoundError: A file does not exist.
        ModuleNotFoundError: A solver needs a package that is not installed.
        ValueError: An unknown name, a file not written by deepesi, or no method.

    """
    solvers = solver_names()
    known = [*NAMES, *solvers]
    asked = [name.lower() for name in names]
    if "all" in asked:
        asked = known
    found: list[Method] = []
    for name in asked:
        if name not in known:
            near = near_names(name, known)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"--methods: unknown method {name!r}, expected all or some of {', '.join(known)}."
                f"{hint} Networks: export them and give the file to --models."
            )
        found.append(Classical(NAMES[name]) if name in NAMES else solver(name))
    inverses = [Inverse.load(path) for path in models]
    titles = [
        file_title(inverse.contract.model, n_values(model_path(path).read_bytes()))
        for inverse, path in zip(inverses, models, strict=True)
    ]
    found += map(Exported, short_names(titles, models, "--models"), inverses, models)
    if not found:
        raise ValueError("nothing to validate: give --methods or --models.")
    return found
