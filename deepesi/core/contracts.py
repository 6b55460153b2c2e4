"""Interfaces between the parts of deepesi: Estimate, InverseModel, PosteriorModel, Oracle."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from deepesi.core.batch import Batch
from deepesi.core.traced_loops import trace_draws
from deepesi.physics.head_inputs import HeadInput
from deepesi.physics.head_inputs.declaration import Axes, noise_size
from deepesi.runtime.window_needs import WindowNeeds

# The name of an array is a constant of a compiled graph, though made of numbers. The attribute is
# what `torch.compiler.assume_constant_result` sets; the call would import the compiler, seconds.
vars(HeadInput)["key"].fget._dynamo_marked_constant = True


class Estimate(NamedTuple):
    """Output of an inverse model: dipole moments and, if available, their uncertainty."""

    mean: Float[Tensor, "B D T"]  # A m
    std: Float[Tensor, "B D T"] | None = None
    samples: Float[Tensor, "N B D T"] | None = None  # samples from the posterior
    source_counts: Float[Tensor, "B K"] | None = None  # probabilities of 1 to K sources in a window


@runtime_checkable
class Objective(Protocol):
    """Training objective of a network, as configured under ``loss``."""

    def __call__(self, estimate: Estimate, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss ``()``, and detached terms ``()`` for the log."""


class Assumptions(NamedTuple):
    """Prior information of a method, beside recording and nominal lead field, as text for tables.

    Methods with more prior information are more accurate for this reason alone, so a comparison
    must list it.
    """

    sources: str  # points or patches, and their size
    n_sources: str
    noise: str
    skull: str


#: Assumptions of any network: those of its training data.
AS_IN_TRAINING = Assumptions(
    "as in its training", "as in its training", "covariance", "as in its training"
)


