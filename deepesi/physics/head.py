"""HeadModel: one head under one recording set-up."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.sensors import SensorArray

Array = NDArray[np.float64]


def magnitudes(moments: Array, n_orient: int) -> Array:
    """Norm over orientation of the moment of every source, A m: ``(D, ...)`` to ``(S, ...)``."""
    return np.asarray(np.linalg.norm(moments.reshape(-1, n_orient, *moments.shape[1:]), axis=1))


@dataclass(frozen=True)
class SourceSpace:
    """A named set of source locations, the same on every head.

    Attributes:
        name: Name, such as ``"fsaverage-ico3"``.
        vertices: Vertex numbers per part, as in `mne.SourceEstimate`: left and right hemisphere of
            a surface, one array for a volume, all of them in turn for a mixed space.
        edges: Neighbours among the sources ``(E, 2)``, numbered through all parts.
        n_orient: 1 (fixed, along the normal) or 3 (free).

    """

    name: str
    vertices: tuple[NDArray[np.int64], ...]
    edges: NDArray[np.int64]
    n_orient: int = 1

    def __post_init__(self) -> None:
        if self.n_orient not in (1, 3):
            raise ValueError(f"SourceSpace: n_orient must be 1 or 3, got {self.n_orient}.")

    @property
    def n_sources(self) -> int:
        """Number of source locations ``S``."""
        return sum(len(v) for v in self.vertices)

    @property
    def n_dipoles(self) -> int:
        """Number of source components ``D = S * n_orient``."""
        return self.n_sources * self.n_orient

    @property
    def fixed(self) -> "SourceSpace":
        """The same sources with fixed orientation."""
        return replace(self, n_orient=1)

    @property
    def fingerprint(self) -> str:
        """Identity of the space: vertex numbers and orientation, not the anatomy of one head."""
        digest = hashlib.sha256(f"{self.name}|{self.n_orient}".encode())
        for vertices in self.vertices:
            digest.update(np.ascontiguousarray(vertices, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class HeadModel:
    """One head under one recording set-up, in the MNE head frame.

    Positions and moments are in SI units. Channels are in volts, or in `SensorArray.head_units`
    for magnetic fields; `SensorArray.to_head` brings recordings there.

    All arrays are in the reference of the sensors (`SensorArray.reference`): columns of `leadfield`
    and rows of `noise_cov` sum to 0 over the EEG channels. `HeadModel.referenced` builds one from
    arrays of any reference.

    Attributes:
        leadfield: ``(C, D)``, unit of the sensor per A m; column ``n_orient * s + o`` as in MNE.
        noise_cov: ``(C, C)``, units squared, of any rank, see `deepesi.physics.noise.rank_of`.
        sensors: The ``C`` sensors.
        source_pos: Sources ``(S, 3)``, m.
        source_normals: Unit normals of the cortex ``(S, 3)``; zero where there is no surface.
        space: The source space.
        own_normals: Whether the cortex is that of the recorded person. False: it is a template's,
            or not known, so the normals can be wrong.

    Raises:
        ValueError: Shapes disagree, a value is not finite, lead field or noise have another
            reference, or the noise covariance has negative variances or none at all.

    """

    leadfield: Array
    noise_cov: Array
    sensors: SensorArray
    source_pos: Array
    source_normals: Array
    space: SourceSpace
    own_normals: bool = False

    def __post_init__(self) -> None:
        counts = {n: len(getattr(self, n)) for n in ("leadfield", "noise_cov", "sensors")}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"HeadModel: channel counts disagree: {counts}. Select channels with "
                "HeadModel.pick(), which keeps the arrays aligned."
            )
        sources = {
            "leadfield columns / n_orient": self.leadfield.shape[1] / self.space.n_orient,
            "source_pos": len(self.source_pos),
            "source_normals": len(self.source_normals),
            "space": self.space.n_sources,
        }
        if len(set(sources.values())) > 1:
            raise ValueError(f"HeadModel: source counts disagree: {sources}.")
        for name in ("leadfield", "noise_cov", "source_pos", "source_normals"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"HeadModel: {name} holds NaN or infinite values.")
        for name in ("leadfield", "noise_cov"):
            if not self.sensors.is_referenced(getattr(self, name)):
                raise ValueError(
                    f"HeadModel: {name} has another reference than its sensors (the columns of EEG "
                    "do not sum to zero). Build the head with HeadModel.referenced(), which "
                    "re-references."
                )
        self._check_noise()

    def _check_noise(self) -> None:
        values = np.linalg.eigvalsh(self.noise_cov)
        if values[-1] <= 0 or values[0] < -1e-6 * values[-1]:
            raise ValueError(
                f"HeadModel: noise_cov is no covariance: its eigenvalues lie between "
                f"{values[0]:.3g} and {values[-1]:.3g}, expected none below zero and some above. "
                "Estimate it from a recording (mne.compute_covariance), in SI units."
            )

    @classmethod
    def referenced(
        cls,
        leadfield: Array,
        noise_cov: Array,
        sensors: SensorArray,
        source_pos: Array,
        source_normals: Array,
        space: SourceSpace,
        own_normals: bool = False,
    ) -> "HeadModel":
        """Build a head from arrays of any reference; both are brought to that of the sensors."""
        return cls(
            leadfield=sensors.reference(np.asarray(leadfield, dtype=np.float64)),
            noise_cov=sensors.reference_cov(np.asarray(noise_cov, dtype=np.float64)),
            sensors=sensors,
            source_pos=np.asarray(source_pos, dtype=np.float64),
            source_normals=np.asarray(source_normals, dtype=np.float64),
            space=space,
            own_normals=own_normals,
        )

    @property
    def n_channels(self) -> int:
        """Number of channels ``C``."""
        return len(self.sensors)

    @property
    def noise_level(self) -> float:
        """RMS noise per channel: ``sqrt(tr(noise_cov) / C)``."""
        return float(np.sqrt(np.trace(self.noise_cov) / self.n_channels))

    def project(self, sources: Array) -> Array:
        """Data ``(C, ...)`` of sources ``(D, ...)`` (A m), in the units of the sensors."""
        return self.leadfield @ sources

    def backproject(self, data: Array) -> Array:
        """Adjoint of `project`: ``(C, ...)`` to ``(D, ...)``."""
        return self.leadfield.T @ data

    def magnitude(self, sources: Array) -> Array:
        """Magnitude of every source ``(S,)``: RMS over time of `magnitudes` of ``(D, T)``."""
        return np.asarray(np.sqrt((magnitudes(sources, self.space.n_orient) ** 2).mean(axis=1)))

    def pick(self, ch_names: Sequence[str]) -> "HeadModel":
        """The same head with these channels, in this order, in their own reference.

        Raises:
            ValueError: A channel is not part of this head.

        """
        names = self.sensors.names
        missing = [c for c in ch_names if c not in names]
        if missing:
            raise ValueError(
                f"HeadModel.pick: channels {missing} are not part of this head, which has "
                f"{list(names)}."
            )
        rows = [names.index(c) for c in ch_names]
        sensors = self.sensors[rows]
        return replace(
            self,
            leadfield=sensors.reference(self.leadfield[rows]),
            noise_cov=sensors.reference_cov(self.noise_cov[np.ix_(rows, rows)]),
            sensors=sensors,
        )

    def along_normals(self) -> "HeadModel":
        """The same head with fixed orientation; a head of fixed orientation as it is.

        Raises:
            ValueError: A source lies on no surface.

        """
        if self.space.n_orient == 1:
            return self
        if not self.source_normals.any(axis=1).all():
            raise ValueError(
                f"HeadModel: sources of {self.space.name!r} lie on no surface, so there is no "
                "fixed orientation. Use methods of free orientation."
            )
        components = self.leadfield.reshape(self.n_channels, -1, 3)
        leadfield = np.einsum("csj,sj->cs", components, self.source_normals)
        return replace(self, leadfield=leadfield, space=self.space.fixed)

    def with_components(self) -> "HeadModel":
        """The same head with three components per source; those not along the normal are zero.

        A head of free orientation as it is. For models of free orientation where the lead field of
        the tangents is not known.
        """
        if self.space.n_orient == 3:
            return self
        leadfield = (self.leadfield[:, :, None] * self.source_normals).reshape(self.n_channels, -1)
        return replace(self, leadfield=leadfield, space=replace(self.space, n_orient=3))
