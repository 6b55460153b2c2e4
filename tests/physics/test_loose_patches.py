"""Topographies of patches along the normals, and under a prior of their moments."""

import numpy as np
import pytest

from deepesi.physics.head_inputs import (
    FixedOrientations,
    LooseMoments,
    LooseTopographies,
    NormalMoments,
    NormalTopographies,
    PatchTopographies,
)
from deepesi.physics.head_inputs.patches import patch_profiles, patch_topographies
from deepesi.physics.template import load_template

RADIUS = 0.015


@pytest.fixture(scope="module")
def head():
    return load_template("fsaverage-ico3-free").montage_head("biosemi32")


@pytest.fixture(scope="module")
def rows(head):
    return LooseTopographies(RADIUS, RADIUS, 1, 0.25).compute(head)[:, 0].swapaxes(0, 1)


def test_rows_are_orthogonal_and_their_squares_add_up(rows):
    gram = rows @ rows.swapaxes(1, 2)
    assert np.trace(gram, axis1=1, axis2=2) == pytest.approx(np.full(1284, 3.0))
    off_diagonal = gram - np.einsum("sii->si", gram)[:, :, None] * np.eye(3)
    assert np.abs(off_diagonal).max() < 1e-9


def test_moments_project_as_the_rows(head, rows):
    moments = LooseMoments(RADIUS, RADIUS, 1, 0.25).compute(head)[:, :, 0].transpose(2, 0, 1)
    topographies = patch_topographies(head, RADIUS)
    assert (topographies @ moments).swapaxes(1, 2) == pytest.approx(rows, abs=1e-9)


def test_rows_are_those_of_the_prior(head, rows):
    """``Qᵀ Q`` is proportional to the covariance of topographies with moments of the prior."""
    source = 400
    normal = patch_profiles(head, RADIUS)[[source]] @ head.source_normals
    size = np.linalg.norm(normal)
    along = (normal / size).T @ (normal / size)
    cov = 0.25 * np.eye(3) + 0.75 * size**2 * along
    topographies = patch_topographies(head, RADIUS)[source]
    expected = topographies @ cov @ topographies.T
    found = rows[source].T @ rows[source]
    assert found / np.trace(found) == pytest.approx(expected / np.trace(expected), abs=1e-9)


def test_with_fixed_orientation_there_is_one_row_of_norm_1():
    fixed = load_template("fsaverage-ico3").montage_head("biosemi16")
    rows = LooseTopographies(RADIUS, RADIUS, 1).compute(fixed)[0, 0]
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(1284))


def test_along_the_normals_they_are_those_of_the_head_of_fixed_orientation(head):
    """The topographies follow the normal of each source, not the mean normal of a patch."""
    radii = (RADIUS, 2 * RADIUS, 2)
    fixed = head.along_normals()
    assert NormalTopographies(*radii).compute(head) == pytest.approx(
        PatchTopographies(*radii).compute(fixed)
    )
    moments = NormalMoments(*radii).compute(head)[0, :, None]
    unit = moments * patch_topographies(fixed, RADIUS)[:, :, 0]
    assert unit == pytest.approx(NormalTopographies(*radii).compute(head)[0])
    for one in (head, fixed):
        directions = FixedOrientations().compute(one)
        leadfield = one.leadfield.reshape(32, 1284, -1)
        assert np.einsum("cso,so->cs", leadfield, directions) == pytest.approx(fixed.leadfield)


@pytest.mark.parametrize("loose", [0.0, 1.5])
def test_loose_outside_of_its_range(loose):
    with pytest.raises(ValueError, match=f"loose must be above 0 and at most 1, got {loose}"):
        LooseTopographies(RADIUS, RADIUS, 1, loose)
