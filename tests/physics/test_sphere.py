"""The analytic sphere against closed forms, its own equations, MNE's sphere and OpenMEEG's."""

from dataclasses import replace

import mne
import numpy as np
import pytest
from mne.surface import complete_surface_info
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

from deepesi.physics.graph import face_normals, mesh_edges
from deepesi.physics.montage import eeg_info
from deepesi.physics.sensors import average_reference
from deepesi.physics.sphere import (
    FOUR_SHELLS,
    THREE_SHELLS,
    ShellModel,
    leadfield,
)

HOMOGENEOUS = ShellModel(np.array([0.09]), np.array([0.33]))
ONION = ShellModel(
    np.array([0.05, 0.06, 0.07, 0.075, 0.0751, 0.1]), np.array([0.2, 2.0, 0.1, 1e-4, 5.0, 0.4])
)
CENTER = np.array([0.002, -0.001, 0.04])


def unit_vectors(n, rng):
    vectors = rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scene(model, eccentricity, n_electrodes=40, n_sources=30, seed=0):
    """Electrodes on the scalp; sources up to an eccentricity, relative to the innermost shell."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.05, 1, size=(n_sources, 1))
    depth[0] = 1
    sources = eccentricity * model.radii[0] * depth * unit_vectors(n_sources, rng)
    electrodes = model.radii[-1] * unit_vectors(n_electrodes, rng)
    return model.center + electrodes, model.center + sources


def closed_form(radius, conductivity, electrodes, sources):
    """Homogeneous sphere about 0: the gradient of ``2/d - ln(1 - e·x + d)``, ``d = |e - x|``.

    Both sums in ``Σ (2 + 1/n) |x|ⁿ P_n`` follow from the generating function of the ``P_n``.
    """
    e, x = electrodes[:, None] / radius, sources / radius
    d = np.linalg.norm(e - x, axis=-1, keepdims=True)
    logarithm = (e + (e - x) / d) / (1 - (e * x).sum(-1, keepdims=True) + d)
    gradient = 2 * (e - x) / d**3 + logarithm
    return gradient.reshape(len(e), -1) / (4 * np.pi * conductivity * radius**2)


def relative_error(found, expected):
    """Largest error of a column over its root mean square."""
    return (np.abs(found - expected).max(axis=0) / np.sqrt((expected**2).mean(axis=0))).max()


def rdm_lnmag(found, expected):
    """Relative difference and log magnitude ratio of average-referenced columns."""
    a, b = average_reference(found), average_reference(expected)
    na, nb = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    return np.linalg.norm(a / na - b / nb, axis=0), np.log(na / nb)


def test_homogeneous_sphere_has_its_closed_form():
    electrodes, sources = scene(HOMOGENEOUS, 0.99)
    expected = closed_form(0.09, 0.33, electrodes, sources)
    assert relative_error(leadfield(HOMOGENEOUS, electrodes, sources), expected) < 1e-8


def test_shells_of_one_conductivity_are_a_homogeneous_sphere():
    model = replace(FOUR_SHELLS, conductivities=np.full(4, 0.33))
    electrodes, sources = scene(model, 0.99)
    expected = closed_form(0.09, 0.33, electrodes, sources)
    assert relative_error(leadfield(model, electrodes, sources), expected) < 1e-8


def dense_degree(model, n):
    """Degree-``n`` potential on the scalp of a source term ``r^-(n+1)`` in the brain, R = 1.

    One dense system for all shells: ``a_j rⁿ + b_j r^-(n+1)`` is continuous, so is the current,
    and none leaves the scalp. Unknowns a_0, b_0, a_1, b_1, ...; b_0 is 1.
    """
    radii, sigma, last = model.radii / model.radii[-1], model.conductivities, len(model.radii) - 1
    matrix, right = np.zeros((2 * last + 2, 2 * last + 2)), np.zeros(2 * last + 2)
    matrix[0, 1] = right[0] = 1
    for j, r in enumerate(radii):
        value = np.array([r**n, r ** (-n - 1)])
        slope = np.array([n * r**n, -(n + 1) * r ** (-n - 1)])
        if j == last:
            matrix[2 * j + 1, 2 * j :] = slope
        else:
            matrix[2 * j + 1, 2 * j : 2 * j + 4] = [*value, *-value]
            matrix[2 * j + 2, 2 * j : 2 * j + 4] = [*sigma[j] * slope, *-sigma[j + 1] * slope]
    return np.linalg.solve(matrix, right)[-2:].sum()


@pytest.mark.parametrize("model", [THREE_SHELLS, FOUR_SHELLS, ONION])
def test_every_degree_solves_the_interface_conditions(model):
    """The potential of a radial source, resolved into Legendre polynomials by quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    meridian = np.stack([np.sqrt(1 - nodes**2), 0 * nodes, nodes], axis=1)
    depth = 0.6 * model.radii[0]
    potential = leadfield(model, model.radii[-1] * meridian, [[0, 0, depth]])[:, 2]
    for n in (1, 2, 5, 12):
        found = (n + 0.5) * (weights * potential) @ eval_legendre(n, nodes)
        source_term = n * (depth / model.radii[-1]) ** (n - 1)
        scale = 4 * np.pi * model.conductivities[0] * model.radii[-1] ** 2
        assert found == pytest.approx(source_term * dense_degree(model, n) / scale, rel=1e-6)


