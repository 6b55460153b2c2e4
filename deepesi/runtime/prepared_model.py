"""A model with its inputs prepared for one recording set-up: estimates from arrays."""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.data_check import check_data
from deepesi.physics.head import SourceSpace
from deepesi.physics.noise import whitened_power
from deepesi.physics.sensors import SensorArray
from deepesi.runtime.contract import Contract
from deepesi.runtime.windows import Windows, overlap_add, windows_of
from deepesi.utils.memory import allowed_bytes

Array = NDArray[np.float64]

#: Bytes per value of a draw: single precision, twice while parts are joined.
VALUE_BYTES = 8


class Model(Protocol):
    """Interface for computing estimates: an opened file, or a solver.

    Attributes:
        contract: Inputs and outputs.
        longest: Longest window, samples; None: any.
        sha256: SHA-256 of the file.

    """

    @property
    def contract(self) -> Contract: ...  # noqa: D102

    @property
    def longest(self) -> int | None: ...  # noqa: D102

    @property
    def sha256(self) -> str: ...  # noqa: D102

    def run(
        self,
        data: NDArray[Any],
        inputs: dict[str, NDArray[Any]],
        noise: NDArray[Any] | None = None,
        kinds: Collection[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Estimates by kind, as in `deepesi.runtime.session.OpenModel.run`."""
        ...

    def noise_size(self, data: NDArray[Any], inputs: dict[str, NDArray[Any]]) -> int:
        """Size of the noise of one draw, as in `deepesi.runtime.session.OpenModel.noise_size`."""
        ...


@dataclass(frozen=True)
class PreparedModel:
    """A model with its inputs prepared for one recording set-up.

    Attributes:
        model: Opened file, or a solver.
        feeds: Prepared head inputs of the model.
        sensors: Expected channels, in this order.
        space: Source space of the estimates.
        positions: Source locations ``(S, 3)``, m.
        whitener: Whitening matrix ``(C, C)``, one over `SensorArray.head_units`.

    """

    model: Model
    feeds: dict[str, NDArray[Any]]
    sensors: SensorArray
    space: SourceSpace
    positions: Array
    whitener: Array

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Names of the channels it expects, in this order."""
        return self.sensors.names

    @functools.cached_property
    def rank(self) -> int:
        """Number of dimensions that the noise spans, for the reason in `rank_reason`."""
        values = np.linalg.eigvalsh(self.whitener)
        return int((values > 1e-7 * values[-1]).sum())

    def estimate(self, data: Array, window: int | None = None) -> list[Array]:
        """Estimate from data ``(C, T)``, SI units, any reference: ``[mean]`` or ``[mean, std]``.

        Each ``(D, T)``, A m.

        Args:
            data: ``(C, T)``, SI units, in the order of `ch_names`.
            window: Window length, samples, as in `deepesi.runtime.windows.overlap_add`; by
                default the longest window of training.

        Raises:
            ValueError: Another number of channels, or data that are not plausible in the
                units of their kind.

        """
        self._check_frames(data)
        n_times = data.shape[1]
        return self._windowed(data, windows_of(n_times, window or self.model.longest, 0, n_times))

    def sample(self, data: Array, n: int, seed: int = 0) -> NDArray[np.float32]:
        """Draw from the posterior of one window ``(C, T)``, SI units, any reference.

        Args:
            data: ``(C, T)``, SI units, in the order of `ch_names`.
            n: Number of draws.
            seed: Random seed; the same seed gives the same samples.

        Returns:
            ``(n, D, T)``, A m.

        Raises:
            ValueError: The model has no samples; fewer than one draw; more samples in time than
                in training; or as in `estimate`.
            MemoryError: More draws than memory holds.

        """
        self._check_frames(data)
        self.check_samples(n, data.shape[1])
        batch = self.sensors.to_head(data)[None]
        size = self.model.noise_size(batch, self.feeds)
        noise = np.random.default_rng(seed).standard_normal((n, 1, size), dtype=np.float32)
        return self._outputs(batch, noise)["samples"][:, 0]

    def source_counts(self, data: Array) -> NDArray[np.float32]:
        """Probabilities ``(K,)`` of 1, 2, ... sources in one window, any reference.

        Args:
            data: ``(C, T)``, SI units, in the order of `ch_names`.

        Raises:
            ValueError: The model counts no sources; or as in `estimate`.

        """
        self._check_frames(data)
        if "source_counts" not in self.model.contract.kinds:
            raise ValueError(
                "PreparedInverse: the model counts no sources, it gives only "
                f"{' and '.join(self.model.contract.kinds)}. Use a network that does "
                "(an exported unrolled_champagne)."
            )
        return np.asarray(self._outputs(self.sensors.to_head(data)[None])["source_counts"][0])

    def check_samples(self, n: int, n_times: int, value_bytes: int = VALUE_BYTES) -> None:
        """Refuse draws that the model cannot give; errors as in `sample`.

        Args:
            n: Number of draws.
            n_times: Samples in time.
            value_bytes: Bytes that are needed per value of a draw.

        """
        if self.model.contract.noise is None:
            raise ValueError(
                "PreparedInverse: the model gives no posterior samples, only "
                f"{' and '.join(self.model.contract.kinds)}. Use a posterior model, for example "
                "an exported bayesian_minimum_norm."
            )
        longest = self.model.longest
        if n < 1 or (longest is not None and n_times > longest):
            raise ValueError(
                f"PreparedInverse: asked for {n} draws of {n_times} samples in time, "
                f"expected 1 draw or more of at most {longest} samples. Draw from shorter windows: "
                "those of a long recording are means over windows, which draws are not."
            )
        n_dipoles, allowed = self.space.n_dipoles, allowed_bytes()
        per_draw = value_bytes * n_times * n_dipoles
        if n * per_draw > allowed:
            raise MemoryError(
                f"PreparedInverse: asked for {n} draws: they need {n * per_draw} bytes for "
                f"{n_dipoles} dipoles and {n_times} samples in time, and {allowed:.0f} bytes may "
                f"be used. Draw {allowed // per_draw:.0f} or fewer."
            )

    def _check_frames(self, data: Array) -> None:
        if data.ndim != 2 or len(data) != len(self.ch_names):
            raise ValueError(
                f"PreparedInverse: data of shape {data.shape}, expected ({len(self.ch_names)} "
                f"channels, times): {list(self.ch_names[:5])} ... Select and order the channels."
            )
        check_data(data, self.sensors)

    def _windowed(self, data: Array, windows: Windows) -> list[Array]:
        return overlap_add(self._run, self.sensors.to_head(data), windows)

    def _run(self, batch: Array) -> list[NDArray[np.float32]]:
        """Windows ``(B, C, T)`` to ``[mean, std?]``, ``(B, D, T)`` each."""
        outputs = self._outputs(batch)
        return [outputs[kind] for kind in ("mean", "std") if kind in outputs]

    def _outputs(
        self, batch: Array, noise: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Estimates of windows by kind, checked for shape and finite values."""
        kinds = None if noise is None else ("samples",)
        outputs = self.model.run(batch, self.feeds, noise, kinds)
        expected = (len(batch), self.space.n_dipoles, batch.shape[2])
        for kind, output in outputs.items():
            if kind != "source_counts" and output.shape[-3:] != expected:
                raise ValueError(
                    f"PreparedInverse: the model gave an estimate of shape {output.shape}, the "
                    f"source space {self.space.name} has room for {expected}. The file is "
                    "not as in its contract; export it again."
                )
            if not np.isfinite(output).all():
                raise ValueError(
                    f"PreparedInverse: the model gave NaN or infinite moments for a window of "
                    f"{batch.shape[2]} samples. It cannot take this recording; use shorter "
                    "windows (estimate(..., window=)), or another model."
                )
        return outputs

    def _whitened(self, data: Array) -> Array:
        return np.asarray(self.whitener @ self.sensors.to_head(data))

    def power(self, data: Array) -> Array:
        """Whitened power ``(T,)`` of data ``(C, T)`` (SI, any reference); 1 for noise alone."""
        return whitened_power(self._whitened(data), self.rank)
