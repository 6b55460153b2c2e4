"""CoilRanges: MEG of recording set-ups, beside EEG or alone.

A set-up has one array and one position of the head in it, as the analyst measured it. The true
position differs from example to example. The noise of the sensors is that of an empty room: white
noise of every coil, and fields of far sources. Maxwell filtering (SSS) may have lowered the rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from deepesi.data_gen.noise import Noise
from deepesi.data_gen.ranges import METRES, check_number, check_range
from deepesi.physics.helmets import (
    ARRAYS,
    CLEARANCE,
    HELMETS,
    OPM_MONTAGE,
    helmet,
    on_scalp,
    put_on,
)
from deepesi.physics.magnetic import Coils, charge_field
from deepesi.physics.montage import standard_montage
from deepesi.physics.sensors import SensorArray
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: True positions of the head per set-up; an example has one of them.
N_POSITIONS = 8
#: Distance of far sources of noise from the head, m.
FAR = 3.0
#: Charges that stand for everything inside the head, and the radius of their sphere, m.
N_INSIDE, INSIDE = 400, 0.03


@dataclass(frozen=True)
class DrawnCoils:
    """MEG of one set-up.

    Attributes:
        name: Name of the array.
        nominal: Coils as the analyst has them, head frame.
        patterns: What the true coils measure of every mode ``(P, C, r)``, one per position of the
            head, `SensorArray.head_units`; after Maxwell filtering, as `far`.
        far: What the coils measure of far charges ``(C, F)``, head units, any scale.
        far_power: Power of far sources, relative to the white noise of the coils.
        snr_db: SNR of MEG over that of EEG, for a source of mean strength, dB.
        projector: Projector ``(C, C)`` of Maxwell filtering; None without.

    """

    name: str
    nominal: Coils
    patterns: Array
    far: Array
    far_power: float
    snr_db: float
    projector: Array | None


@dataclass(frozen=True)
class CoilRanges:
    """Ranges that the MEG of set-ups is drawn from.

    Args:
        arrays: Sensor arrays, one per set-up: ``neuromag306``, ``ctf275``, ``opm64`` (on the
            scalp).
        tilt: Standard deviation of the tilt of the head in a helmet about each axis, degrees.
        shift: Standard deviation of its position sideways and forward, m.
        gap: Range of the distance of the nearest coil from the scalp, beyond the wall, m.
        position_error: Mean error of the measured head position: shift, m.
        rotation_error: Mean error of the measured head position: rotation, degrees.
        snr_db: Range of the SNR of MEG over that of EEG, for a source of mean strength, dB.
        far: Range of the power of far sources, relative to white noise, log-uniform, no unit.
        sss: Probability that a set-up of a helmet was Maxwell-filtered.
        rank: Range of the rank that Maxwell filtering leaves.
        eeg_only: Probability that a set-up lacks MEG, so that one network serves both.
        meg_only: Probability that a set-up lacks EEG.

    Raises:
        ValueError: A name is unknown, or a range is out of order or not in SI units.

    """

    arrays: Sequence[str] = ("neuromag306",)
    tilt: float = 4.0
    shift: float = 0.004
    gap: tuple[float, float] = (0.0, 0.01)
    position_error: float = 0.003
    rotation_error: float = 1.5
    snr_db: tuple[float, float] = (-3.0, 3.0)
    far: tuple[float, float] = (0.01, 1.0)
    sss: float = 0.0
    rank: tuple[int, int] = (60, 75)
    eeg_only: float = 0.0
    meg_only: float = 0.0

    def __post_init__(self) -> None:
        who, unknown = "CoilRanges", sorted(set(self.arrays) - set(ARRAYS))
        if not self.arrays or unknown:
            raise ValueError(f"{who}: arrays {unknown} unknown, expected some of {list(ARRAYS)}.")
        check_number(who, "tilt", self.tilt, 0, 30, "degrees")
        check_number(who, "rotation_error", self.rotation_error, 0, 30, "degrees")
        check_number(who, "shift", self.shift, 0, 0.03, METRES)
        check_number(who, "position_error", self.position_error, 0, 0.03, METRES)
        check_range(who, "gap", self.gap, 0, 0.05, METRES)
        check_range(who, "snr_db", self.snr_db, -60, 60, "dB")
        check_range(who, "far", self.far, 1e-6, 1e6, "(relative power)")
        check_range(who, "rank", self.rank, 20, 300, "dimensions")
        for name in ("sss", "eeg_only", "meg_only"):
            check_number(who, name, getattr(self, name), 0, 1, "(no unit)")
        if self.eeg_only + self.meg_only > 1:
            raise ValueError(f"{who}: eeg_only and meg_only are above 1 together.")

    @property
    def mixtures(self) -> list[tuple[bool, bool]]:
        """Whether set-ups have EEG and MEG: the mixtures of some probability."""
        shares = {
            (True, False): self.eeg_only,
            (False, True): self.meg_only,
            (True, True): 1 - self.eeg_only - self.meg_only,
        }
        return [mixture for mixture, share in shares.items() if share > 0]

    def modalities(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """Whether a set-up has EEG, and whether it has MEG."""
        drawn = rng.uniform()
        if drawn < self.eeg_only:
            return True, False
        return drawn >= self.eeg_only + self.meg_only, True

    def draw(self, template: Template, rng: np.random.Generator) -> DrawnCoils:
        """Draw array, position of the head and rank of one set-up."""
        if template.known_coils is not None:
            return self._known(template, rng)
        name = str(rng.choice(list(self.arrays)))
        nominal = self._placed(name, template, rng)
        true = [self._misplaced(nominal, rng) for _ in range(N_POSITIONS)]
        projector = None
        if name in HELMETS and rng.uniform() < self.sss:
            projector = inside_projector(nominal, int(rng.integers(*self.rank, endpoint=True)))
        patterns = np.stack([template.magnetic.patterns(coils) for coils in true])
        return self._drawn(name, nominal, patterns, projector, rng)

    def _known(self, template: Template, rng: np.random.Generator) -> DrawnCoils:
        """The coils of a forward solution, in their only position."""
        assert template.known_coils is not None
        coils = template.known_coils.coils
        patterns = template.known_coils.patterns(coils)[None]
        return self._drawn(template.name, coils, patterns, None, rng)

    def _drawn(
        self,
        name: str,
        nominal: Coils,
        patterns: Array,
        projector: Array | None,
        rng: np.random.Generator,
    ) -> DrawnCoils:
        directions = rng.normal(size=(12, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        far = nominal.sensors.to_head(charge_field(nominal, FAR * directions))
        power, snr_db = np.exp(rng.uniform(*np.log(self.far))), rng.uniform(*self.snr_db)
        if projector is not None:
            patterns, far = projector @ patterns, projector @ far
        return DrawnCoils(name, nominal, patterns, far, float(power), float(snr_db), projector)

    def _placed(self, name: str, template: Template, rng: np.random.Generator) -> Coils:
        scalp = template.family.scalp_pos
        if name not in HELMETS:
            _, points = template.montage(OPM_MONTAGE)
            return on_scalp(points.positions, scalp.mean(axis=0))
        tilt = Rotation.from_rotvec(np.deg2rad(self.tilt) * rng.normal(size=3)).as_matrix()
        gap = CLEARANCE + rng.uniform(*self.gap)
        return put_on(helmet(name), scalp, tilt, self.shift * rng.normal(size=2), gap)

    def _misplaced(self, coils: Coils, rng: np.random.Generator) -> Coils:
        """The coils at their true positions: rotated about their middle and shifted."""
        mean_length = np.sqrt(8 / np.pi)  # of a standard normal vector
        angle = np.deg2rad(self.rotation_error) / mean_length * rng.normal(size=3)
        rotation = Rotation.from_rotvec(angle).as_matrix()
        middle = coils.points.mean(axis=0)
        shift = self.position_error / mean_length * rng.normal(size=3)
        return coils.moved(rotation, middle - rotation @ middle + shift)


def coil_array(name: str) -> Coils:
    """An array of `ARRAYS`, not on a head: kinds and number of its coils."""
    if name in HELMETS:
        return helmet(name)
    positions = standard_montage(OPM_MONTAGE)[1]
    return on_scalp(positions, positions.mean(axis=0))


def inside_projector(coils: Coils, rank: int) -> Array:
    """Projector ``(C, C)`` onto the `rank` strongest fields of sources inside the helmet.

    Like Maxwell filtering, which keeps the fields of the lowest multipoles inside.

    Source: Taulu & Kajola 2005, doi:10.1063/1.1935742. Difference: the fields of charges on a small
    sphere take the place of vector spherical harmonics; they span the same lowest multipoles.
    """
    golden = np.arange(N_INSIDE) + 0.5
    height, angle = 1 - 2 * golden / N_INSIDE, np.pi * (1 + 5**0.5) * golden
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
    charges = coils.points.mean(axis=0) - [0, 0, INSIDE] + INSIDE * sphere
    fields = coils.sensors.to_head(charge_field(coils, charges))
    basis = np.linalg.svd(fields, full_matrices=False)[0][:, :rank]
    return np.asarray(basis @ basis.T)


def with_coil_noise(
    noise: Noise, coils: DrawnCoils, leadfield: Array, sensors: SensorArray
) -> Noise:
    """Noise of a set-up with far sources in MEG, Maxwell filtering and the drawn SNR of MEG.

    A source of mean strength is one with the mean squared norm of the columns of the lead field.

    Args:
        noise: Noise of all channels.
        coils: MEG of the set-up.
        leadfield: True lead field of all channels ``(C, D)``.
        sensors: All channels, EEG first.

    """
    meg = np.array(sensors.modalities) == "meg"
    whole = np.eye(len(sensors))
    if coils.projector is not None:
        whole[np.ix_(meg, meg)] = coils.projector
        noise = noise.mapped_by(whole)
    far = np.zeros_like(noise.cov)
    far[np.ix_(meg, meg)] = coils.far @ coils.far.T
    far *= coils.far_power * np.diag(noise.cov)[meg].sum() / np.trace(far)
    noise = noise.plus(far, 1.0)
    if meg.all():
        return noise
    signal, variance = (leadfield**2).sum(axis=1), np.diag(noise.cov)
    ratio = signal[meg].sum() / variance[meg].sum() / (signal[~meg].sum() / variance[~meg].sum())
    louder = np.sqrt(ratio / 10 ** (coils.snr_db / 10))
    return noise.mapped_by(np.diag(np.where(meg, louder, 1.0)))
