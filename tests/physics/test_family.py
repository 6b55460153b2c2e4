"""The packaged families, the BEM under them, and what is done with damaged or foreign files."""

import time
from dataclasses import replace

import numpy as np
import pytest

from deepesi.physics.building.accuracy import compare
from deepesi.physics.building.bem import BoundaryElements, right_hand_sides, solve
from deepesi.physics.building.compression import compress
from deepesi.physics.building.warps import read_member
from deepesi.physics.family import BRAIN_CONDUCTIVITY, NOMINAL, TissueGrid, Tissues
from deepesi.physics.sensors import average_reference
from deepesi.physics.similarity import ln_magnitude, rdm
from deepesi.physics.template import DATA, _digest, load_template
from tests.conftest import with_coarse_scalp


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsaverage-ico3", "warp9-ico3"])
def test_family_equals_a_fresh_bem(name):
    """At random tissues and montage, for every source, electrodes 5 mm off their positions.

    Thirty such draws: ``python -m deepesi.physics.building.accuracy``, figures in docs/heads.md.
    """
    row = compare(load_template(name), np.random.default_rng([1, len(name)]))
    assert row["rdm"][1] <= 0.01
    assert row["lnmag"][1] <= 0.01


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_thirty_draws_equal_fresh_bems(template):
    rows = [compare(template, np.random.default_rng([0, number])) for number in range(30)]
    assert max(row["rdm"][1] for row in rows) <= 0.01
    assert max(row["lnmag"][1] for row in rows) <= 0.01


@pytest.fixture(scope="module")
def small():
    return with_coarse_scalp(read_member(None, "ico1", "ico2"))


@pytest.mark.slow
def test_scaled_blocks_equal_openmeeg(small):
    """One assembly at unit conductivities serves every conductivity: MNE and OpenMEEG agree."""
    tissues = Tissues(0.004, 0.0045, 0.5, 0.33)
    elements = BoundaryElements.assemble(small, 0.0045)
    vertices = np.arange(0, 162, 6)
    brain, _ = elements.adjoint(0.004, 0.5, vertices)
    found = average_reference(brain @ right_hand_sides(small))
    fresh = average_reference(solve(small, small.scalp[0][vertices], tissues))
    assert np.allclose(found, fresh, rtol=0, atol=1e-4 * np.abs(fresh).max())


@pytest.mark.slow
def test_eyes_equal_openmeeg(small):
    """Dipoles in the scalp compartment, solved by OpenMEEG at the conductivities themselves."""
    import openmeeg as om

    layers = [small.inner_skull, small.skull.surface(0.0045), small.scalp]
    meshes = [(vertices, faces[:, [1, 0, 2]]) for vertices, faces in layers]
    geometry = om.make_nested_geometry(meshes, [BRAIN_CONDUCTIVITY, 0.004, 0.5])
    at = 0.012 * small.skull.directions[:2] + small.skull.inner[:2]
    dipoles = np.hstack([np.repeat(at, 3, axis=0), np.tile(np.eye(3), (2, 1))])
    inverse = om.HeadMat(geometry)
    inverse.invert()
    sources = om.DipSourceMat(geometry, om.Matrix(np.asfortranarray(dipoles)), "Scalp")
    electrodes = om.Sensors(om.Matrix(np.asfortranarray(small.scalp[0])), geometry)
    gain = om.GainEEG(inverse, sources, om.Head2EEGMat(geometry, electrodes)).array()
    elements = BoundaryElements.assemble(replace(small, eyes=at), 0.0045)
    _, eyes = elements.adjoint(0.004, 0.5, np.arange(162))
    fresh = average_reference(gain)
    assert np.allclose(average_reference(eyes), fresh, rtol=0, atol=1e-6 * np.abs(fresh).max())


@pytest.mark.slow
def test_brain_conductivity_is_a_matter_of_ratios(small):
    positions = small.scalp[0][::9]
    fresh = average_reference(solve(small, positions, Tissues(0.01, 0.006, 0.4, 0.45)))
    ratio = 0.33 / 0.45
    same = solve(small, positions, Tissues(0.01 * ratio, 0.006, 0.4 * ratio, 0.33))
    assert np.allclose(fresh, ratio * average_reference(same), rtol=0, atol=1e-5 * abs(fresh).max())


