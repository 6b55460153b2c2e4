"""What an exported file says about itself: JSON in the ONNX metadata, checked on load."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from deepesi.physics.head_inputs import HeadInput

#: Entry of the ONNX metadata that holds the contract, and the version of its form.
METADATA_KEY, CONTRACT_VERSION = "deepesi", 1


@dataclass(frozen=True)
class TrainingRanges:
    """Recordings that a network was trained on; beyond them it extrapolates.

    Attributes:
        n_channels: Fewest and most channels.
        n_times: Shortest and longest window, samples.
        sfreq: Sampling rate, Hz.
        snr_db: Lowest and highest SNR, dB; None: whatever the strengths of the sources came to.

    """

    n_channels: tuple[int, int]
    n_times: tuple[int, int]
    sfreq: float
    snr_db: tuple[float, float] | None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TrainingRanges":
        """Lists become pairs."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})

    def beyond(self, n_channels: int, sfreq: float, snr_db: float | None) -> list[str]:
        """What of a recording lies outside, in words.

        Windows of several samples are those of a rate; twice or half of it is another world.
        """
        found = []
        for what, value, known in (
            ("channels", n_channels, self.n_channels),
            ("dB, its SNR where it is strongest", snr_db, self.snr_db),
        ):
            if value is not None and known is not None and not known[0] <= value <= known[1]:
                found.append(f"{value:.4g} {what}; trained on {known[0]:g} to {known[1]:g}")
        if self.n_times[1] > 1 and not 0.5 <= sfreq / self.sfreq <= 2:
            found.append(f"{sfreq:g} Hz; trained on {self.sfreq:g} Hz")
        return found


@dataclass(frozen=True)
class Contract:
    """What a model file needs and gives.

    Attributes:
        head_inputs: What it asks of a head; each is an ONNX input of the same name.
        space_name: Source space, or None if the model follows the head's.
        space_fingerprint: Identity of that source space, or None.
        anatomy: Fingerprint of the template a bound model was trained on, or None.
        montages: Montages seen in training, for information.
        has_std: Whether there is a second output, the standard deviation.
        deepesi_version: That wrote the file.
        model: Plain configuration of the model.
        trained: What it was trained on; None if it was not, or not known.

    """

    head_inputs: tuple[HeadInput, ...]
    space_name: str | None
    space_fingerprint: str | None
    anatomy: str | None
    montages: tuple[str, ...]
    has_std: bool
    deepesi_version: str
    model: dict[str, Any]
    trained: TrainingRanges | None = None

    def to_json(self) -> str:
        """The contract as JSON, with what never varies: units, reference, version."""
        return json.dumps(
            asdict(self)
            | {
                "contract_version": CONTRACT_VERSION,
                "head_inputs": [d.to_json() for d in self.head_inputs],
                "eeg": {
                    "unit": "V",
                    "reference": "average",
                    "shape": ["batch", "channels", "times"],
                },
                "output": {"unit": "A m", "shape": ["batch", "dipoles", "times"]},
            }
        )

    @classmethod
    def from_json(cls, text: str, origin: str) -> "Contract":
        """Read a contract.

        Raises:
            ValueError: Not JSON, another version, or entries missing.

        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{origin}: its deepesi metadata is not JSON ({error}). The file is damaged; "
                "export it again."
            ) from error
        version = content.get("contract_version") if isinstance(content, dict) else None
        if version != CONTRACT_VERSION:
            raise ValueError(
                f"{origin}: its contract has version {version!r}, this deepesi reads "
                f"{CONTRACT_VERSION}. Export it again with this version."
            )
        names = [n for n in cls.__dataclass_fields__ if n != "trained"]
        trained = content.get("trained")  # files of before do not say
        missing = [n for n in names if n not in content]
        if missing:
            raise ValueError(f"{origin}: its contract lacks {missing}. Export it again.")
        return cls(
            **{n: content[n] for n in names if n not in ("head_inputs", "montages")},
            head_inputs=tuple(HeadInput.from_json(d) for d in content["head_inputs"]),
            montages=tuple(content["montages"]),
            trained=None if trained is None else TrainingRanges.from_json(trained),
        )
