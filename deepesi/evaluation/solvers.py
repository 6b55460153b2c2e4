"""Baselines of evaluations as methods for real recordings; needs torch."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import hydra
import numpy as np
import torch
from hydra.errors import InstantiationException
from numpy.typing import NDArray

from deepesi import __version__
from deepesi.composition import compose
from deepesi.core.contracts import InverseModel, as_tensors
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import prepare
from deepesi.physics.head_inputs.declaration import sensor_kinds
from deepesi.physics.head_inputs.orientation import LooseInput
from deepesi.physics.template import Template, load_oriented
from deepesi.runtime.contract import Contract, Output
from deepesi.runtime.methods import SAMPLES, Estimator
from deepesi.runtime.self_test import SelfTest, small_heads, small_recording
from deepesi.runtime.windows import overlap_add, windows_of

Array = NDArray[np.float64]


#: Name of the head that methods are used on.
USUAL = "fsaverage-ico3"


def needed_orientation(model: InverseModel) -> int | None:
    """Three components per source, if a model has loose orientation; else None."""
    loose = (d.loose for d in model.head_inputs if isinstance(d, LooseInput))
    return 3 if any(value < 1 for value in loose) else None


@dataclass(frozen=True)
class Solved:
    """A `deepesi.runtime.methods.Method`: an inverse model on windows of `SAMPLES`.

    Attributes:
        name: Shown in tables.
        model: Follows any source space.

    """

    name: str
    model: InverseModel
    bound_to: None = None

    @property
    def n_orient(self) -> int | None:
        """Number of orientations from `needed_orientation`."""
        return needed_orientation(self.model)

    def template(self) -> Template:
        """fsaverage, ico-3; of free orientation for a method of loose orientation."""
        return load_oriented(USUAL, self.n_orient)

    def estimator(self, head: HeadModel, nave: float) -> Estimator:
        """Prepare the solver; the covariance of the head is that of the average already."""
        inputs = as_tensors(prepare(self.model.head_inputs, head))

        def run(batch: Array) -> list[Array]:
            data = torch.as_tensor(batch, dtype=torch.float32)
            with torch.inference_mode():
                estimate = self.model(data, inputs)
            shown = [part for part in (estimate.mean, estimate.std) if part is not None]
            return [part.double().numpy() for part in shown]

        def estimate(data: Array) -> list[Array]:
            n_times = data.shape[1]
            windows = windows_of(n_times, SAMPLES, 0, n_times)
            return overlap_add(run, head.sensors.to_head(data), windows)

        return Estimator(estimate)


def load_solver(name: str) -> Solved:
    """One of `deepesi.runtime.methods.solver_names`.

    Raises:
        ValueError: The file of that name, maybe one of the user's own, does not describe one
            inverse model, or a setting of it is not valid.

    """
    config = compose("evaluate", [f"baselines=[{name}]"])
    try:
        solvers = hydra.utils.instantiate(config.baselines, _convert_="all")
    except InstantiationException as error:
        raise ValueError(f"baselines/{name}.yaml: {error.__cause__ or error}") from error
    ((title, model),) = solvers.items() if len(solvers) == 1 else ((None, None),)
    if not isinstance(model, InverseModel):
        raise ValueError(
            f"baselines/{name}.yaml: expected one title with the _target_ of one InverseModel, got "
            f"{', '.join(f'{key}: {type(value).__name__}' for key, value in solvers.items())}. "
            "A solver with Tuned is for 'deepesi evaluate' only."
        )
    return Solved(str(title), model)


class SolverModel:
    """A solver instead of an exported file: a `deepesi.runtime.prepared_model.Model`.

    It is prepared for a recording and checked as a file is; windows have at most `SAMPLES` samples.

    Args:
        name: Name of a baseline of evaluations, such as ``"lasso"``.

    """

    longest = SAMPLES

    def __init__(self, name: str) -> None:
        solver = load_solver(name)
        self.model = solver.model
        self.sha256 = hashlib.sha256(f"{name} of deepesi {__version__}".encode()).hexdigest()
        self.contract = Contract(
            head_inputs=tuple(dict.fromkeys(self.model.head_inputs)),
            space_name=None,
            space_fingerprint=None,
            vertices=None,
            n_orient=solver.n_orient,
            anatomy=None,
            montages=(),
            outputs=self._outputs(),
            noise=None,
            model={"name": solver.name},
            trained=None,
            config_sha256=None,
            calibration=None,
            versions={"deepesi": __version__, "torch": torch.__version__},
            self_test=SelfTest({}, {}),
            sensor_kinds=sensor_kinds(self.model.head_inputs),
        )

    def run(
        self,
        data: NDArray[Any],
        inputs: dict[str, NDArray[Any]],
        noise: NDArray[Any] | None = None,
        kinds: Collection[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Estimates by kind, as in `deepesi.runtime.session.OpenModel.run`."""
        assert noise is None  # its contract has no samples
        with torch.inference_mode():
            estimate = self.model(torch.as_tensor(data, dtype=torch.float32), as_tensors(inputs))
        parts = {"mean": estimate.mean, "std": estimate.std}
        return {
            kind: part.numpy()
            for kind, part in parts.items()
            if part is not None and (kinds is None or kind in kinds)
        }

    def noise_size(self, data: NDArray[Any], inputs: dict[str, NDArray[Any]]) -> int:
        """None: it draws no samples here."""
        return 0

    def _outputs(self) -> tuple[Output, ...]:
        """Whether it says how sure it is; asked of a small example."""
        template = load_oriented(USUAL, needed_orientation(self.model))
        head = small_heads(template.montage_head("biosemi16"), False)[0]
        inputs = dict(prepare(self.model.head_inputs, head))
        return tuple(map(Output.of_kind, self.run(small_recording(head), inputs)))
