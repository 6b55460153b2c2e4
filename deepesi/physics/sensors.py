"""SensorArray: kinds, positions and reference of the channels of a recording.

All differences between electrodes, magnetometers and gradiometers are here: units, plausible
amplitudes, least distance of two sensors, and the reference of potentials.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]


class SensorKind(NamedTuple):
    """Properties of all channels of one kind.

    Attributes:
        title: The kind in words.
        unit: Symbol of its SI unit.
        unit_name: The unit in words, plural.
        amplitude: Lowest and highest plausible standard deviation over time, in `unit`.
        least_distance: Least distance of two sensors, m; 0 where several share a position.
        too_large: Probable unit of numbers that are too large.
        too_small: Probable unit of numbers that are too small.
        advice: Conversion of data from `too_large`, for errors.
        cov_advice: Conversion of covariances from its square, for errors.
        head_unit: Unit of arrays of heads, in `unit`. With these units the noise of all kinds is
            of the same size in number: about 1 µV, 50 fT and 10 fT/cm.
        quantity: What its channels measure.
        small_name: Symbol of the unit that numbers are shown in.
        small_unit: That unit, in `unit`.
        modality: ``"eeg"`` or ``"meg"``. Kinds of one modality are whitened together.

    """

    title: str
    unit: str
    unit_name: str
    amplitude: tuple[float, float]
    least_distance: float
    too_large: str
    too_small: str
    advice: str
    cov_advice: str
    quantity: str
    small_name: str
    small_unit: float
    head_unit: float = 1.0
    modality: str = "meg"

    @property
    def label(self) -> str:
        """Label of an axis: quantity and unit of the numbers."""
        return f"{self.quantity} ({self.small_name})"

    @property
    def shown(self) -> float:
        """Factor from arrays of heads to the numbers that are shown."""
        return self.head_unit / self.small_unit


#: A Neuromag triplet, one magnetometer and two gradiometers, shares one position.
KINDS = {
    "eeg": SensorKind(
        title="EEG",
        unit="V",
        unit_name="volts",
        amplitude=(1e-9, 5e-4),
        least_distance=1e-3,
        too_large="microvolts",
        too_small="kilovolts",
        advice="for microvolts: --unit uV, or multiply by 1e-6",
        cov_advice="for µV²: multiply by 1e-12",
        quantity="potential",
        small_name="µV",
        small_unit=1e-6,
        modality="eeg",
    ),
    "mag": SensorKind(
        title="magnetometer",
        unit="T",
        unit_name="tesla",
        amplitude=(1e-16, 5e-10),
        least_distance=0.0,
        too_large="femtotesla",
        too_small="a larger unit",
        advice="for femtotesla: multiply by 1e-15",
        cov_advice="for fT²: multiply by 1e-30",
        quantity="magnetic field",
        small_name="fT",
        small_unit=1e-15,
        head_unit=5e-8,
    ),
    "grad": SensorKind(
        title="gradiometer",
        unit="T/m",
        unit_name="tesla per metre",
        amplitude=(1e-15, 5e-9),
        least_distance=0.0,
        too_large="femtotesla per centimetre",
        too_small="a larger unit",
        advice="for femtotesla per centimetre: multiply by 1e-13",
        cov_advice="for (fT/cm)²: multiply by 1e-26",
        quantity="gradient",
        small_name="fT/cm",
        small_unit=1e-13,
        head_unit=1e-6,
    ),
}


def title_of(kinds: Iterable[str]) -> str:
    """``"EEG"``, ``"MEG"`` or ``"EEG and MEG"``, for keys of `KINDS`."""
    return " and ".join(sorted({KINDS[kind].modality.upper() for kind in kinds}))


def average_reference(data: Array, axis: int = 0) -> Array:
    """Subtract the mean over channels."""
    return np.asarray(data - data.mean(axis=axis, keepdims=True))


@dataclass(frozen=True)
class SensorArray:
    """The sensors of one recording set-up, one per channel.

    Attributes:
        names: ``C`` channel names.
        kinds: A key of `KINDS` for every channel.
        positions: ``(C, 3)``, m, MNE head frame.
        orientations: Unit vectors ``(C, 3)`` that coils measure along; zero for electrodes.

    Raises:
        ValueError: Counts disagree, names repeat, a kind is unknown, a value is not finite, or two
            sensors lie nearer to each other than two of their kind can.

    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    positions: Array
    orientations: Array

    def __post_init__(self) -> None:
        counts = {name: len(value) for name, value in vars(self).items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"SensorArray: channel counts disagree: {counts}. Give every channel one name, one "
                "kind, one position and one orientation."
            )
        if len(set(self.names)) < len(self.names):
            twice = sorted({c for c in self.names if self.names.count(c) > 1})
            raise ValueError(f"SensorArray: channel names repeat: {twice}. Rename the channels.")
        unknown = sorted(set(self.kinds) - KINDS.keys())
        if unknown:
            raise ValueError(f"SensorArray: kinds {unknown} unknown, expected some of {[*KINDS]}.")
        for name in ("positions", "orientations"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"SensorArray: {name} hold NaN or infinite values.")
        self._check_distances()

    def _check_distances(self) -> None:
        """Refuse two sensors of a kind at one position, where the kind forbids it."""
        for name, kind in KINDS.items():
            rows = self.rows_of(name)
            apart = cdist(self.positions[rows], self.positions[rows])
            near = np.argwhere(np.triu(apart < kind.least_distance, k=1))
            if len(near):
                pairs = [(self.names[rows[i]], self.names[rows[j]]) for i, j in near[:5]]
                more = f" and {len(near) - 5} more pairs" if len(near) > 5 else ""
                raise ValueError(
                    f"SensorArray: {kind.title} sensors at the same position (within "
                    f"{1e3 * kind.least_distance:g} mm): {pairs}{more}. They may be two names "
                    "of one sensor; keep one of each, or correct the positions."
                )

    @classmethod
    def eeg(cls, names: Sequence[str], positions: Array) -> "SensorArray":
        """Electrodes at ``(C, 3)``, m, MNE head frame."""
        positions = np.asarray(positions, dtype=np.float64)
        return cls(tuple(names), ("eeg",) * len(names), positions, np.zeros_like(positions))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Sequence[int] | NDArray[np.int64]) -> "SensorArray":
        """The sensors of these rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return SensorArray(
            tuple(self.names[i] for i in index),
            tuple(self.kinds[i] for i in index),
            self.positions[index],
            self.orientations[index],
        )

    def joined(self, other: "SensorArray") -> "SensorArray":
        """These sensors, then the others."""
        return SensorArray(
            self.names + other.names,
            self.kinds + other.kinds,
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.orientations, other.orientations]),
        )

    def rows_of(self, kind: str) -> NDArray[np.int64]:
        """Rows of the channels of one kind."""
        return np.flatnonzero([own == kind for own in self.kinds])

    @property
    def map_rows(self) -> NDArray[np.int64]:
        """Rows for a map, which shows one kind: EEG, else magnetometers, else one of two grads."""
        kind = next(kind for kind in KINDS if kind in self.kinds)
        rows = self.rows_of(kind)
        _, first = np.unique(self.positions[rows].round(3), axis=0, return_index=True)
        return np.asarray(rows if kind != "grad" else rows[np.sort(first)])

    @property
    def units(self) -> tuple[str, ...]:
        """SI unit of every channel."""
        return tuple(KINDS[kind].unit for kind in self.kinds)

    @property
    def modalities(self) -> tuple[str, ...]:
        """``"eeg"`` or ``"meg"`` for every channel."""
        return tuple(KINDS[kind].modality for kind in self.kinds)

    def check_eeg_only(self, command: str) -> None:
        """Refuse magnetic fields, for a command that takes potentials only.

        Raises:
            ValueError: There are MEG channels.

        """
        others = sorted(set(self.kinds) - {"eeg"})
        if others:
            raise ValueError(
                f"{command} takes EEG only, the recording has also channels of {others}. Use its "
                "EEG channels (--picks eeg, picks='eeg')."
            )

    @property
    def title(self) -> str:
        """``"EEG"``, ``"MEG"`` or ``"EEG and MEG"``."""
        return title_of(self.kinds)

    @property
    def head_units(self) -> Array:
        """Unit of the arrays of heads for every channel ``(C,)``, in its SI unit."""
        return np.array([KINDS[kind].head_unit for kind in self.kinds])

    def to_head(self, data: Array, axis: int = 0) -> Array:
        """Data in SI units, of any reference, as heads have them: referenced, in `head_units`.

        Args:
            data: Channels along `axis`, in the order of this array.
            axis: The axis of the channels.

        """
        referenced, units = self.reference(data, axis), self.head_units
        if (units == 1).all():
            return referenced
        return np.moveaxis(np.moveaxis(referenced, axis, -1) / units, -1, axis)

    def cov_to_head(self, cov: Array) -> Array:
        """Covariance ``(C, C)`` of data in SI units, of any reference, as heads have them.

        Potentials and magnetic fields count as independent, as in MNE-Python.
        """
        return self.independent(self.to_head(self.to_head(cov), 1))

    def independent(self, cov: Array) -> Array:
        """The covariance ``(C, C)`` without that of potentials with magnetic fields."""
        modalities = np.array(self.modalities)
        return np.asarray(cov * (modalities[:, None] == modalities))

    @property
    def summary(self) -> str:
        """Number of channels of every kind, in words."""
        counts = {kind.title: len(self.rows_of(name)) for name, kind in KINDS.items()}
        present = [f"{n} {title}" for title, n in counts.items() if n]
        return f"{', '.join(present)} channels"

    def text_by_kind(self, values: Array, summary: Callable[[Array], float]) -> str:
        """A number for the channels of every kind, with its unit: ``3 µV, 120 fT``.

        Args:
            values: One value per channel ``(C,)``, SI units.
            summary: Gives the number for the values of some channels.

        """
        return ", ".join(
            f"{summary(values[self.rows_of(name)]) / kind.small_unit:.3g} {kind.small_name}"
            for name, kind in KINDS.items()
            if name in self.kinds
        )

    @property
    def rank(self) -> int:
        """Dimensions of referenced data: one less than channels where there is EEG."""
        return len(self) - bool(len(self.rows_of("eeg")))

    def reference(self, data: Array, axis: int = 0) -> Array:
        """Data of any reference in the reference of heads: EEG to its average, MEG as it is.

        Args:
            data: Channels along `axis`, in the order of this array.
            axis: The axis of the channels.

        """
        rows = self.rows_of("eeg")
        if not len(rows):
            return data
        if len(rows) == len(self):
            return average_reference(data, axis)
        referenced = np.array(data)
        by_channel = np.moveaxis(referenced, axis, 0)  # a view
        by_channel[rows] = average_reference(by_channel[rows])
        return referenced

    def reference_cov(self, cov: Array) -> Array:
        """Covariance ``(C, C)`` of data of any reference, in the reference of heads."""
        return self.reference(self.reference(cov), axis=1)

    @property
    def reference_name(self) -> str:
        """Description of the reference of heads; empty if there is none."""
        return "average reference" if len(self.rows_of("eeg")) else ""

    @property
    def reference_operator(self) -> Array:
        """Matrix ``(C, C)`` of `reference`: average over EEG, identity for MEG."""
        return self.reference(np.eye(len(self)))

    def reference_to(self, rows: Sequence[int] | NDArray[np.int64]) -> Array:
        """Matrix ``(C, C)`` that references all channels to the average of the EEG among `rows`."""
        operator = np.eye(len(self))
        own = np.intersect1d(rows, self.rows_of("eeg"))
        if len(own):
            operator[np.ix_(self.rows_of("eeg"), own)] -= 1 / len(own)
        return operator

    def is_referenced(self, data: Array) -> bool:
        """Whether data ``(C, ...)`` are in the reference of heads, to single precision."""
        change = np.abs(self.reference(data) - data).max(initial=0.0)
        return bool(change <= 1e-6 * np.abs(data).max(initial=0.0))
