"""Advice on one recording, and its JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepesi.advice.rules import Error, Evidence, Gain, hints, reasons
from deepesi.utils.files import atomic

TRUST, DO_NOT_TRUST = "trust", "do not trust"
#: Largest shortfall of the coverage of prediction sets without a caution: chance in 200 strangers.
TOLERATED = 0.05
#: What may help, but cannot be estimated, with the reason.
NOT_ESTIMATED = {"MEG": "the simulation of strangers has EEG only, so its gain is not known yet"}


@dataclass(frozen=True)
class Location:
    """The strongest source of a method.

    Attributes:
        where: Description.
        mni_mm: MNI position, mm; None where it is unknown.

    """

    where: str
    mni_mm: tuple[float, ...] | None


@dataclass(frozen=True)
class Cap:
    """How the electrodes were placed on the head."""

    placed_by: str
    residual_mm: float
    pitch_degrees: float | None


@dataclass(frozen=True)
class SetSize:
    """Prediction sets of the model.

    Attributes:
        level: Nominal probability.
        area_cm2: Area for the recording.
        strangers_median_cm2: Median area for strangers.
        coverage: Share of strangers whose set holds the true centres that it must: all, or the
            strongest, as they were fitted.

    """

    level: float
    area_cm2: float
    strangers_median_cm2: float
    coverage: float

    def __str__(self) -> str:
        return (
            f"The {100 * self.level:g} % prediction sets are too small under this set-up: they "
            f"hold what they must in {100 * self.coverage:.0f} % of strangers."
        )


@dataclass(frozen=True)
class Advice:
    """Advice on the peak of one recording.

    Attributes:
        recording: Name of the file and of the response.
        model: Name of the model.
        head: Name of the packaged head.
        n_channels: Number of channels used.
        bads: Channels excluded as bad.
        nave: Number of averaged trials.
        rank: Number of dimensions of the noise.
        rank_reason: Reason for it.
        time_ms: Time of the peak.
        snr_db: SNR of whitened data at the peak.
        cap: Electrodes; None where the file of a prepared model does not say it.
        unexplained_channels: Channels that no source explains.
        cautions: What to check, as sentences.
        locations: Strongest source by method.
        distances_mm: Distance between the strongest sources of two methods.
        evidence: What the verdict is made of.
        prediction_set: None if the model is not calibrated.
        gains: What better set-ups would gain, the most first.
        n_strangers: Number of simulated recordings.
        analyst_knows: What the analysts of strangers know of the cap and the anatomy.

    """

    recording: str
    model: str
    head: str
    n_channels: int
    bads: list[str]
    nave: float
    rank: int
    rank_reason: str
    time_ms: float
    snr_db: float
    cap: Cap | None
    unexplained_channels: list[str]
    cautions: list[str]
    locations: dict[str, Location]
    distances_mm: dict[str, float]
    evidence: Evidence
    prediction_set: SetSize | None
    gains: list[Gain]
    n_strangers: int
    analyst_knows: str

    @property
    def reasons(self) -> list[str]:
        """Reasons not to trust the estimate."""
        return reasons(self.evidence)

    @property
    def verdict(self) -> str:
        """Whether to trust the estimate."""
        return DO_NOT_TRUST if self.reasons else TRUST

    @property
    def expected(self) -> Error:
        """Expected error of the model."""
        return self.evidence.expected[self.model]

    @property
    def summary(self) -> str:
        """The verdict as one sentence."""
        if self.reasons:
            return f"Do not trust the estimate of {self.model}."
        return (
            f"No reason not to trust the estimate of {self.model}. Expected error: {self.expected}."
        )

    @property
    def to_check(self) -> list[str]:
        """Cautions, and what the comparison of the methods suggests."""
        sets = self.prediction_set
        small = sets is not None and sets.coverage < sets.level - TOLERATED
        return [*self.cautions, *hints(self.evidence), *([str(sets)] if small else [])]

    def to_json(self) -> dict[str, Any]:
        """The content of the JSON file."""
        content = asdict(self)
        evidence, helps = content.pop("evidence"), content.pop("gains")
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            **content,
            "cautions": self.to_check,
            "p_noise": evidence["p_noise"],
            "misfit": {"p": self.evidence.p_misfit, "sources": list(evidence["misfit"])},
            "agreement": evidence["agreement"],
            "expected_error": evidence["expected"],
            "would_help": helps,
            "not_estimated": NOT_ESTIMATED,
        }


def write_json(advice: Advice, path: Path) -> None:
    """Write the JSON file atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(advice.to_json(), indent=1) + "\n", encoding="utf-8")
