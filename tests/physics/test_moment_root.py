"""The prior of the moments of a patch: a mixture of fixed and free orientation."""

import numpy as np
import pytest

from deepesi.physics.head_inputs import (
    HeadInput,
    PatchMoments,
    PatchSensitivities,
    PatchTopographies,
    Preconditioners,
    TopographicMatrix,
)
from deepesi.physics.head_inputs.patches import mean_normals, patch_topographies

RADII = (0.03, 0.06, 2)


@pytest.fixture(scope="module")
def head(free_toy):
    return free_toy.montage_head("biosemi16")


def test_covariance_is_a_mixture_of_fixed_and_free_orientation(head):
    """For topographies: a projector onto those of the patch, and that of its mean normal alone."""
    rows = PatchTopographies(*RADII, 0.2).compute(head).reshape(2, 84, 3, 16)
    for radius, found in zip((0.03, 0.06), rows, strict=True):
        topographies = patch_topographies(head, radius)
        along = np.einsum("sco,so->sc", topographies, mean_normals(head, radius))
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        span = np.linalg.qr(topographies)[0]
        expected = 0.2 * span @ span.swapaxes(1, 2) + 0.8 * along[:, :, None] * along[:, None]
        assert found.swapaxes(1, 2) @ found == pytest.approx(expected, abs=1e-6)


def test_moments_project_as_the_topographies(head):
    rows = PatchTopographies(*RADII, 0.2).compute(head).reshape(2, 84, 3, 16)
    moments = PatchMoments(*RADII, 0.2).compute(head).reshape(2, 84, 3, 3)
    assert moments == pytest.approx(moments.swapaxes(2, 3), rel=1e-9)
    for radius, found, moment in zip((0.03, 0.06), rows, moments, strict=True):
        projected = (patch_topographies(head, radius) @ moment).swapaxes(1, 2)
        assert projected == pytest.approx(found, abs=1e-9)


def test_preconditioned_steps_of_one_converge(head):
    columns = PatchTopographies(*RADII, 0.2).compute(head).reshape(-1, 16)
    matrices = Preconditioners(*RADII, 3, 0.2).compute(head)
    sensitivities = PatchSensitivities(*RADII, 3, 0.2).compute(head)
    for matrix, sensitivity in zip(matrices, sensitivities, strict=True):
        curvature = columns @ matrix @ columns.T
        assert np.linalg.norm(curvature, 2) == pytest.approx(1)
        total = np.diag(curvature).reshape(2, 84, 3).sum(axis=2)
        assert sensitivity == pytest.approx(total / 1.4)  # the sum of the variances


def test_images_between_fixed_and_free_orientation(head):
    near = TopographicMatrix(8, 8, 5.0, 1e-12).compute(head)
    fixed = TopographicMatrix(8, 8, 5.0).compute(head.along_normals())
    assert near == pytest.approx(fixed, abs=1e-6)
    free = TopographicMatrix(8, 8, 5.0).compute(head)
    assert np.abs(free - fixed).max() > 1e-3
    assert TopographicMatrix(8, 8, 5.0, 1 - 1e-12).compute(head) == pytest.approx(free, abs=1e-9)


def test_files_written_before_there_was_a_prior_stay_valid():
    """A parameter that came later is in the key and in the file only where it is set."""
    for kind in (PatchTopographies, PatchMoments, Preconditioners, PatchSensitivities):
        declared = kind().to_json()
        assert "loose" not in declared
        assert HeadInput.from_json(declared) == kind()
        other = kind(loose=0.2)
        assert HeadInput.from_json(other.to_json()) == other
        assert other.key == f"{kind().key}_0_2"
    assert PatchTopographies().key == "patch_topographies_0_01_0_025_3"
    assert TopographicMatrix(8, 8).key == "topographic_matrix_8_8_None"
