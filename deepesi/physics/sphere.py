r"""Concentric spheres: the EEG forward problem with an exact solution, a reference for tests.

With positions from the centre in units of the outer radius ``R``, electrode ``e`` (unit vector)
and source ``x`` (``|x| < 1``) of moment ``m``, the potential on the outer surface is::

    V(e) = m · Σ_n T_n ∇_x(|x|ⁿ P_n(cos(e, x))) / (4π σ_1 R²),   n = 1, 2, ...

The shells enter only through ``T_n``, the ratio of the degree-``n`` potential on the surface to
the potential of the same source in an infinite medium of brain. There is no term ``n = 0``:
the potential has zero mean over the sphere.

Source: Zhang 1995, doi:10.1088/0031-9155/40/3/001, and de Munck & Peters 1993, IEEE Trans. Biomed.
Eng. 40(11):1166 for the series. Ours differs in form: the gradient is kept Cartesian, so a source
at the centre is no special case, and powers of radii enter only as ratios below 1.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

RADIUS_RANGE = (0.05, 0.2)  # outer radius of a head, m
ELECTRODE_TOLERANCE = 0.005  # an electrode lies at most this far off the outer surface, m
TRUNCATION_ERROR = 1e-8
MAX_TERMS = 10_000


@dataclass(frozen=True, eq=False)
class ShellModel:
    """Concentric spherical shells of constant isotropic conductivity.

    Attributes:
        radii: Outer radius of every shell ``(L,)``, m, ascending: brain first, scalp last.
        conductivities: Conductivity of every shell ``(L,)``, S/m, in the same order.
        center: Common centre ``(3,)``, m, MNE head frame.

    Raises:
        ValueError: Shapes disagree, radii do not ascend or are not in metres, or a conductivity
            is not positive.

    """

    radii: Array
    conductivities: Array
    center: Array = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        for name in ("radii", "conductivities", "center"):
            value = np.array(getattr(self, name), dtype=np.float64)
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        shapes = {k: getattr(self, k).shape for k in ("radii", "conductivities", "center")}
        n_shells = self.radii.size
        if n_shells == 0 or [*shapes.values()] != [(n_shells,), (n_shells,), (3,)]:
            raise ValueError(
                f"ShellModel: shapes disagree: {shapes}. Expected one radius and one conductivity "
                "per shell, (L,) each with L at least 1, and a center (3,)."
            )
        if not (np.diff(self.radii, prepend=0.0) > 0).all():
            raise ValueError(
                f"ShellModel: radii must be positive and ascend, got {self.radii.tolist()}. List "
                "the shells from the innermost (brain) to the outermost (scalp)."
            )
        low, high = RADIUS_RANGE
        if not low <= self.radii[-1] <= high:
            raise ValueError(
                f"ShellModel: the outer radius is {self.radii[-1]:g} m, expected {low:g}-{high:g} "
                "m. Give radii in metres, not millimetres, and not relative to the outermost."
            )
        if not ((self.conductivities > 0) & np.isfinite(self.conductivities)).all():
            raise ValueError(
                "ShellModel: conductivities must be positive and finite, got "
                f"{self.conductivities.tolist()} S/m. For a layer that is absent leave out its "
                "radius too."
            )
        if not np.isfinite(self.center).all():
            raise ValueError(
                f"ShellModel: center holds NaN or infinity: {self.center.tolist()}. Give three "
                "coordinates in metres."
            )


#: Brain, skull, scalp: 8, 8.5 and 9.2 cm, skull 80 times less conducting than brain and scalp.
#: Source: Rush & Driscoll 1969, doi:10.1109/TBME.1969.4502598, for the ratios.
THREE_SHELLS = ShellModel(np.array([0.080, 0.085, 0.092]), np.array([0.33, 0.33 / 80, 0.33]))

#: Brain, CSF, skull, scalp: 7.9, 8, 8.5 and 9 cm, CSF 5 times more and skull 20 times less
#: conducting than brain and scalp.
#: Source: Næss et al. 2017, doi:10.3389/fnhum.2017.00490, for the ratios; of the skulls 20, 40 and
#: 80 times less conducting there, the first is nearest to what is measured in living heads, 15
#: (Oostendorp et al. 2000, doi:10.1109/TBME.2000.880100).
FOUR_SHELLS = ShellModel(
    np.array([0.079, 0.080, 0.085, 0.090]), np.array([0.33, 5 * 0.33, 0.33 / 20, 0.33])
)


def transfer_factors(model: ShellModel, n_terms: int) -> Array:
    """Factors ``T_n`` ``(n_terms,)`` of degree 1, 2, ...; ``2 + 1/n`` in a homogeneous sphere.

    The solution ``a (r/r_j)ⁿ + b (r_j/r)ⁿ⁺¹`` that lets no current out of the scalp is carried
    inward from shell to shell, keeping potential and radial current continuous. In the brain
    ``b`` is the source's own term for a unit potential on the scalp, so ``T_n`` is ``1/b``. The
    factor ``(r_j/r_i)ⁿ⁺¹`` common to ``a`` and ``b`` is left out on the way, and nothing overflows.
    """
    n = np.arange(1, n_terms + 1, dtype=np.float64)
    a, b = (n + 1) / (2 * n + 1), n / (2 * n + 1)
    radii, sigma = model.radii, model.conductivities
    for j in range(len(radii) - 2, -1, -1):
        a = a * (radii[j] / radii[j + 1]) ** (2 * n + 1)
        ratio = sigma[j + 1] / sigma[j]
        a, b = (
            ((n + 1 + n * ratio) * a + (n + 1) * (1 - ratio) * b) / (2 * n + 1),
            (n * (1 - ratio) * a + (n + (n + 1) * ratio) * b) / (2 * n + 1),
        )
    return np.asarray(1 / b)


def _terms_needed(model: ShellModel, eccentricity: float) -> int:
    """Terms after which the rest of the series is negligible, for sources up to an eccentricity.

    The rest is at most `TRUNCATION_ERROR` times the root mean square of the potential over the
    sphere, at every point and for every source orientation: the term of degree ``n`` is at most
    ``n T_n |x|ⁿ⁻¹ |m|`` anywhere (Bernstein-Szegő inequality), and the root mean square is at
    least that of the first term, ``T_1 |m| / √3``.
    """
    n = np.arange(1, MAX_TERMS + 1, dtype=np.float64)
    bound = n * transfer_factors(model, MAX_TERMS) * eccentricity ** (n - 1)
    last_ratio = min(eccentricity * (1 + 2 / MAX_TERMS), 1.0)
    out_of_distribution = np.inf if last_ratio == 1 else bound[-1] * last_ratio / (1 - last_ratio)
    rest = np.append(np.cumsum(bound[:0:-1])[::-1], 0.0) + out_of_distribution
    enough = rest <= TRUNCATION_ERROR * bound[0] / np.sqrt(3)
    if not enough.any():
        raise ValueError(
            f"leadfield: a source at {eccentricity:.6f} of the outer radius needs more than "
            f"{MAX_TERMS} terms for a truncation error of {TRUNCATION_ERROR:g}. Move sources "
            "deeper, or choose n_terms yourself."
        )
    return int(enough.argmax()) + 1


def _directions(model: ShellModel, electrodes: Array) -> Array:
    """Unit vectors ``(C, 3)`` from the centre to electrodes on the outer surface."""
    offset = electrodes - model.center
    distance = np.linalg.norm(offset, axis=1)
    off = np.abs(distance - model.radii[-1])
    if (off > ELECTRODE_TOLERANCE).any():
        worst = int(off.argmax())
        raise ValueError(
            f"leadfield: {int((off > ELECTRODE_TOLERANCE).sum())} of {len(off)} electrodes lie off "
            f"the outer surface; the farthest is electrode {worst}, {distance[worst]:.4g} m from "
            f"the center {model.center.tolist()}, expected {model.radii[-1]:.4g} m within "
            f"{ELECTRODE_TOLERANCE:g} m. Check that electrodes are in metres and in the frame of "
            "the model's center."
        )
    return np.asarray(offset / distance[:, None])


def _relative_positions(model: ShellModel, source_pos: Array) -> Array:
    """Sources ``(S, 3)`` from the centre in outer radii, all strictly in the innermost shell."""
    offset = source_pos - model.center
    distance = np.linalg.norm(offset, axis=1)
    outside = distance >= model.radii[0]
    if outside.any():
        worst = int(distance.argmax())
        raise ValueError(
            f"leadfield: {int(outside.sum())} of {len(outside)} sources lie outside the innermost "
            f"shell; the farthest is source {worst}, {distance[worst]:.4g} m from the center "
            f"{model.center.tolist()}, expected less than {model.radii[0]:.4g} m. Check that "
            "sources are in metres and in the frame of the model's center."
        )
    return np.asarray(offset / model.radii[-1])


def _points(name: str, points: ArrayLike) -> Array:
    """Positions ``(N, 3)``, checked."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3 or not np.isfinite(array).all():
        raise ValueError(
            f"leadfield: {name} has shape {array.shape} and {int((~np.isfinite(array)).sum())} "
            "values that are NaN or infinite, expected finite positions (N, 3) in metres."
        )
    return array


