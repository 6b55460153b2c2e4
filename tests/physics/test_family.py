import time

import numpy as np
import pytest

from deepesi.physics.bem import build_template, move_inside, read_anatomy, solve
from deepesi.physics.graph import is_inside
from deepesi.physics.head import average_reference
from deepesi.physics.montage import displace, project_to_mesh
from deepesi.physics.template import load_template


def rdm_lnmag(a, b):
    """Relative difference and log magnitude ratio of topographies, per column."""
    na, nb = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    return np.linalg.norm(a / na - b / nb, axis=0), np.abs(np.log(na / nb))


def test_coefficients_interpolate(template):
    family = template.family
    assert np.allclose(family.coefficients(family.conductivities), np.eye(5))
    assert family.coefficients(0.0123).sum() == pytest.approx(1)


RANDOM = np.exp(np.random.default_rng(2).uniform(*np.log([0.002, 0.03]), size=3))


@pytest.mark.parametrize(
    ("montage", "conductivity"),
    zip(["biosemi64", "GSN-HydroCel-65_1.0", "biosemi32"], RANDOM, strict=True),
)
def test_family_equals_a_fresh_bem(template, montage, conductivity):
    """At random conductivities, for every source, electrodes 5 mm off their places."""
    anatomy, family = read_anatomy("ico3", "ico3"), template.family
    mesh = family.scalp_pos, family.scalp_faces
    moved = displace(
        template.montage_head(montage).sensor_pos, *mesh, 0.005, 1, np.random.default_rng(7)
    ).positions[0]
    fresh = average_reference(solve(anatomy, float(conductivity), moved))
    found = family.leadfield(conductivity, project_to_mesh(moved, *mesh))
    rdm, lnmag = rdm_lnmag(found, fresh)
    assert rdm.max() <= 0.01
    assert lnmag.max() <= 0.01


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rebuilding_at_low_resolution_gives_a_similar_head(template, tmp_path):
    path = tmp_path / "low.npz"
    fingerprint = build_template(path, spacing="ico2", skull_spacing="ico2", n_nodes=3, rank=150)
    low = load_template(path)
    assert low.fingerprint == fingerprint
    again = tmp_path / "again.npz"
    assert build_template(again, "ico2", "ico2", 3, 150) == fingerprint
    rows = np.r_[0:162, 642:804]
    head, same = low.montage_head("biosemi64"), template.montage_head("biosemi64")
    rdm, lnmag = rdm_lnmag(head.leadfield, same.leadfield[:, rows])
    assert np.median(rdm) < 0.1
    assert np.median(lnmag) < 0.1


def test_conductivity_in_other_units_is_refused(template):
    with pytest.raises(ValueError, match=r"330.* S/m lies outside 0.002-0.03 S/m.*not mS/m"):
        template.family.coefficients(330.0)


def test_unknown_spacing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown spacing 'ico9'"):
        build_template(tmp_path / "x.npz", spacing="ico9")
    assert not list(tmp_path.iterdir())


def test_skull_is_between_inner_skull_and_scalp():
    anatomy = read_anatomy("ico1", "ico3")
    thickness = 1e3 * project_to_mesh(anatomy.outer_skull[0], *anatomy.inner_skull).distances
    under_scalp = 1e3 * project_to_mesh(anatomy.outer_skull[0], *anatomy.scalp).distances
    assert thickness.min() >= 3
    assert thickness.max() <= 9
    assert under_scalp.min() >= 2
    assert is_inside(anatomy.outer_skull[0], *anatomy.scalp).all()
    assert is_inside(anatomy.inner_skull[0], *anatomy.outer_skull).all()


def test_sources_too_near_the_skull_move_inward_and_are_counted():
    vertices, faces = read_anatomy("ico1", "ico2").inner_skull
    centre = vertices.mean(axis=0)
    points = np.stack(
        [centre, 0.999 * vertices[5] + 0.001 * centre, 1.2 * vertices[9] - 0.2 * centre]
    )
    moved, count = move_inside(points, vertices, faces)
    assert count == 2
    assert np.allclose(moved[0], centre)
    assert is_inside(moved, vertices, faces).all()
    assert project_to_mesh(moved, vertices, faces).distances.min() >= 0.002


def test_packaged_head_loads_quickly():
    load_template.cache_clear()
    start = time.perf_counter()
    load_template()
    assert time.perf_counter() - start < 3


def test_packaged_head(template):
    assert template.space.n_sources == 1284
    assert template.n_moved == 0
    assert np.allclose(np.linalg.norm(template.source_normals, axis=1), 1, atol=1e-5)


def test_damaged_head_is_refused(toy_path, tmp_path):
    content = dict(np.load(toy_path))
    content["source_pos"] = content["source_pos"] * 1.01
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(ValueError, match="not an intact deepesi head"):
        load_template(tmp_path / "bad.npz")


def test_absent_head_lists_the_packaged():
    with pytest.raises(FileNotFoundError, match="fsaverage-ico3"):
        load_template("fsaverage-ico9")