class InverseModel(nn.Module, ABC):
    """Base class of models that map recordings of any kind of sensor to sources.

    Contract, tested by one suite for all models: reordering the channels of head and data
    changes nothing; scaling the data by ``a`` and the noise covariance by ``a²`` scales the
    estimate by ``a``; montage, batch size and duration are free; `forward` exports to ONNX unless
    `exportable` is False.

    Attributes:
        head_inputs: Arrays that the model needs from a head. `forward` gets each by its key.
        bound_to_space: Whether the weights belong to one source space. If not, the model takes the
            source space of any head.
        exportable: Whether `forward` consists of operations that ONNX has. Iterative solvers for
            comparison do not.
        window_needs: Length and sampling rate that filters in the model need.
        short_form: Whether windows of fewer samples than channels are computed in another order,
            with equal results (`is_short`). An exported file then holds both graphs.
        traces_short: Whether a traced graph is the one for these windows.
        assumptions: Prior information of the model.

    """

    head_inputs: tuple[HeadInput, ...]
    bound_to_space: bool = True
    exportable: bool = True
    window_needs: WindowNeeds = WindowNeeds()
    short_form: bool = False
    traces_short: bool = False

    @property
    def assumptions(self) -> Assumptions:
        """Prior information of the model, for tables."""
        return AS_IN_TRAINING

    def is_short(self, data: Float[Tensor, "B C T"]) -> bool:
        """Whether to compute as for fewer samples than channels."""
        if torch.compiler.is_compiling():
            return self.traces_short
        return data.shape[2] < data.shape[1]

    @abstractmethod
    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Estimate the sources of data, by exportable operations only if `exportable`.

        Args:
            data: Referenced data, `SensorArray.head_units`.
            inputs: Prepared head inputs.

        """

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Loss of one training step, and terms for the log.

        The default applies the objective to `forward`. A model with another kind of training, such
        as a likelihood or flow matching, replaces only this method.

        Args:
            batch: Simulated recordings with their sources.
            objective: Configured objective; a model may ignore it.
            rng: Random generator, seeded by the key of the batch, so that runs can resume.

        Returns:
            ``"loss"`` and any other, detached, terms: ``()``, or ``(M,)`` where ``M`` networks
            are trained together, each with its own loss.

        """
        loss, terms = objective(self(batch.data, batch.inputs), batch)
        return {"loss": loss, **terms}

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Clip the norm of the gradient; returns the norm before, ``()`` or ``(M,)``."""
        return clip_grad_norm_(self.parameters(), max_norm)


#: Number of draws in the default `PosteriorModel.forward`.
N_DRAWS = 64


class PosteriorModel(InverseModel):
    """An inverse model that also draws from its posterior.

    The noise of the draws is an argument: the same noise gives the same samples, in torch and in an
    exported file. The contract suite also compares `forward` with the mean of many draws.

    Attributes:
        noise_axes: Axes of the noise of one draw, standard normal: numbers, or sizes of the data
            (``"channels"``, ``"times"``) and of the head inputs (``"dipoles"``, ...). The noise is
            ``(N, B, Z)`` with ``Z`` the product of these sizes.
        n_draws: Number of draws in the default `forward`; `N_DRAWS` unless a model sets it.
        has_density: Whether the model has `log_density` and `target`.

    """

    noise_axes: Axes
    n_draws: int = N_DRAWS
    has_density: bool = False
    _table: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A buffer: torch.compile cannot trace the random numbers of NumPy.
        self.register_buffer("_table", torch.from_numpy(_fixed_draws(N_DRAWS)), persistent=False)

    @abstractmethod
    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """One posterior sample (A m) per draw of standard normal noise, by exportable operations.

        Args:
            data: Referenced data, `SensorArray.head_units`.
            inputs: Prepared head inputs.
            noise: Standard normal ``(N, B, Z)``, ``Z`` from `noise_size`.

        """

    def log_density(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor], configuration: Any
    ) -> Float[Tensor, "N B"]:
        """Logarithm of the posterior density; a model that has none raises an error.

        Args:
            data: Referenced data, `SensorArray.head_units`.
            inputs: Prepared head inputs.
            configuration: Sources at which the density is computed, in the form in which the
                model draws them.

        Raises:
            NotImplementedError: The model draws samples, but has no density.

        """
        raise self._no_density()

    def target(self, batch: Batch) -> Any:
        """What was simulated, one configuration of each recording, as `log_density` takes it.

        Raises:
            NotImplementedError: The model draws samples, but has no density.

        """
        raise self._no_density()

    def _no_density(self) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} draws samples and has no log-density. Use a model that has "
            "one (model=structured_posterior, in torch: an exported file only draws)."
        )

    def noise_size(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> int | torch.SymInt:
        """Number ``Z`` of noise values of one draw for a recording; symbolic in an export."""
        shapes = {key: value.shape for key, value in inputs.items()}
        return noise_size(self.noise_axes, self.head_inputs, data.shape, shapes)

    def draw(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor], n: int, seed: int = 0
    ) -> Float[Tensor, "N B D T"]:
        """Samples of `n` draws; the same for the same seed, on every device.

        Raises:
            ValueError: Fewer than one draw.

        """
        if n < 1:
            raise ValueError(
                f"{type(self).__name__}: the number of draws must be 1 or more, got {n}."
            )
        shape = (n, len(data), self.noise_size(data, inputs))
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return self.sample(data, inputs, noise.to(data))

    def fixed_noise(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "N B Z"]:
        """Noise of `n_draws` draws, the same for every recording."""
        # Fixed numbers from a table, repeated if there are too few: a traced graph draws none.
        n = self.n_draws
        table = self._table[:n] if n <= N_DRAWS else torch.from_numpy(_fixed_draws(n))
        size = self.noise_size(data, inputs)
        columns = torch.arange(size, device=data.device)  # type: ignore[arg-type] # SymInt
        return table.to(data)[:, columns % N_FIXED][:, None].expand(-1, data.shape[0], -1)

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean and standard deviation of `n_draws` fixed draws, and these draws.

        A model with a closed form replaces this method, and gives no samples here.
        """
        return estimate_of(self.sample(data, inputs, self.fixed_noise(data, inputs)))

    def with_samples(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Estimate:
        """The estimate of `forward`, with the samples of this noise."""
        if type(self).forward is not PosteriorModel.forward:
            estimate: Estimate = self(data, inputs)
            return estimate._replace(samples=self.sample(data, inputs, noise))
        # Fixed draws and these together, so that what all of them share is computed once.
        fixed = self.fixed_noise(data, inputs)
        if torch.compiler.is_exporting():
            drawn = trace_draws(lambda part: self.sample(data, inputs, part), fixed, noise)
        else:
            drawn = self.sample(data, inputs, torch.cat([fixed, noise]))
        return estimate_of(drawn[: self.n_draws])._replace(samples=drawn[self.n_draws :])


def estimate_of(samples: Float[Tensor, "N B D T"]) -> Estimate:
    """Mean and standard deviation of draws, and the draws."""
    return Estimate(samples.mean(0), samples.std(0, correction=0), samples)


#: Length of the table of fixed numbers; a prime, so that no axis of the noise has its period.
N_FIXED = 4099


@functools.cache
def _fixed_draws(n_draws: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((n_draws, N_FIXED), dtype=np.float32)


def as_tensors(
    arrays: Mapping[str, NDArray[Any]], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Prepared head inputs as tensors: floats become float32, integers int64."""
    return {
        key: torch.as_tensor(
            value,
            dtype=torch.float32 if np.issubdtype(value.dtype, np.floating) else torch.int64,
            device=device,
        )
        for key, value in arrays.items()
    }


class Oracle(nn.Module, ABC):
    """An oracle: a bound that uses the whole batch, with the true sources and lead fields.

    It appears in tables beside inverse models, but cannot be applied or exported.

    Attributes:
        head_inputs: Arrays that it needs from the nominal head.
        assumptions: Information that the oracle uses.

    """

    head_inputs: tuple[HeadInput, ...]

    @property
    @abstractmethod
    def assumptions(self) -> Assumptions:
        """Information that the oracle uses."""

    @abstractmethod
    def forward(self, batch: Batch) -> Estimate:
        """Estimate the sources of a batch with the true simulation parameters."""
