"""ScalpPotentialFamily: the EEG lead fields of one head for all tissues, as one reduced basis.

``L = average_reference(B(electrodes) E sum_k c_k(tissues) G_k) Vᵀ``: the potential at the vertices
of the scalp mesh is expanded in ``p`` patterns ``E`` of the scalp and ``r`` modes ``V`` of the
sources; the core ``G`` between them is a Chebyshev polynomial in the logarithm of the skull's
conductivity, its thickness and the logarithm of the scalp's conductivity. Electrodes are
barycentric combinations ``B`` of three vertices, exactly as in the BEM. Conductivity of
the brain needs no polynomial: potentials depend on ratios, and fall as all conductivities rise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.family import BRAIN_CONDUCTIVITY, Tissues
from deepesi.physics.scalp import ScalpPoints
from deepesi.physics.sensors import average_reference

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScalpPotentialFamily:
    """All EEG lead fields of one head, for any tissues and electrode positions.

    A `deepesi.physics.family.LeadFieldFamily`. A head that is known by one lead field alone (a
    forward solution) is a family with one term.

    Attributes:
        scalp_pos: Vertices of the scalp mesh ``(N, 3)``, m, head frame.
        scalp_faces: Triangles ``(F, 3)`` of the scalp on which electrodes can lie.
        bounds: Range covered ``(3, 2)``: log skull conductivity, thickness, log scalp conductivity.
        terms: Degrees of the Chebyshev polynomials ``(K, 3)``.
        scalp_modes: ``E`` ``(N, p)``.
        core: ``G`` ``(K, p, r)``, V.
        source_modes: ``V`` ``(D, r)``, 1/(A m).
        eye_core: The same core for the eyes ``(K, p, 6)``, V/(A m): left x, y, z, right x, y, z;
            no columns where the eyes are not known.

    """

    scalp_pos: Array
    scalp_faces: NDArray[np.int64]
    bounds: Array
    terms: NDArray[np.int64]
    scalp_modes: Array
    core: Array
    source_modes: Array
    eye_core: Array

    @property
    def varies(self) -> bool:
        """Whether the tissues change the lead field."""
        return len(self.terms) > 1

    def polynomials(self, log_skull: Any, thickness: Any, log_scalp: Any) -> list[Any]:
        """The ``K`` terms at tissues of a brain at `BRAIN_CONDUCTIVITY`; arrays or tensors."""
        values: list[list[Any]] = []
        for value, (low, high), degree in zip(
            (log_skull, thickness, log_scalp), self.bounds, self.terms.max(axis=0), strict=True
        ):
            x = (value - (low + high) / 2) * (2 / (high - low))
            chebyshev = [1.0 + 0 * x, x]
            while len(chebyshev) <= degree:
                chebyshev.append(2 * x * chebyshev[-1] - chebyshev[-2])
            values.append(chebyshev)
        return [values[0][a] * values[1][b] * values[2][c] for a, b, c in self.terms.tolist()]

    def coefficients(self, tissues: Tissues) -> Array:
        """Weights ``(K,)`` of the core.

        Raises:
            ValueError: The tissues lie outside what the family covers.

        """
        if not self.varies:
            return np.ones(1)
        ratio = BRAIN_CONDUCTIVITY / tissues.brain_conductivity
        point = np.array(
            [
                np.log(tissues.skull_conductivity * ratio),
                tissues.skull_thickness,
                np.log(tissues.scalp_conductivity * ratio),
            ]
        )
        low, high = self.bounds.T
        slack = 1e-6 * (high - low)  # of float32
        if not ((point >= low - slack) & (point <= high + slack)).all():
            raise ValueError(f"ScalpPotentialFamily: {tissues} lies outside {self.covered(ratio)}.")
        return ratio * np.array(self.polynomials(*point.clip(low, high)))

    def covered(self, ratio: float = 1.0) -> str:
        """Description of the covered range; `ratio` is 0.33 S/m over the brain conductivity."""
        (k0, k1), (t0, t1), (s0, s1) = self.bounds
        return (
            f"what this head covers: skull {np.exp(k0) / ratio:.3g}-{np.exp(k1) / ratio:.3g} S/m, "
            f"thickness {t0:.4g}-{t1:.4g} m, scalp {np.exp(s0) / ratio:.3g}-"
            f"{np.exp(s1) / ratio:.3g} S/m. Conductivities are in S/m (not mS/m), thickness in m"
        )

    def patterns(self, positions: ScalpPoints) -> Array:
        """Scalp patterns at electrodes ``(C, p)``, average-referenced."""
        rows = self.scalp_modes[positions.vertices]
        return average_reference(np.einsum("cv,cvp->cp", positions.weights, rows))

    def operator(self, tissues: Tissues, positions: ScalpPoints) -> Array:
        """Reduced lead field ``U`` ``(C, r)``, average-referenced; ``U source_modesᵀ`` is ``L``."""
        core = np.einsum("k,kpr->pr", self.coefficients(tissues), self.core)
        return np.asarray(self.patterns(positions) @ core)

    def leadfield(self, tissues: Tissues, positions: ScalpPoints) -> Array:
        """Lead field ``(C, D)``, V/(A m), average-referenced."""
        return self.operator(tissues, positions) @ self.source_modes.T

    def eye_leadfield(self, tissues: Tissues, positions: ScalpPoints) -> Array:
        """Lead field of the eyes ``(C, 6)``, V/(A m), average-referenced."""
        core = np.einsum("k,kpe->pe", self.coefficients(tissues), self.eye_core)
        return np.asarray(self.patterns(positions) @ core)

    def with_sources(self, source_modes: Array) -> Self:
        """The same family for other sources, by their modes ``(D, r)``."""
        return replace(self, source_modes=source_modes)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The family as arrays, modes as 16-bit floats and small values of the core as zero.

        This costs about 3e-4 of a topography.
        """
        # Sources are normalized before rounding, so deep ones are as precise as the others.
        norms = np.linalg.norm(self.source_modes, axis=1, keepdims=True)
        source_modes, source_scale = _halves(self.source_modes / norms)
        scalp_modes, scalp_scale = _halves(self.scalp_modes)
        core = _rounded(self.core)
        largest = np.abs(core).max()
        return {
            "scalp_pos": self.scalp_pos.astype(np.float32),
            "scalp_faces": self.scalp_faces.astype(np.uint16),
            "bounds": self.bounds,
            "terms": self.terms.astype(np.uint8),
            "scalp_modes": scalp_modes,
            "scalp_scale": scalp_scale.astype(np.float32),
            "core": (core / largest).astype(np.float16),
            "core_scale": np.array(largest),
            "source_modes": source_modes,
            "source_scale": source_scale.astype(np.float32),
            "source_norms": norms.astype(np.float32),
            "eye_core": self.eye_core.astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "ScalpPotentialFamily":
        """The family that `to_arrays` stored."""

        def wide(key: str) -> Array:
            return arrays[key].astype(np.float64)

        return cls(
            scalp_pos=wide("scalp_pos"),
            scalp_faces=arrays["scalp_faces"].astype(np.int64),
            bounds=arrays["bounds"],
            terms=arrays["terms"].astype(np.int64),
            scalp_modes=wide("scalp_modes") * wide("scalp_scale"),
            core=wide("core") * arrays["core_scale"],
            source_modes=wide("source_modes") * wide("source_scale") * wide("source_norms"),
            eye_core=wide("eye_core"),
        )


def _halves(values: Array) -> tuple[NDArray[np.float16], Array]:
    """Values ``(N, M)`` as 16-bit floats relative to the largest of a column, and that ``(M,)``."""
    scale = np.abs(values).max(axis=0)
    return (values / scale).astype(np.float16), scale


def _rounded(core: Array, error: float = 2e-4) -> Array:
    """Values rounded to a step that costs `error` of their norm; most become zero."""
    step = error * np.sqrt(12) * np.linalg.norm(core[0]) / np.sqrt(core[0].size)
    return np.asarray(np.round(core / step) * step)
