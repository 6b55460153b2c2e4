"""Building heads: the cohort's anatomy, resuming, a full disk, the volume grid."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from deepesi.physics.building import build
from deepesi.physics.building.anatomy import GRIDS, move_inside, read_anatomy
from deepesi.physics.building.build import NodeFiles, build_head, build_members
from deepesi.physics.building.warps import read_member
from deepesi.physics.cohort import load_cohort, split_of
from deepesi.physics.family import TissueGrid
from deepesi.physics.graph import is_inside
from deepesi.physics.scalp import project_to_mesh
from deepesi.physics.template import load_template
from tests.conftest import slow, with_coarse_scalp

GRID = TissueGrid(n_nodes=(2, 2, 1))


@pytest.fixture(scope="module")
def small():
    return with_coarse_scalp(read_member(0, "ico1", "ico2"))


def make(path, anatomy, **settings):
    return build_head(path, "small", anatomy, GRID, n_patterns=60, rank=40, **settings)


@pytest.mark.slow
def test_an_interrupted_build_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    whole = make(tmp_path / "whole.npz", small)
    assert [p.name for p in tmp_path.iterdir()] == ["whole.npz"]
    adjoint, calls = build.BoundaryElements.adjoint, []

    def stopping(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return adjoint(self, *arguments)

    monkeypatch.setattr(build.BoundaryElements, "adjoint", stopping)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut.npz", small)
    assert not (tmp_path / "cut.npz").exists()
    assert make(tmp_path / "cut.npz", small) == whole
    assert len(calls) == 3 + 2  # four nodes, two of them solved before the interrupt
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.npz", "whole.npz"]


def test_nodes_of_another_geometry_are_never_read(small, tmp_path):
    other = read_member(1, "ico1", "ico2")
    path = tmp_path / "x.npz"
    folders = {NodeFiles.beside(path, a, GRID).folder for a in (small, other)}
    folders.add(NodeFiles.beside(path, small, TissueGrid(n_nodes=(2, 2, 2))).folder)
    assert len(folders) == 3


@pytest.mark.slow
def test_full_disk_leaves_nothing_half_written(tmp_path):
    """A real limit on the size of files stands for the full disk."""
    code = (
        "import resource, sys; from pathlib import Path; "
        "from deepesi.physics.building.build import build_head; "
        "from tests.conftest import with_coarse_scalp; "
        "from tests.physics.building.test_build import GRID, read_member; "
        "small = with_coarse_scalp(read_member(0, 'ico1', 'ico2')); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "build_head(Path(sys.argv[1]), 'small', small, GRID, 60, 40)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.npz")], capture_output=True, text=True
    )
    assert ran.returncode != 0
    assert "OSError" in ran.stderr
    assert "run the same again" in ran.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_disk_without_room_is_refused_before_anything_is_solved(tmp_path, small, monkeypatch):
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=10**6))
    with pytest.raises(OSError, match=r"has 1 MB free, the build needs 1 MB. Free some space"):
        make(tmp_path / "x.npz", small)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_unknown_spacing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown spacing 'ico9', expected one of"):
        build_members(None, ["ico9"], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_skull_is_between_inner_skull_and_scalp_at_any_thickness():
    anatomy = read_anatomy("ico1", "ico3")
    for thickness in (0.0035, 0.006, 0.0085):
        outer, _ = anatomy.skull.surface(thickness)
        local = project_to_mesh(outer, *anatomy.inner_skull).distances
        assert project_to_mesh(outer, *anatomy.scalp).distances.min() >= 0.001
        assert is_inside(outer, *anatomy.scalp).all()
        assert is_inside(anatomy.inner_skull[0], outer, anatomy.skull.faces).all()
        assert local[outer[:, 2] > -0.02].mean() == pytest.approx(thickness, rel=0.05)


@pytest.mark.parametrize("seed", [0, *map(slow, (8, 9, 19, 29))])
def test_members_differ_and_are_sound(seed):
    template, member = read_member(None, "ico2"), read_member(seed, "ico2")
    assert member.space.fingerprint == template.space.fingerprint
    outer, faces = member.skull.surface(0.0085)
    assert is_inside(outer, *member.scalp).all()
    assert is_inside(member.inner_skull[0], outer, faces).all()
    assert is_inside(member.source_pos, *member.inner_skull).all()
    assert is_inside(member.eyes, *member.scalp).all()
    assert not is_inside(member.eyes, outer, faces).any()
    shift = np.linalg.norm(member.source_pos - template.source_pos, axis=1)
    assert 0.001 < np.median(shift) < 0.02
    assert np.linalg.norm(member.source_normals, axis=1) == pytest.approx(1)


def test_splits_of_the_cohort_never_mix():
    splits = [split_of(seed) for seed in range(20)]
    assert splits == 2 * (8 * ["train"] + ["validation", "test"])
    with pytest.raises(ValueError, match=r"warp seeds \[9\] do not belong to 'train'"):
        load_cohort(train=[None, 9], validation=[8])
    with pytest.raises(ValueError, match="a warp seed is 0 or more, got -1"):
        split_of(-1)
    with pytest.raises(FileNotFoundError, match=r"warp7-ico3.*--warp-seed"):
        load_cohort(train=[7], validation=[None])


def test_packaged_test_members(template):
    cohort = load_cohort(train=[None], validation=[None])
    assert [head.warp_seed for head in cohort.test] == [9, 19, 29]
    for head in cohort.test:
        assert head.space.fingerprint == template.space.fingerprint
        a, b = (h.montage_head("biosemi32").leadfield for h in (head, template))
        cosine = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
        assert 0.9 < np.median(cosine) < 0.997


def test_volume_grid():
    anatomy = read_anatomy("vol14", "ico2")
    pos, edges = anatomy.source_pos, anatomy.space.edges
    assert is_inside(pos, *anatomy.inner_skull).all()
    assert project_to_mesh(pos, *anatomy.inner_skull).distances.min() > 0.005
    lengths = np.linalg.norm(pos[edges[:, 0]] - pos[edges[:, 1]], axis=1)
    assert np.allclose(lengths, GRIDS["vol14"])
    assert anatomy.space.n_orient == 3
    # A brain of 1.2-1.8 litres.
    assert 1.0e-3 < len(pos) * GRIDS["vol14"] ** 3 < 1.8e-3


def test_members_share_the_volume_of_the_template():
    template, member = (read_member(seed, "vol14") for seed in (None, 0))
    assert template.space.fingerprint == member.space.fingerprint
    assert np.array_equal(template.source_mni, member.source_mni)
    assert is_inside(member.source_pos, *member.inner_skull).all()
    assert not np.allclose(template.source_pos, member.source_pos, atol=1e-3)


@pytest.mark.slow
def test_volume_head_is_built_and_read(tmp_path):
    path = tmp_path / "volume.npz"
    make(path, with_coarse_scalp(read_anatomy("vol14", "ico2")))
    head = load_template(path)
    assert head.space.n_dipoles == 3 * head.space.n_sources
    assert head.montage_head("biosemi16").leadfield.shape == (16, head.space.n_dipoles)
    assert head.display is None


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


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_member_can_be_built_again(tmp_path):
    """Twelve minutes on two cores: both spacings of a packaged member from one set of BEMs."""
    (coarse, _), (fine, _) = build_members(9, ["ico3", "ico4"], folder=tmp_path)
    again, packaged = load_template(coarse), load_template("warp9-ico3")
    for montage in ("biosemi64", "GSN-HydroCel-128"):
        found = again.montage_head(montage).leadfield
        expected = packaged.montage_head(montage).leadfield
        assert np.allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    assert load_template(fine).space.n_sources == 5124
    assert sorted(p.name for p in tmp_path.iterdir()) == ["warp9-ico3.npz", "warp9-ico4.npz"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_seven_millimetre_volume(tmp_path):
    """Ten minutes on two cores: the volume of the template, free orientation."""
    ((path, _),) = build_members(None, ["vol7"], folder=tmp_path)
    head = load_template(path)
    assert 3500 < head.space.n_sources < 5500
    assert head.montage_head("biosemi64").leadfield.shape == (64, 3 * head.space.n_sources)
