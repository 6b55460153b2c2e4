"""Magnetic fields: exact on a sphere, of charges outside a head, and of the packaged head."""

from dataclasses import replace
from functools import cache

import mne
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from deepesi.cli.main import main
from deepesi.data_gen.coils import CoilRanges
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.physics.building.anatomy import read_anatomy
from deepesi.physics.building.magnetic import (
    BEM_SPACING,
    FIT_DISTANCE,
    _offset,
    point_coils,
    point_info,
    reduce_magnetic,
    solve_magnetic,
)
from deepesi.physics.building.warps import read_member
from deepesi.physics.family import NOMINAL, LeadFieldFamily
from deepesi.physics.helmets import CLEARANCE, helmet, on_scalp, put_on
from deepesi.physics.io.coils import coils_of
from deepesi.physics.magnetic import KnownCoils, MagneticFieldFamily, charge_field
from deepesi.physics.magnetic_files import load_magnetic, save_magnetic
from deepesi.physics.magnetic_sphere import magnetic_field, magnetic_leadfield
from deepesi.physics.similarity import residual_variance
from deepesi.physics.template import load_template

CENTER = np.array([0.0, 0.0, 0.04])


def dipoles(n, depth, seed=0):
    """Sources this far below a sphere of 85 mm."""
    directions = np.random.default_rng(seed).normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return CENTER + (0.085 - depth) * directions


def in_helmet(name, rotation=(0.0, 0.0, 0.0), shift=(0.0, 0.01, 0.05)):
    info = mne.channels.read_meg_canonical_info(name)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    matrix[:3, 3] = shift
    info["dev_head_t"] = mne.Transform("meg", "head", matrix)
    return info


def rdm(a, b):
    a, b = (x / np.linalg.norm(x, axis=0) for x in (a, b))
    return np.linalg.norm(a - b, axis=0)


@pytest.mark.parametrize("name", ["neuromag", "ctf275"])
def test_the_sphere_is_that_of_mne(name):
    info, pos = in_helmet(name), dipoles(20, 0.02)
    sphere = mne.make_sphere_model(CENTER, 0.09, info=info, verbose="error")
    up = np.tile([0.0, 0.0, 1.0], (20, 1))
    src = mne.setup_volume_source_space(pos={"rr": pos, "nn": up}, verbose="error")
    forward = mne.make_forward_solution(info, None, src, sphere, eeg=False, verbose="error")
    coils, expected = coils_of(info), forward["sol"]["data"]
    assert list(coils.sensors.names) == forward["sol"]["row_names"]
    found = magnetic_leadfield(CENTER, coils, pos)
    assert np.allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_radial_sources_have_no_field():
    pos = dipoles(5, 0.02)
    points = CENTER + 1.3 * (dipoles(9, 0.0, 1) - CENTER)
    field = magnetic_field(CENTER, points, pos).reshape(9, 3, 5, 3)
    radial = (pos - CENTER) / np.linalg.norm(pos - CENTER, axis=1, keepdims=True)
    along = np.einsum("qisj,sj->qis", field, radial)
    assert np.abs(along).max() < 1e-12 * np.abs(field).max()


def test_points_inside_are_refused():
    with pytest.raises(ValueError, match="nearer to the centre than a source"):
        magnetic_field(CENTER, dipoles(3, 0.05), dipoles(3, 0.02))


def sphere_surface():
    vertices, faces = read_anatomy("ico1", "ico3").inner_skull
    directions = (vertices - CENTER) / np.linalg.norm(vertices - CENTER, axis=1, keepdims=True)
    return CENTER + 0.085 * directions, faces


SOURCES = dipoles(60, 0.01)


@cache
def fitted():
    """A family fitted to the exact field of a sphere, in place of a BEM."""
    skull = sphere_surface()
    points = point_coils(_offset(skull, FIT_DISTANCE))
    return reduce_magnetic(skull, magnetic_leadfield(CENTER, points, SOURCES))


