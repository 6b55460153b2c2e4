"""Methods of fixed orientation on heads of free orientation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.fixed_orientation import FixedOrientation
from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.core.contracts import as_tensors
from deepesi.physics.head_inputs import prepare
from deepesi.physics.template import load_template
from deepesi.training.saved import load_any


@pytest.fixture(scope="module")
def free():
    return load_template("fsaverage-ico3-free").montage_head("biosemi32")


def apply(model, data, head):
    with torch.no_grad():
        return model(data, as_tensors(prepare(model.head_inputs, head)))


@pytest.mark.parametrize("model", [MinimumNorm("eLORETA"), BayesianMinimumNorm()])
def test_moments_are_those_along_the_normals(model, free):
    data = torch.randn(2, 32, 3) * 1e-6
    data = data - data.mean(1, keepdim=True)
    fixed = apply(model, data, free.along_normals())
    estimate = apply(FixedOrientation(model), data, free)
    moments = estimate.mean.unflatten(1, (-1, 3))
    normals = torch.as_tensor(free.source_normals, dtype=torch.float32)
    assert torch.allclose(moments, fixed.mean[:, :, None] * normals[None, :, :, None])
    if fixed.std is not None:
        std = estimate.std.unflatten(1, (-1, 3)).norm(dim=2)
        assert torch.allclose(std, fixed.std, rtol=1e-3)


def test_lead_field_along_the_normals(free):
    fixed = free.along_normals()
    assert fixed.space.n_orient == 1
    assert fixed.along_normals() is fixed
    moments = np.zeros((1284, 3))
    moments[7] = free.source_normals[7]
    assert fixed.leadfield[:, 7] == pytest.approx(free.leadfield @ moments.ravel())


def test_packaged_networks_of_fixed_orientation_are_used_along_the_normals():
    template = load_template("fsaverage-ico3-free")
    for name in ("default", "convdip"):
        model = load_any(name, template)
        assert isinstance(model, FixedOrientation)
        assert "along the template's normals" in model.assumptions.sources
    with pytest.raises(ValueError, match="convdip.* belongs to the source space fsaverage-ico3"):
        load_any("convdip", load_template("fsaverage-ico4-free"))


def test_sources_on_no_surface(free):
    volume = replace(free, source_normals=0 * free.source_normals)
    with pytest.raises(ValueError, match="lie on no surface, so there is no fixed orientation"):
        volume.along_normals()