def leadfield(
    model: ShellModel, electrodes: ArrayLike, source_pos: ArrayLike, n_terms: int | None = None
) -> Array:
    """Potential on the outer surface of unit dipoles in the innermost shell.

    Args:
        model: The shells.
        electrodes: ``(C, 3)``, m, in the frame of ``model.center``, within `ELECTRODE_TOLERANCE`
            of the outer surface, onto which they are projected radially.
        source_pos: ``(S, 3)``, m, same frame, strictly inside the innermost shell.
        n_terms: Terms of the series; by default enough for the outermost source that the rest is
            below `TRUNCATION_ERROR` of the root mean square of its potential over the sphere.

    Returns:
        Lead field ``(C, 3 S)``, V/(A m); column ``3 s + o`` is source ``s`` along axis ``o`` as in
        MNE. Reference: zero mean over the whole sphere, not over the electrodes.

    Raises:
        ValueError: Wrong shapes, NaN, an electrode off the outer surface, a source outside the
            innermost shell or too near the surface of a homogeneous sphere, or no terms.

    """
    e = _directions(model, _points("electrodes", electrodes))
    x = _relative_positions(model, _points("source_pos", source_pos))
    if n_terms is None:
        n_terms = _terms_needed(model, float(np.linalg.norm(x, axis=1).max(initial=0.0)))
    if n_terms < 1:
        raise ValueError(f"leadfield: n_terms must be 1 or more, got {n_terms}.")
    # ∇_x(|x|ⁿ P_n) = q_n e - q_(n-1) x with q_n = |x|ⁿ⁻¹ P_n'(cos), which the recurrence of the
    # derivatives of Legendre polynomials builds up from e·x and |x|² without a division by |x|.
    factors = np.append(transfer_factors(model, n_terms), 0.0)
    product, square = e @ x.T, (x**2).sum(axis=1)
    before, q = np.zeros_like(product), np.ones_like(product)
    along_e, along_x = np.zeros_like(product), np.zeros_like(product)
    for n in range(1, n_terms + 1):
        along_e += factors[n - 1] * q
        along_x += factors[n] * q
        before, q = q, ((2 * n + 1) * product * q - (n + 1) * square * before) / n
    gradient = along_e[..., None] * e[:, None] - along_x[..., None] * x
    scale = 4 * np.pi * model.conductivities[0] * model.radii[-1] ** 2
    return np.asarray(gradient.reshape(len(e), -1) / scale)
