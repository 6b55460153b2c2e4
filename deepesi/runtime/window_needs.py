"""Window length and sampling rate that the filters inside a model need."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class WindowNeeds:
    """Length and sampling rate that the filters inside a model need.

    A graph computes with any window, so these are checked before: with too few samples or at
    another sampling rate the map would be wrong.

    Attributes:
        shortest: Fewest samples of a window.
        sfreq: Sampling rate that the filters are made for, Hz; None: any.

    """

    shortest: int = 1
    sfreq: float | None = None

    def check_length(self, n_times: int, what: str = "a window") -> None:
        """Refuse a window with fewer samples than the longest filter."""
        if n_times < self.shortest:
            least = f"{self.shortest} samples"
            if self.sfreq is not None:
                least += f" ({self.shortest / self.sfreq:g} s at {self.sfreq:g} Hz)"
            raise ValueError(
                f"{what} of {n_times} samples is shorter than a filter of the model, which needs "
                f"{least} or more. Give longer windows, or use a model without time-frequency "
                "inputs."
            )

    def check_rate(self, sfreq: float, what: str = "the recording") -> None:
        """Refuse a sampling rate that the filters are not made for."""
        if self.sfreq is not None and not math.isclose(sfreq, self.sfreq, rel_tol=1e-3):
            raise ValueError(
                f"{what} has a sampling rate of {sfreq:g} Hz, the filters of the model are made "
                f"for {self.sfreq:g} Hz. Resample it (recording.resample({self.sfreq:g}) of "
                "MNE-Python), or use a model without time-frequency inputs."
            )

    @classmethod
    def joined(cls, needs: Iterable["WindowNeeds"]) -> "WindowNeeds":
        """The needs of models that compute from the same window.

        Raises:
            ValueError: Their filters are made for several sampling rates.

        """
        needs = list(needs)
        rates = sorted({one.sfreq for one in needs if one.sfreq is not None})
        if len(rates) > 1:
            raise ValueError(
                "the members have filters for several sampling rates: "
                f"{', '.join(f'{rate:g}' for rate in rates)} Hz. Train them at one rate."
            )
        return cls(max(one.shortest for one in needs), rates[0] if rates else None)