@pytest.mark.parametrize("name", ["neuromag", "ctf275"])
@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0), (0.1, -0.05, 0.1)])
def test_charges_have_the_exact_field_at_any_head_position(name, rotation):
    """No node of a grid: the same charges serve two helmets in two positions."""
    family, coils = fitted(), coils_of(in_helmet(name, rotation))
    units = coils.sensors.head_units[:, None]
    exact = magnetic_leadfield(CENTER, coils, SOURCES) / units
    found = family.leadfield(NOMINAL, coils)
    columns = np.linalg.norm((found - exact).reshape(len(coils), -1, 3), axis=(0, 2))
    whole = np.linalg.norm(exact.reshape(len(coils), -1, 3), axis=(0, 2))
    assert np.percentile(columns / whole, 95) < 0.01


def test_moving_the_head_is_moving_the_coils():
    """Coils and charges turned together: nothing changes."""
    family, coils = fitted(), coils_of(in_helmet("neuromag"))
    rotation, shift = Rotation.from_rotvec([0.2, 0.1, -0.3]).as_matrix(), np.array([0.01, 0, 0.02])
    moved = MagneticFieldFamily(
        family.charge_pos @ rotation.T + shift, family.charge_modes, family.source_modes
    )
    first, second = (
        family.leadfield(NOMINAL, coils),
        moved.leadfield(NOMINAL, coils.moved(rotation, shift)),
    )
    assert np.allclose(first, second, rtol=0, atol=1e-9 * np.abs(first).max())


def test_a_charge_has_its_own_field():
    coils = point_coils(np.array([[0.1, 0.0, 0.0], [0.0, 0.0, 0.2]]))
    field = charge_field(coils, np.zeros((1, 3)))[:, 0]
    assert np.allclose(field, [100, 0, 0, 0, 0, 25])


def test_some_coils_are_those_of_all():
    coils = coils_of(in_helmet("neuromag"))
    field = charge_field(coils, np.array([[0.01, 0.02, 0.03]]))
    rows = [7, 0, 300]
    assert np.allclose(charge_field(coils[rows], np.array([[0.01, 0.02, 0.03]])), field[rows])
    assert coils[rows].sensors.names == tuple(coils.sensors.names[row] for row in rows)


def test_it_is_written_and_read(tmp_path):
    family = fitted()
    save_magnetic(tmp_path / "x.npz", family, [np.arange(30), np.arange(30)])
    with np.load(tmp_path / "x.npz") as file:
        arrays = {k: v for k, v in file.items() if not k.startswith("vertices")}
    again, coils = MagneticFieldFamily.from_arrays(arrays), coils_of(in_helmet("neuromag"))
    first, second = family.leadfield(NOMINAL, coils), again.leadfield(NOMINAL, coils)
    assert np.allclose(first, second, rtol=0, atol=1e-3 * np.abs(first).max())


def test_fixed_orientation_is_the_normal_component_of_free():
    fixed, free = load_template("fsaverage-ico3"), load_template("fsaverage-ico3-free")
    coils = put_on(helmet("ctf275"), fixed.family.scalp_pos, np.eye(3), np.zeros(2), CLEARANCE)
    components = free.magnetic.leadfield(NOMINAL, coils).reshape(len(coils), -1, 3)
    along = np.einsum("csj,sj->cs", components, fixed.source_normals)
    assert np.allclose(fixed.magnetic.leadfield(NOMINAL, coils), along)


def test_coils_stay_outside_the_head():
    scalp = load_template().family.scalp_pos
    for name in ("neuromag306", "ctf275"):
        coils = put_on(helmet(name), scalp, np.eye(3), np.zeros(2), CLEARANCE)
        nearest = cKDTree(scalp).query(coils.points)[0].min()
        assert CLEARANCE <= nearest < CLEARANCE + 0.002
    cells = on_scalp(scalp[:10], scalp.mean(axis=0))
    assert np.allclose(np.linalg.norm(cells.sensors.positions - scalp[:10], axis=1), 0.0065)


def test_a_head_without_magnetic_fields_is_refused(toy):
    with pytest.raises(ValueError, match="'toy' has no magnetic fields; packaged .* or a forward"):
        load_magnetic(toy)
    command = "deepesi head build --magnetic --spacing ico3 --warp-seed 9"
    with pytest.raises(ValueError, match=f"'warp9-ico3-free' has no .*{command}"):
        load_magnetic(load_template("warp9-ico3-free"))