def test_polynomials_are_exact_at_the_nodes():
    """Potentials that are a polynomial in the parameters come back, whatever the point."""
    rng = np.random.default_rng(0)
    grid = TissueGrid(n_nodes=(3, 3, 2))
    parts = rng.normal(size=(4, 40, 12))

    def potential(tissues):
        x, y, z = (
            np.log(tissues.skull_conductivity),
            tissues.skull_thickness,
            np.log(tissues.scalp_conductivity),
        )
        return parts[0] + x * parts[1] + (100 * y) ** 2 * parts[2] + x**2 * z * parts[3]

    eyes = [np.ones((40, 6)) * np.arange(40)[:, None] for _ in grid.nodes]
    arrays = compress(
        [potential(node) for node in grid.nodes], np.eye(12), eyes, grid, 39, 12, tolerance=0
    )
    family = replace(load_template().family, bounds=grid.bounds, **arrays._asdict())
    for tissues in (Tissues(0.02, 0.004, 0.3), Tissues(0.0031, 0.0081, 0.55)):
        core = np.einsum("k,kpr->pr", family.coefficients(tissues), family.core)
        found = average_reference(family.scalp_modes @ core @ family.source_modes.T)
        expected = average_reference(potential(tissues))
        assert np.allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_eyes_look_forward(template):
    """A dipole at the eyes along y makes the forehead positive and is largest in front."""
    _, electrodes = template.montage("biosemi64")
    field = template.family.eye_leadfield(NOMINAL, electrodes)
    forward = field[:, 1] + field[:, 4]
    assert electrodes.positions[forward.argmax(), 1] > 0.07
    left, right = field[:, 0] + field[:, 3], electrodes.positions[:, 0]
    assert np.corrcoef(left, right)[0, 1] > 0.3


@pytest.mark.parametrize(
    "tissues",
    [
        Tissues(330.0),
        Tissues(skull_thickness=6.0),
        Tissues(scalp_conductivity=2.0),
        Tissues(0.0025, brain_conductivity=0.47),
    ],
)
def test_tissues_outside_the_family_are_refused(template, tissues):
    with pytest.raises(ValueError, match=r"lies outside what this head covers: skull .*not mS/m"):
        template.family.coefficients(tissues)


def test_packaged_heads_are_small_and_load_quickly():
    sizes = {path.stem: path.stat().st_size / 1e6 for path in DATA.glob("*.npz")}
    members = {f"warp{seed}-ico3" for seed in (8, 18, 28, 9, 19, 29)}
    assert {"fsaverage-ico3", "fsaverage-ico4"} | members <= sizes.keys()
    assert sizes["fsaverage-ico3"] + sizes["fsaverage-ico4"] <= 12
    load_template.cache_clear()
    start = time.perf_counter()
    load_template()
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("name", "n_sources"), [("fsaverage-ico3", 1284), ("fsaverage-ico4", 5124)]
)
def test_packaged_head(name, n_sources):
    head = load_template(name)
    assert head.space.n_sources == n_sources
    assert np.allclose(np.linalg.norm(head.source_normals, axis=1), 1, atol=1e-5)
    assert head.name == name


def test_coarse_head_is_part_of_the_fine_one(template):
    fine = load_template("fsaverage-ico4")
    rows = np.r_[0:642, 2562:3204]
    assert np.allclose(template.source_pos, fine.source_pos[rows], atol=1e-6)
    a, b = (h.montage_head("biosemi64").leadfield for h in (template, fine))
    assert np.percentile(rdm(a, b[:, rows]), 95) < 0.01
    assert np.percentile(np.abs(ln_magnitude(a, b[:, rows])), 95) < 0.01


def test_damaged_head_is_refused(toy_path, tmp_path):
    content = dict(np.load(toy_path))
    content["source_pos"] = content["source_pos"] * 1.01
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(ValueError, match=r"not an intact deepesi head \(its fingerprint"):
        load_template(tmp_path / "bad.npz")


def test_cut_or_foreign_head_is_refused(toy_path, tmp_path):
    (tmp_path / "cut.npz").write_bytes(toy_path.read_bytes()[:5000])
    (tmp_path / "text.npz").write_text("not a head")
    np.savez(tmp_path / "foreign.npz", leadfield=np.eye(3))
    older = {k: v for k, v in np.load(toy_path).items() if k not in ("core", "fingerprint")}
    np.savez(tmp_path / "older.npz", **older, fingerprint=np.array(_digest(older)))
    for name in ("cut", "text", "foreign", "older"):
        with pytest.raises(ValueError, match=r"not an intact deepesi head.*build it again"):
            load_template(tmp_path / f"{name}.npz")


def test_absent_head_lists_those_at_hand():
    with pytest.raises(FileNotFoundError, match=r"fsaverage-ico3.*deepesi head build"):
        load_template("fsaverage-ico9")
