"""Counts of the samples of a stream."""

from dataclasses import dataclass


@dataclass
class Counts:
    """Counts of the samples of a stream.

    Attributes:
        received: All received samples.
        estimated: Samples with an estimate.
        late: Samples older than earlier ones (chunks out of order), which are dropped; or held,
            because the clock of the stream may have stepped back.
        lost: Missing samples, by the clock fitted to the time stamps.
        broken: Dropped samples: NaN, infinite, an amplitude that is not plausible for EEG in volts,
            constant, or with far more or less power than the noise.
        settling: Samples that only passed the filter, at the start and after every gap.

    """

    received: int = 0
    estimated: int = 0
    late: int = 0
    lost: int = 0
    broken: int = 0
    settling: int = 0

    def __str__(self) -> str:
        return (
            f"{self.received:,} samples received, {self.estimated:,} estimated, {self.late:,} "
            f"late, {self.lost:,} lost, {self.broken:,} broken, {self.settling:,} while settling"
        )