@pytest.mark.parametrize("model", [HOMOGENEOUS, replace(ONION, conductivities=np.full(6, 0.2))])
def test_source_at_the_centre_makes_a_cosine(model):
    electrodes, _ = scene(model, 0.5)
    expected = 3 * electrodes / (4 * np.pi * model.conductivities[0] * model.radii[-1] ** 3)
    assert np.allclose(leadfield(model, electrodes, np.zeros((1, 3))), expected, rtol=1e-12)


def test_source_at_the_centre_of_two_shells():
    """By hand: ``T_1 = 9 / (1 + 2 s + 2 (1 - s) t³)``; s, t: conductivity, radius ratio."""
    model = ShellModel([0.06, 0.09], [0.33, 0.05])
    s, t = 0.05 / 0.33, 6 / 9
    electrodes, _ = scene(model, 0.5)
    expected = 9 / (1 + 2 * s + 2 * (1 - s) * t**3)
    expected *= electrodes / (4 * np.pi * 0.33 * 0.09**3)
    found = leadfield(model, electrodes, np.zeros((1, 3)))
    assert np.allclose(found, expected, rtol=1e-12)
    nearby = leadfield(model, electrodes, np.full((1, 3), 1e-9))
    assert np.allclose(nearby, found, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize("model", [THREE_SHELLS, FOUR_SHELLS])
def test_rotating_and_moving_everything_changes_nothing(model):
    electrodes, sources = scene(model, 0.9)
    turn = Rotation.random(rng=np.random.default_rng(3))
    moved = leadfield(
        replace(model, center=CENTER),
        CENTER + turn.apply(electrodes),
        CENTER + turn.apply(sources),
    )
    expected = leadfield(model, electrodes, sources).reshape(-1, 3) @ turn.as_matrix().T
    assert relative_error(moved, expected.reshape(moved.shape)) < 1e-12


def test_row_is_the_gradient_of_a_harmonic_function():
    """Reciprocity: the field in the brain of a current fed through an electrode."""
    step, (electrodes, sources) = 2e-4, scene(FOUR_SHELLS, 0.7)
    shifted = sources[:, None, None] + step * np.array([-1, 1])[:, None, None] * np.eye(3)
    fields = leadfield(FOUR_SHELLS, electrodes, shifted.reshape(-1, 3))
    fields = fields.reshape(len(electrodes), len(sources), 2, 3, 3)
    jacobian = (fields[:, :, 1] - fields[:, :, 0]) / (2 * step)
    size = np.linalg.norm(jacobian, axis=(-1, -2), keepdims=True)
    assert np.abs((jacobian - np.swapaxes(jacobian, -1, -2)) / size).max() < 1e-4
    assert np.abs(np.trace(jacobian, axis1=-1, axis2=-2) / size[..., 0, 0]).max() < 1e-4


def test_mean_over_the_sphere_is_zero():
    nodes, weights = np.polynomial.legendre.leggauss(120)
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    sine = np.sqrt(1 - nodes**2)[:, None]
    height = np.broadcast_to(nodes[:, None], (120, 240))
    points = np.stack([sine * np.cos(angle), sine * np.sin(angle), height], axis=-1)
    _, sources = scene(THREE_SHELLS, 0.8, n_sources=4)
    potential = leadfield(THREE_SHELLS, 0.092 * points.reshape(-1, 3), sources)
    mean = (weights[:, None] * potential.reshape(120, 240, -1).mean(axis=1)).sum(axis=0) / 2
    assert np.abs(mean).max() < 1e-9 * np.abs(potential).max()


def test_csf_that_conducts_like_brain_belongs_to_it():
    four = replace(FOUR_SHELLS, conductivities=[0.33, 0.33, 0.0165, 0.33])
    three = ShellModel(FOUR_SHELLS.radii[1:], [0.33, 0.0165, 0.33])
    electrodes, sources = scene(FOUR_SHELLS, 0.99)
    expected = leadfield(three, electrodes, sources)
    assert relative_error(leadfield(four, electrodes, sources), expected) < 1e-8
    assert relative_error(leadfield(FOUR_SHELLS, electrodes, sources), expected) > 0.1


@pytest.mark.parametrize("model", [HOMOGENEOUS, THREE_SHELLS, FOUR_SHELLS, ONION])
@pytest.mark.parametrize("eccentricity", [0.0, 0.5, 0.98])
def test_terms_suffice(model, eccentricity):
    """Also above the outermost source, where the series converges most slowly."""
    electrodes, sources = scene(model, eccentricity)
    if eccentricity:
        electrodes[0] = model.radii[-1] * sources[0] / np.linalg.norm(sources[0])
    exact = leadfield(model, electrodes, sources, n_terms=6000)
    assert relative_error(leadfield(model, electrodes, sources), exact) < 1e-8
    if eccentricity:
        short = leadfield(model, electrodes, sources, n_terms=12)
        assert relative_error(short, exact) > 1e-8


def test_electrodes_are_projected_radially():
    electrodes, sources = scene(THREE_SHELLS, 0.8)
    off = electrodes * np.linspace(0.96, 1.04, len(electrodes))[:, None]
    assert np.allclose(
        leadfield(THREE_SHELLS, off, sources), leadfield(THREE_SHELLS, electrodes, sources)
    )


#: What `mne.make_sphere_model` assumes unless told otherwise, written out.
MNE_DEFAULT = ShellModel(0.09 * np.array([0.90, 0.92, 0.97, 1.0]), [0.33, 1.0, 0.004, 0.33])


def mne_forward(conductor, trans, electrodes, sources):
    info = eeg_info([f"E{i}" for i in range(len(electrodes))], electrodes)
    normals = np.tile([0.0, 0, 1], (len(sources), 1))
    src = mne.setup_volume_source_space(pos={"rr": sources, "nn": normals}, verbose="error")
    forward = mne.make_forward_solution(
        info, trans, src, conductor, meg=False, mindist=0, verbose="error"
    )
    assert forward["nsource"] == len(sources)
    return forward["sol"]["data"]


@pytest.mark.parametrize("model", [MNE_DEFAULT, FOUR_SHELLS, THREE_SHELLS])
def test_equals_the_sphere_of_mne(model):
    """MNE replaces the shells by three sources in a homogeneous sphere (Berg & Scherg 1994).

    Ours is exact, so what is left is the error of that fit. Measured up to an eccentricity of
    0.9, average reference, 64 electrodes, RDM at its 95th percentile and largest: MNE's shells
    0.002, 0.004; four shells 0.002, 0.004; three shells 0.006, 0.008. |lnMAG| at most 0.003.
    """
    model = replace(model, center=CENTER)
    electrodes, sources = scene(model, 0.9, n_electrodes=64, n_sources=300)
    sphere = mne.make_sphere_model(
        model.center,
        model.radii[-1],
        relative_radii=model.radii / model.radii[-1],
        sigmas=model.conductivities,
        verbose="error",
    )
    theirs = mne_forward(sphere, None, electrodes, sources)
    rdm, lnmag = rdm_lnmag(theirs, leadfield(model, electrodes, sources))
    assert np.percentile(rdm, 95) < 0.0075
    assert rdm.max() < 0.01
    assert np.abs(lnmag).max() < 0.01


def icosphere(n_subdivisions):
    """Icosahedron subdivided, on the unit sphere: vertices ``(N, 3)``, outward faces ``(F, 3)``."""
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array([[0, a, b * golden] for a in (-1, 1) for b in (-1, 1)])
    vertices = np.concatenate([np.roll(corners, k, axis=1) for k in range(3)])
    vertices /= np.linalg.norm(vertices[0])
    for _ in range(n_subdivisions):
        middle = vertices[mesh_edges(ConvexHull(vertices).simplices)].mean(axis=1)
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        vertices = np.concatenate([vertices, middle])
    faces = ConvexHull(vertices).simplices
    inward = (face_normals(vertices, faces) * vertices[faces].mean(axis=1)).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return vertices, faces


@pytest.mark.slow
def test_equals_the_boundary_elements_of_three_spheres():
    """OpenMEEG through MNE on 642 vertices per surface, polyhedra of the volume of the spheres.

    Largest errors measured up to an eccentricity of 0.85: RDM 0.006, lnMAG 0.006. With
    polyhedra inscribed in the spheres, 0.9 % smaller in volume: RDM 0.009, lnMAG 0.013.
    """
    vertices, faces = icosphere(3)
    volume = (face_normals(vertices, faces) * vertices[faces].mean(axis=1)).sum() / 6
    vertices *= (4 / 3 * np.pi / volume) ** (1 / 3)
    model, (_, sources) = THREE_SHELLS, scene(THREE_SHELLS, 0.85, n_sources=60)
    # Labelled MRI, a frame made the same as the head frame by an identity transform.
    surfaces = [
        complete_surface_info(
            {
                "rr": radius * vertices,
                "tris": faces,
                "np": len(vertices),
                "ntri": len(faces),
                "id": number,
                "sigma": sigma,
                "coord_frame": np.array(5),
            },
            copy=False,
            verbose="error",
        )
        for radius, sigma, number in zip(
            model.radii[::-1], model.conductivities[::-1], (4, 3, 1), strict=True
        )
    ]
    solution = mne.make_bem_solution(surfaces, solver="openmeeg", verbose="error")
    electrodes = model.radii[-1] * vertices[:162]
    theirs = mne_forward(solution, mne.Transform("head", "mri"), electrodes, sources)
    rdm, lnmag = rdm_lnmag(theirs, leadfield(model, electrodes, sources))
    assert rdm.max() < 0.01
    assert np.abs(lnmag).max() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radii": [90.0]}, "outer radius is 90 m, expected 0.05-0.2 m. Give radii in metres"),
        ({"radii": [1.0]}, "outer radius is 1 m, .*not relative to the outermost"),
        ({"conductivities": [0.33, 0.33]}, r"shapes disagree: .*'conductivities': \(2,\)"),
        ({"radii": [], "conductivities": []}, "shapes disagree: .*L at least 1"),
        ({"radii": [[0.09]]}, r"shapes disagree: .*'radii': \(1, 1\)"),
        ({"center": [0, 0]}, r"shapes disagree: .*'center': \(2,\)"),
        ({"conductivities": [0.0]}, r"must be positive and finite, got \[0.0\] S/m"),
        ({"conductivities": [np.nan]}, r"must be positive and finite, got \[nan\] S/m"),
        ({"center": [0, np.inf, 0]}, "center holds NaN or infinity"),
    ],
)
def test_impossible_shells_are_refused(change, message):
    with pytest.raises(ValueError, match=f"ShellModel: .*{message}"):
        replace(HOMOGENEOUS, **change)


