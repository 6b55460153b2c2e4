"""Linear inverses, exported files and solvers behind one small interface, without torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
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
from deepesi.runtime.protobuf import n_values
from deepesi.utils.nearest import near_names

Array = NDArray[np.float64]
#: EEG ``(C, T)`` (V, any reference) to sources ``(D, T)`` (A m).
Estimator = Callable[[Array], Array]
#: Samples that a solver takes as one; as many as networks are trained on.
SAMPLES = 20
#: What the linear inverses are called on the command line.
NAMES = {method.lower(): method for method in METHODS}


class Method(Protocol):
    """Anything that gives an estimator for a head.

    Attributes:
        name: Shown in tables.
        bound_to: Name of the only source space it knows, or None if it follows any.

    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def bound_to(self) -> str | None: ...  # noqa: D102

    def template(self) -> Template:
        """The packaged head it is used on."""
        ...

    def estimator(self, head: HeadModel, nave: float) -> Estimator:
        """Prepare for a head under a recording set-up; `nave` trials were averaged."""
        ...


@dataclass(frozen=True)
class Classical:
    """A linear inverse with ``lambda2 = 1 / SNR``, the SNR read off the whitened power.

    The same rule as `deepesi.baselines.minimum_norm.MinimumNorm`, so that the exported file of a
    method and the method itself give one answer.

    Attributes:
        name: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.

    """

    name: str
    bound_to: None = None

    def template(self) -> Template:
        """fsaverage, ico-3."""
        return load_template()

    def estimator(self, head: HeadModel, nave: float) -> Estimator:
        """See `Method`; the covariance of the head is that of the average already."""
        white, rank = whitener(head.noise_cov), rank_of(head.noise_cov)

        def estimate(data: Array) -> Array:
            data = head.sensors.reference(data)
            snr_db = snr_on_grid(white @ data, rank)
            declared = LinearInverse(method=self.name, snr_db_low=snr_db, n_steps=1)
            return np.asarray(declared.compute(head)[0] @ data)

        return estimate


def snr_on_grid(whitened: Array, rank: int, grid: LinearInverse | None = None) -> float:
    """The SNR in dB of a grid nearest to ``‖W v‖² / (T R) - 1`` of whitened ``(C, T)``, rank R."""
    grid = grid or LinearInverse()
    snr_db = float(snr_db_of_power(whitened_power(whitened, rank).mean()))
    step = np.clip(round((snr_db - grid.snr_db_low) / grid.snr_db_step), 0, grid.n_steps - 1)
    return float(grid.snr_db_low + grid.snr_db_step * step)


@dataclass(frozen=True)
class Exported:
    """A file of ``deepesi export``.

    Attributes:
        name: Shown in tables.
        inverse: The opened file.
        path: Where it lies.

    """

    name: str
    inverse: Inverse
    path: Path

    @property
    def bound_to(self) -> str | None:
        """Its contract's source space."""
        return self.inverse.contract.space_name

    def template(self) -> Template:
        """The packaged head of its source space."""
        return self.inverse.template

    def estimator(self, head: HeadModel, nave: float) -> Estimator:
        """See `Method`."""
        prepared = self.inverse.prepare_for(head, nave, "validation")
        return lambda data: prepared.estimate(data)[0]


def solver_names() -> list[str]:
    """Names of the baselines that evaluations know, but for those that simulations choose."""
    folder = resources.files("deepesi.configs") / "baselines"
    names = (Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))
    return sorted(
        n for n in names if n not in NAMES and not n.endswith(("_best", "_true", "_tuned"))
    )


def find_methods(
    names: Sequence[str], models: Sequence[Path], solver: Callable[[str], Method]
) -> list[Method]:
    """The methods asked for, in their order, then the files.

    Args:
        names: Of linear inverses and solvers, in any case; ``all`` for every one.
        models: Exported files.
        solver: Makes the method of one of `solver_names`, which may need more than is installed.

    Raises:
        FileNotFoundError: A file is not there.
        ModuleNotFoundError: A solver needs what is not installed.
        ValueError: An unknown name, a file that is not ours, or nothing asked for.

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
