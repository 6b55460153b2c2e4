"""Contract of an exported file: JSON in the ONNX metadata, checked on load."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import jsonschema

from deepesi.physics.head import SourceSpace
from deepesi.physics.head_inputs import HeadInput
from deepesi.physics.head_inputs.declaration import Axes
from deepesi.physics.sensors import KINDS
from deepesi.runtime.self_test import SelfTest, StoredArray
from deepesi.runtime.window_needs import WindowNeeds

#: Entries of the ONNX metadata that hold the contract and the digest of the file.
METADATA_KEY, DIGEST_KEY = "deepesi", "deepesi_sha256"
#: Version of the format of the contract.
CONTRACT_VERSION = 5
#: Names of the ONNX inputs that are not head inputs.
DATA, NOISE = "data", "noise"
#: ONNX output of every kind of estimate.
OUTPUT_NAMES = {
    "mean": "dipole_mean",
    "std": "dipole_std",
    "samples": "dipole_samples",
    "source_counts": "source_counts",
}
#: File with the `Calibration` that ``deepesi calibrate`` writes.
CALIBRATION_FILE = "calibration.json"
#: File with the tables of ``deepesi calibrate`` for the card, Markdown.
CALIBRATION_TABLES = "calibration.md"
#: Licence of the files that deepesi writes.
LICENCE = "BSD-3-Clause"


@dataclass(frozen=True)
class TrainingRanges:
    """Ranges of the training data of a network; outside them it extrapolates.

    Attributes:
        n_channels: Fewest and most channels.
        n_times: Shortest and longest window, samples.
        sfreq: Sampling rate, Hz. Recordings were not filtered: their band ends at half of it.
        snr_db: Lowest and highest SNR, dB; None: not set, it followed from the dipole moments.
        band_hz: Band with 90 % of the power of the sources' time courses, as in
            `deepesi.data_gen.waveforms.TimeCourse.band`; None for single samples, or not known.

    """

    n_channels: tuple[int, int]
    n_times: tuple[int, int]
    sfreq: float
    snr_db: tuple[float, float] | None
    band_hz: tuple[float, float] | None = None

    def out_of_distribution(
        self, n_channels: int, sfreq: float, passband_hz: tuple[float, float], snr_db: float | None
    ) -> list[str]:
        """Descriptions of the properties of a recording that lie outside the ranges.

        For windows of several samples, a sampling rate below half or above twice that of training
        is out of distribution. So is a recording whose filters removed part of `band_hz`.

        Args:
            n_channels: Number of channels of the recording.
            sfreq: Sampling rate, Hz.
            passband_hz: High-pass and low-pass frequency, Hz.
            snr_db: SNR, dB; None: not known.

        """
        outside = _outside("channels", n_channels, self.n_channels) + self.snr_out_of_distribution(
            snr_db
        )
        if self.n_times[1] > 1 and not 0.5 <= sfreq / self.sfreq <= 2:
            outside.append(f"{sfreq:g} Hz; trained on {self.sfreq:g} Hz")
        if self.band_hz is not None:
            (low, high), resolution = self.band_hz, self.sfreq / self.n_times[1]
            if passband_hz[0] > low + resolution or passband_hz[1] < high:
                outside.append(
                    f"a passband of {passband_hz[0]:g} to {passband_hz[1]:g} Hz; 90 % of the power "
                    f"of the training data lies between {low:g} and {high:g} Hz"
                )
        return outside

    def snr_out_of_distribution(self, snr_db: float | None) -> list[str]:
        """Description of an SNR (dB; None: not known) outside the range; else empty."""
        return _outside("dB SNR at the strongest sample", snr_db, self.snr_db)


def _outside(what: str, value: float | None, known: tuple[float, float] | None) -> list[str]:
    if value is None or known is None or known[0] <= value <= known[1]:
        return []
    return [f"{value:.4g} {what}; trained on {known[0]:g} to {known[1]:g}"]


@dataclass(frozen=True)
class Calibration:
    """Calibration of this model, fitted by ``deepesi calibrate`` on validation recordings.

    Attributes:
        level: Probability with which prediction sets contain the target.
        covers: Part of the target, as in `deepesi.calibration.conformal.target_scores`.
        edges_db: Edges between bins of the SNR of a recording ``(B - 1,)``, dB.
        thresholds: Threshold of the scores per bin ``(B,)``, as in
            `deepesi.calibration.conformal.PredictionSets`.
        temperature: Factor included in the standard deviations of the file; None without them.
        fitted_on: Description of the recordings.

    """

    level: float
    covers: str
    edges_db: tuple[float, ...]
    thresholds: tuple[float, ...]
    temperature: float | None
    fitted_on: str


@dataclass(frozen=True)
class Output:
    """One output of a file: moments, A m, or probabilities.

    Attributes:
        name: Name of the ONNX output.
        kind: ``"mean"`` or ``"std"``, ``(batch, dipoles, times)``, or ``"samples"`` of the
            posterior, ``(draws, batch, dipoles, times)``, or ``"source_counts"``, probabilities of
            1, 2, ... sources in a window, ``(batch, numbers)``.

    """

    name: str
    kind: str

    @classmethod
    def of_kind(cls, kind: str) -> "Output":
        """The output of a kind, with its name in files of deepesi."""
        return cls(OUTPUT_NAMES[kind], kind)


@dataclass(frozen=True)
class Contract:
    """Inputs, outputs and origin of a model file.

    Attributes:
        head_inputs: Arrays that it needs from a head; each is an ONNX input of the same name.
        space_name: Source space; None if the model takes that of any head.
        space_fingerprint: Fingerprint of that source space, or None.
        vertices: Vertex numbers of that source space by part, or None.
        n_orient: Orientations per source, 1 (along the normal) or 3 (x, y, z of the head frame), or
            None if it takes that of any head.
        anatomy: Fingerprint of the template a bound model was trained on, or None.
        montages: Montages of training, for information.
        outputs: Outputs by name and kind.
        noise: Axes of one draw of the input ``noise`` ``(draws, batch, Z)``, standard normal; ``Z``
            is the product of their sizes. None for a file without samples.
        model: Plain configuration of the model.
        trained: Ranges of its training data; None if not trained, or not known.
        config_sha256: SHA-256 of the training configuration (in its run directory); for an
            ensemble, of the members' hashes, one per line; or None.
        calibration: Calibration, or None.
        versions: Versions of deepesi and of the packages it exported with.
        self_test: A small example with its outputs, computed again when the file is opened.
        licence: Licence of the file.
        precision: Precision of the weights.
        n_draws: Number of fixed draws behind mean and standard deviation of a posterior model; None
            for a closed form, and without samples.
        sensor_kinds: Kinds of sensors it takes, keys of `deepesi.physics.sensors.KINDS`. A network
            takes those of its training.
        window_needs: Length and sampling rate that filters in the graph need.

    """

    head_inputs: tuple[HeadInput, ...]
    space_name: str | None
    space_fingerprint: str | None
    vertices: tuple[tuple[int, ...], ...] | None
    n_orient: int | None
    anatomy: str | None
    montages: tuple[str, ...]
    outputs: tuple[Output, ...]
    noise: Axes | None
    model: dict[str, Any]
    trained: TrainingRanges | None
    config_sha256: str | None
    calibration: Calibration | None
    versions: dict[str, str]
    self_test: SelfTest
    licence: str = LICENCE
    precision: str = "float32"
    n_draws: int | None = None
    sensor_kinds: tuple[str, ...] = ("eeg",)
    window_needs: WindowNeeds = field(default_factory=WindowNeeds)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the outputs."""
        return tuple(output.kind for output in self.outputs)

    def check_sensors(self, kinds: Collection[str]) -> None:
        """Refuse channels of kinds that the file does not take.

        Raises:
            ValueError: Some are.

        """
        others = [kind for kind in KINDS if kind in set(kinds) - set(self.sensor_kinds)]
        if others:
            known = [kind for kind in self.sensor_kinds if kind in kinds]
            pick = f"leave the others out (--picks {' '.join(known)}), or " if known else ""
            raise ValueError(
                f"Inverse: the file takes {_titles(self.sensor_kinds)} channels, the recording and "
                f"its head have {_titles(others)} channels{' as well' if known else ''}. To "
                f"go on, {pick}use a file for these kinds: a network trained with data=joint, or "
                "an exported method such as eLORETA. Older files do not name their sensors; "
                "export such a file again."
            )

    def check_space(self, space: SourceSpace) -> None:
        """Refuse another source space than that of the file.

        Raises:
            ValueError: It is another one, or has another number of orientations.

        """
        if self.space_fingerprint not in (None, space.fingerprint):
            raise ValueError(
                f"Inverse: the model belongs to the source space {self.space_name} "
                f"({self.space_fingerprint}), the head has {space.name} with "
                f"{space.n_sources} sources ({space.fingerprint}). Leave the forward "
                "solution out to use the packaged head, compute it on that source space, or use a "
                "model for any source space (such as an exported eLORETA)."
            )
        if self.n_orient not in (None, space.n_orient):
            kind = {1: "fixed", 3: "free"}[self.n_orient]
            raise ValueError(
                f"Inverse: the model gives {self.n_orient} orientation(s) per source, the "
                f"head {space.name} has {space.n_orient}. Use a head of {kind} orientation (the "
                "packaged fsaverage-ico3, or fsaverage-ico3-free), or export the model on such a "
                "head."
            )

    def to_json(self) -> str:
        """The contract as JSON, with its constants: units, reference, version."""
        fields = asdict(self)
        kinds = fields.pop("sensor_kinds")
        return json.dumps(
            fields
            | {
                "contract_version": CONTRACT_VERSION,
                "head_inputs": [d.to_json() for d in self.head_inputs],
                "data": {
                    "kinds": {kind: _described(kind) for kind in kinds},
                    "shape": ["batch", "channels", "times"],
                },
                "estimate": {"unit": "A m", "shape": ["batch", "dipoles", "times"]},
            }
        )

    @classmethod
    def from_json(cls, text: str, origin: str) -> "Contract":
        """Read a contract and validate it with ``contract.schema.json``.

        Raises:
            ValueError: Not JSON, another version, or an entry missing or of another kind.

        """
        try:
            content = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"{origin}: its deepesi metadata is not JSON ({error}). The file is damaged; "
                "export it again."
            ) from error
        version = content.get("contract_version") if isinstance(content, dict) else None
        if version != CONTRACT_VERSION:
            raise ValueError(
                f"{origin}: its contract has version {version!r}, this deepesi reads "
                f"{CONTRACT_VERSION}. Export it again with this version: 'deepesi export RUN --out "
                "FILE.onnx', with the run or the baseline it came from."
            )
        wrong = jsonschema.exceptions.best_match(_validator().iter_errors(content))
        if wrong is not None:
            where = "/".join(map(str, wrong.absolute_path)) or "as a whole"
            raise ValueError(
                f"{origin}: its contract does not have the expected form ({where}: "
                f"{wrong.message:.200}). The file was altered; export it again."
            )
        try:
            head_inputs = tuple(HeadInput.from_json(d) for d in content["head_inputs"])
        except ValueError as error:
            raise ValueError(f"{origin}: {error}") from error
        trained, calibration = content["trained"], content["calibration"]
        special: dict[str, Any] = {
            "head_inputs": head_inputs,
            "outputs": tuple(Output(**output) for output in content["outputs"]),
            "trained": trained and TrainingRanges(**as_tuples(trained)),
            "calibration": calibration and Calibration(**as_tuples(calibration)),
            "self_test": _self_test(content["self_test"]),
            "sensor_kinds": tuple(kind for kind in KINDS if kind in content["data"]["kinds"]),
            "window_needs": WindowNeeds(**content.get("window_needs", {})),
        }
        plain = {n: content[n] for n in cls.__dataclass_fields__ if n in content.keys() - special}
        return cls(**as_tuples(plain), **special)


def _described(kind: str) -> dict[str, str | float]:
    """Description of the data of a kind of sensor: SI unit, unit of the numbers, reference."""
    known = KINDS[kind]
    if kind == "eeg":
        return {"unit": known.unit, "reference": "average"}
    return {"unit": known.unit, "numbers_in": known.head_unit}


def _titles(kinds: Collection[str]) -> str:
    return " and ".join(KINDS[kind].title for kind in kinds)


def _self_test(content: dict[str, Any]) -> SelfTest:
    """Read the stored arrays, by part and name."""
    return SelfTest(
        **{
            part: {name: StoredArray(**as_tuples(stored)) for name, stored in arrays.items()}
            for part, arrays in content.items()
        }
    )


def as_tuples(content: dict[str, Any]) -> dict[str, Any]:
    """Lists of JSON as tuples."""

    def of(value: Any) -> Any:
        return tuple(map(of, value)) if isinstance(value, list) else value

    return {key: of(value) for key, value in content.items()}


def _validator() -> jsonschema.Draft202012Validator:
    file = resources.files("deepesi.runtime") / "contract.schema.json"
    return jsonschema.Draft202012Validator(json.loads(file.read_text()))
