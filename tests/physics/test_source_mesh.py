"""The cortex of a forward solution: inflated, with its sulci, and values of its sources on it."""

import mne
import numpy as np
import pytest

from deepesi.physics.building.anatomy import ICO_VERTICES, _fsaverage5, ico_faces
from deepesi.physics.graph import face_normals
from deepesi.physics.source_mesh import inflated, source_mesh

N = ICO_VERTICES["ico3"]


@pytest.fixture(scope="module")
def fsaverage():
    return _fsaverage5()


@pytest.fixture(scope="module")
def src(fsaverage):
    """White surfaces of fsaverage with the sources of ico-3; the right one has lost a source."""
    sphere = fsaverage["sphere"][0]
    faces, between = ico_faces(sphere, len(sphere)), ico_faces(sphere, N)
    return [
        {
            "type": "surf",
            "rr": white / 1e3,
            "tris": faces,
            "vertno": np.delete(np.arange(N), lost),
            "use_tris": between,
            "nuse_tri": len(between),
        }
        for white, lost in zip(fsaverage["white_matter"], ([], [100]), strict=True)
    ]


def test_inflation_opens_the_folds_and_finds_the_sulci(fsaverage, src):
    """Sulci as FreeSurfer has them (its ``sulc``); most of the smooth surface faces outward."""
    for part, sulc in zip(src, fsaverage["sulc"], strict=True):
        smooth, sulci = inflated(part["rr"], part["tris"])
        assert (sulci == (sulc > 0)).mean() > 0.75

        def outward(positions, faces=part["tris"]):
            from_centre = positions[faces].mean(axis=1) - positions.mean(axis=0)
            return ((face_normals(positions, faces) * from_centre).sum(axis=1) > 0).mean()

        assert outward(smooth) > 0.9 > outward(part["rr"])
        sizes = [np.sqrt(((p - p.mean(0)) ** 2).sum(1).mean()) for p in (smooth, part["rr"])]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)


def test_values_of_the_sources_are_on_the_mesh(src):
    mesh = source_mesh(src)
    assert mesh.n_sources == 2 * N - 1
    sources = np.array([0, N - 1, N, 2 * N - 2])
    hemisphere, vertex = mesh.places(sources)
    assert hemisphere.tolist() == [0, 0, 1, 1]
    values = np.random.default_rng(0).uniform(size=mesh.n_sources)
    shown = mesh.interpolate(values)
    for number, (h, v) in enumerate(zip(hemisphere, vertex, strict=True)):
        assert shown[h][v] == values[sources[number]]
    for h in (0, 1):
        positions, faces, sulci = mesh.surface(h)
        assert len(positions) == len(shown[h]) == len(sulci)
        assert len(faces) >= 5000
        own, used = np.split(values, [N])[h], src[h]["vertno"]
        left_out = np.setdiff1d(src[h]["use_tris"], used)
        least = 0 if len(left_out) else own.min()
        assert least <= shown[h].min() <= shown[h].max() <= own.max()
        assert (shown[h][len(used) : len(used) + len(left_out)] == 0).all()
        # Divided triangles cover the same surface: its area vector is that of the undivided ones.
        row = {vertex: number for number, vertex in enumerate([*used, *left_out])}
        undivided = np.vectorize(row.__getitem__)(src[h]["use_tris"])
        whole, coarse = (face_normals(positions, f) for f in (faces, undivided))
        np.testing.assert_allclose(whole.sum(axis=0), coarse.sum(axis=0), atol=1e-12)
        assert np.linalg.norm(whole, axis=1).sum() == pytest.approx(
            np.linalg.norm(coarse, axis=1).sum()
        )


@pytest.mark.parametrize(
    "change",
    [
        {"type": "vol"},
        {"nuse_tri": 0},
        {"vertno": np.arange(0)},  # all sources are in the other hemisphere
        {"vertno": np.arange(N + 1)},  # a source between others, in no triangle of sources
    ],
)
def test_what_is_no_cortex_of_triangles(src, change):
    assert source_mesh([src[0], src[1] | change]) is None
    assert source_mesh(src[:1]) is None


def test_a_source_space_of_mne_without_surfaces():
    grid = mne.setup_volume_source_space(pos=40.0, sphere=(0, 0, 0, 0.08), verbose="error")
    assert source_mesh(grid) is None
