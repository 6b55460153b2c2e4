"""Methods of fixed orientation on heads of free orientation, and the other way round."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.baselines.other_orientation import FixedOrientation, FreeOrientation
from deepesi.core.contracts import as_tensors
from deepesi.evaluation.solvers import SolverModel, load_solver
from deepesi.physics.head_inputs import prepare
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from deepesi.training.saved import load_any
from tests.conftest import make_covariance, make_evoked
from tests.counting import Counting


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


def test_source_counts_are_those_of_the_model(free):
    data = torch.randn(2, 32, 3, generator=torch.Generator().manual_seed(0)) * 1e-6
    fixed, model = free.along_normals(), Counting()
    counts = apply(model, data, fixed).source_counts
    assert torch.equal(apply(FixedOrientation(model), data, free).source_counts, counts)
    counts = apply(model, data, fixed.with_components()).source_counts
    assert torch.equal(apply(FreeOrientation(model), data, fixed).source_counts, counts)


@pytest.mark.parametrize("name", ["bayes_single_patch", "dipole_scan", "eloreta"])
def test_on_a_head_of_fixed_orientation_it_is_the_model_itself(toy, name):
    head = toy.montage_head("biosemi32")
    data = torch.randn(1, 32, 3, generator=torch.Generator().manual_seed(0)) * 1e-6
    data = data - data.mean(1, keepdim=True)
    fixed, plain = (apply(load_solver(f"{name}{end}").model, data, head) for end in ("_fixed", ""))
    assert torch.allclose(fixed.mean, plain.mean)


def test_a_prepared_file_of_free_orientation_opens(tmp_path):
    """The patches have one orientation, the head has three."""
    evoked = make_evoked()
    inverse = Inverse(SolverModel("bayes_single_patch_fixed"), "fsaverage-ico3-free")
    prepared = inverse.for_recording(evoked, make_covariance(evoked.info))
    prepared.save(tmp_path / "head.npz")
    opened = inverse.for_prepared(tmp_path / "head.npz")
    assert np.array_equal(opened.estimate(evoked.data)[0], prepared.estimate(evoked.data)[0])


@pytest.mark.parametrize("model", [MinimumNorm("MNE"), BayesianMinimumNorm()])
def test_free_orientation_on_a_head_of_fixed_orientation(model, free):
    """Tangential components are silent, so only those along the normal are estimated."""
    data = torch.randn(2, 32, 3, generator=torch.Generator().manual_seed(0)) * 1e-6
    data = data - data.mean(1, keepdim=True)
    fixed = free.along_normals()
    lifted = fixed.with_components()
    assert free.with_components() is free
    assert lifted.along_normals().leadfield == pytest.approx(fixed.leadfield)
    moments = apply(model, data, lifted)
    estimate = apply(FreeOrientation(model), data, fixed)
    normals = torch.as_tensor(free.source_normals, dtype=torch.float32)[None, :, :, None]
    along = (moments.mean.unflatten(1, (-1, 3)) * normals).sum(2)
    assert torch.allclose(estimate.mean, along)
    assert torch.allclose(  # a minimum norm has no other component
        along[:, :, None] * normals, moments.mean.unflatten(1, (-1, 3)), atol=1e-3 * along.max()
    )
    if estimate.std is not None:
        assert estimate.std.shape == along.shape
        assert (estimate.std > 0).all()


def test_an_exported_network_of_free_orientation_runs_on_any_head(free):
    template = load_template("fsaverage-ico3")
    model = load_any("default", template)
    assert isinstance(model, FreeOrientation)
    data = torch.as_tensor(free.along_normals().leadfield[:, 300:301] * 1e-7).float()[None]
    mean = apply(model, data, free.along_normals()).mean[0, :, 0]
    assert mean.shape == (1284,)
    found = int(mean.abs().argmax())
    assert np.linalg.norm(template.source_pos[found] - template.source_pos[300]) < 0.02
    assert mean[found] > 0


def test_lead_field_along_the_normals(free):
    fixed = free.along_normals()
    assert fixed.space.n_orient == 1
    assert fixed.along_normals() is fixed
    moments = np.zeros((1284, 3))
    moments[7] = free.source_normals[7]
    assert fixed.leadfield[:, 7] == pytest.approx(free.leadfield @ moments.ravel())


def test_packaged_networks_of_fixed_orientation_are_used_along_the_normals():
    template = load_template("fsaverage-ico3-free")
    for name in ("ensemble", "convdip"):
        model = load_any(name, template)
        assert isinstance(model, FixedOrientation)
        assert "along the template's normals" in model.assumptions.sources
    with pytest.raises(ValueError, match="convdip.* belongs to the source space fsaverage-ico3"):
        load_any("convdip", load_template("fsaverage-ico4-free"))


def test_sources_on_no_surface(free):
    volume = replace(free, source_normals=0 * free.source_normals)
    with pytest.raises(ValueError, match="lie on no surface, so there is no fixed orientation"):
        volume.along_normals()