@pytest.mark.parametrize(
    "radii", [[0.09, 0.08], [0.08, 0.08], [-0.01, 0.09], [0.0, 0.09], [np.nan, 0.09]]
)
def test_radii_ascend(radii):
    with pytest.raises(ValueError, match=r"radii must be positive and ascend, got \[.*innermost"):
        ShellModel(radii, [0.33, 0.33])


ELECTRODE, SOURCE = np.array([[0, 0, 0.092]]), np.array([[0, 0.03, 0.04]])


@pytest.mark.parametrize(
    ("electrodes", "sources", "options", "message"),
    [
        (1e3 * ELECTRODE, SOURCE, {}, r"1 of 1 electrodes lie off .* electrode 0, 92 m .*0.092 m"),
        (ELECTRODE * 0.098 / 0.092, SOURCE, {}, "0.098 m from the center .*within 0.005 m.*frame"),
        (0 * ELECTRODE, SOURCE, {}, "electrodes lie off the outer surface"),
        (ELECTRODE, 1e3 * SOURCE, {}, "1 of 1 sources lie outside .* source 0, 50 m .* 0.08 m"),
        (ELECTRODE, [[0, 0, 0], [0, 0.08, 0]], {}, "1 of 2 sources lie outside .* source 1"),
        (ELECTRODE[0], SOURCE, {}, r"electrodes has shape \(3,\) .*expected .*\(N, 3\) in metres"),
        (ELECTRODE, SOURCE[:, :2], {}, r"source_pos has shape \(1, 2\)"),
        (ELECTRODE, SOURCE * np.nan, {}, "source_pos .* and 3 values that are NaN"),
        (ELECTRODE, SOURCE, {"n_terms": 0}, "n_terms must be 1 or more, got 0"),
    ],
)
def test_impossible_positions_are_refused(electrodes, sources, options, message):
    with pytest.raises(ValueError, match=f"leadfield: .*{message}"):
        leadfield(THREE_SHELLS, electrodes, sources, **options)


def test_source_that_the_series_does_not_reach_is_refused():
    surface = [[0, 0, 0.09]]
    with pytest.raises(ValueError, match="needs more than 10000 terms .*deeper"):
        leadfield(HOMOGENEOUS, surface, [[0, 0, 0.08999]])
    assert np.isfinite(leadfield(HOMOGENEOUS, surface, [[0, 0, 0.08999]], n_terms=50)).all()


def test_standard_shells_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        THREE_SHELLS.radii[0] = 0.07