@pytest.mark.slow
def test_a_warped_head_gets_the_magnetic_fields_of_its_own_solution(tmp_path, monkeypatch):
    """Built by the command that the refusal names, they are the BEM's of the warped surfaces."""
    monkeypatch.setenv("DEEPESI_CACHE", str(tmp_path))
    main(["head", "build", "--magnetic", "--spacing", "ico3", "--warp-seed", "9"])
    template = load_template("warp9-ico3-free")
    rows = np.flatnonzero(template.is_cortex)[::12]
    info, skull = in_helmet("ctf275"), read_member(9, "ico1", BEM_SPACING).inner_skull
    stored, fresh = against_bem(template, skull, rows, info)
    plain = load_template("fsaverage-ico3-free").magnetic.leadfield(NOMINAL, coils_of(info))
    plain = plain.reshape(len(fresh), -1, 3)[:, rows]
    assert residual_variance(stored, fresh) < 1e-3 < 0.01 < residual_variance(plain, fresh)
    setups = SetupRanges(["biosemi16"], coils=CoilRanges())
    batch = SimulatedRecordings(template, setups=setups, split="test", batch_size=2).batch(0)
    assert batch.data.shape[1] == 16 + 306
    assert set(batch.head.sensors.modalities) == {"eeg", "meg"}


def against_bem(template, skull, rows, info):
    """Stored and freshly solved fields ``(C, S, 3)`` of some sources, head units."""
    coils = coils_of(info)
    solved = solve_magnetic(skull, template.source_pos[rows], info)
    fresh = (solved / coils.sensors.head_units[:, None]).reshape(len(coils), -1, 3)
    stored = template.magnetic.leadfield(NOMINAL, coils).reshape(len(coils), -1, 3)[:, rows]
    return stored, fresh


@pytest.mark.slow
@pytest.mark.parametrize("name", ["neuromag", "ctf275"])
def test_the_packaged_head_is_as_accurate_as_a_fresh_solution(name):
    """RDM against MNE-Python's BEM at a head position of its own: median and 95th percentile."""
    template = load_template("fsaverage-ico3-free")
    rows = np.flatnonzero(template.is_cortex)[::12]
    info = in_helmet(name, (0.05, -0.03, 0.04), (0.003, 0.002, 0.06))
    stored, fresh = against_bem(template, read_anatomy("ico1", "ico4").inner_skull, rows, info)
    normals = template.source_normals[rows]
    errors = rdm(*(np.einsum("csj,sj->cs", field, normals) for field in (fresh, stored)))
    assert np.median(errors) < 0.004
    assert np.percentile(errors, 95) < 0.013
    assert residual_variance(stored, fresh) < 1e-4


def test_points_are_coils_of_mne():
    points = dipoles(3, -0.03)
    ours, theirs = point_coils(points), coils_of(point_info(points))
    charge = CENTER[None]
    assert np.allclose(charge_field(ours, charge), charge_field(theirs, charge), rtol=1e-6)


@pytest.mark.parametrize("kind", ["scalp potentials", "magnetic fields", "coils of a solution"])
def test_families_of_eeg_and_meg_share_one_interface(kind):
    template = load_template("fsaverage-ico3")
    coils = coils_of(in_helmet("neuromag"))[range(6)]
    known = KnownCoils.of(coils.sensors, template.magnetic.leadfield(NOMINAL, coils))
    families = {
        "scalp potentials": (template.family, template.montage("10-20-19")[1]),
        "magnetic fields": (template.magnetic, coils),
        "coils of a solution": (known, coils),
    }
    family: LeadFieldFamily
    family, sensors = families[kind]
    leadfield, patterns = family.leadfield(NOMINAL, sensors), family.patterns(sensors)
    assert leadfield.shape == (len(patterns), len(family.source_modes))
    other = family.leadfield(replace(NOMINAL, skull_conductivity=0.02), sensors)
    assert np.array_equal(leadfield, other) == (kind != "scalp potentials")
