"""The explanation of one estimate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.interpret.any_model.counterfactual import Counterfactual
from deepesi.interpret.any_model.occlusion import LostSensor
from deepesi.interpret.any_model.targets import Target
from deepesi.physics.forward_check import ForwardCheck
from deepesi.physics.sensors import SensorArray
from deepesi.physics.source_mesh import CortexMesh

Array = NDArray[np.float64]


class Attribution(NamedTuple):
    """Attribution by one method.

    Attributes:
        by_sensor: Values of the channels ``(C,)``, in `unit`.
        values: Values of channels and samples ``(C, T)``, in `unit`; None: only of whole channels.
        unit: Unit of the values.
        note: Remark for the page; empty without one.

    """

    by_sensor: Array
    values: Array | None
    unit: str
    note: str = ""


class Inside(NamedTuple):
    """Evidence and attention inside a network; empty for other models.

    Attributes:
        steps: Title and share of every source ``(S,)``, for every step.
        attention: Attention to every sensor ``(C,)``, by description.

    """

    steps: Sequence[tuple[str, Array]] = ()
    attention: Sequence[tuple[str, Array]] = ()


@dataclass(frozen=True)
class Explanation:
    """Explanation of the estimate of one sample.

    Attributes:
        recording: Name of the file and of the response.
        model: Name of the model.
        head: Name of the source space.
        time: Time of the sample, s.
        times: Times of the samples that are input of the model ``(T,)``, s.
        snr_db: SNR of the sample, dB.
        sensors: The sensors.
        data: Referenced data of these samples ``(C, T)``, V.
        magnitudes: Magnitudes of the estimate ``(S,)``, A m.
        positions: Source positions ``(S, 3)``, m.
        mesh: Cortex mesh; None: none is known.
        peak: The strongest source.
        locations: Description of this and other sources, by number of the source.
        lobes: Hemisphere and lobes of the same sources; without those that have no MNI position.
        elsewhere: Which sources are in another lobe than the strongest one ``(S,)``, as in
            `deepesi.physics.lobes.elsewhere`.
        target: What is explained.
        target_text: The same in words.
        value: Its value.
        attributions: Methods by name.
        missing: What is missing, and why, one sentence or more each.
        check: Forward check.
        unexplained_channels: Channels that no source explains, over the whole recording.
        change: Counterfactual; None: none was found.
        lost: Sensors whose loss moves the peak.
        inside: Evidence and attention inside the network.

    """

    recording: str
    model: str
    head: str
    time: float
    times: Array
    snr_db: float
    sensors: SensorArray
    data: Array
    magnitudes: Array
    positions: Array
    mesh: CortexMesh | None
    peak: int
    locations: dict[int, str]
    lobes: dict[int, str]
    elsewhere: NDArray[np.bool_]
    target: Target
    target_text: str
    value: float
    attributions: dict[str, Attribution]
    missing: Sequence[str]
    check: ForwardCheck
    unexplained_channels: list[int]
    change: Counterfactual | None
    lost: list[LostSensor]
    inside: Inside = field(default_factory=Inside)

    def names(self, rows: Sequence[int]) -> str:
        """Names of channels; "none" without any."""
        return ", ".join(self.sensors.names[row] for row in rows) or "none"

    def location(self, source: int) -> str:
        """Lobe of a source, if it is known, and its description."""
        lobe = self.lobes.get(source)
        return self.locations[source] if lobe is None else f"{lobe} ({self.locations[source]})"

    @property
    def sample(self) -> int:
        """The explained sample among `times`."""
        return int(np.abs(self.times - self.time).argmin())
