"""Dipoles at any position and orientation, from the fixed dipoles of a packaged head."""

import numpy as np
import pytest

from deepesi.physics.dipoles import DipoleWeights
from deepesi.physics.family import NOMINAL
from deepesi.physics.loading import load_head
from deepesi.physics.similarity import rdm
from deepesi.physics.template import free_orientation, load_template, template_of


@pytest.mark.parametrize(("name", "bounds"), [("ico4", (0.015, 0.04)), ("ico3", (0.04, 0.1))])
def test_a_dipole_that_was_left_out(name, bounds):
    head = load_template(f"fsaverage-{name}")
    leadfield = head.montage_head("biosemi64").leadfield[:, head.is_cortex]
    pos, normals = head.source_pos[head.is_cortex], head.source_normals[head.is_cortex]
    differences = []
    for left_out in np.random.default_rng(0).permutation(len(pos))[:200]:
        kept = np.arange(len(pos)) != left_out
        found = DipoleWeights.around(pos[[left_out]], pos[kept], normals[kept])
        weights = found.weights(np.array([0]), normals[[left_out]], np.zeros((1, 3)))
        combined = leadfield[:, kept][:, found.nearest[0]] @ weights[0]
        differences.append(rdm(combined[:, None], leadfield[:, [left_out]])[0])
    assert (np.percentile(differences, [50, 90]) <= bounds).all()


def test_exact_for_a_potential_that_is_linear_in_position_and_orientation():
    rng = np.random.default_rng(0)
    pos, normals = rng.uniform(-0.01, 0.01, (400, 3)), rng.normal(size=(400, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    constant, slope = rng.normal(size=3), rng.normal(size=(3, 3)) / 0.01

    def potential(at, orientation):
        return orientation @ constant + np.einsum("ni,ij,nj->n", orientation, slope, at)

    found = DipoleWeights.around(pos[:50], pos, normals)
    offset, orientation = rng.normal(scale=2e-3, size=(50, 3)), rng.normal(size=(50, 3))
    weights = found.weights(np.arange(50), orientation, offset)
    combined = (weights * potential(pos, normals)[found.nearest]).sum(1)
    exact = potential(pos[:50] + offset, orientation)
    assert combined == pytest.approx(exact, abs=0.01 * np.abs(exact).max())


def test_free_head_holds_the_fixed_one():
    fixed, free = load_head("fsaverage-ico3"), load_head("fsaverage-ico3", n_orient=3)
    assert load_head("fsaverage-ico3-free").fingerprint == free.fingerprint
    assert free.name == "fsaverage-ico3-free"
    assert free.space.n_dipoles == 3 * 1284
    assert free is load_template("fsaverage-ico3-free")
    leadfields = [h.montage_head("biosemi64").leadfield for h in (free, fixed)]
    components = leadfields[0].reshape(64, 1284, 3)
    along = np.einsum("csj,sj->cs", components, fixed.source_normals)
    assert np.percentile(rdm(along, leadfields[1])[fixed.is_cortex], 99) < 0.05
    assert template_of(free.space) is free
    assert template_of(fixed.space) is fixed


def test_components_of_a_moved_dipole_are_those_of_its_new_position():
    """Two positions 3 mm apart: an offset from one gives the lead field at the other."""
    head = load_template("fsaverage-ico4")
    leadfield = head.family.leadfield(NOMINAL, head.montage("biosemi64")[1])
    anchors = head.source_pos[head.is_cortex][:200]
    offset = np.tile([0.0, 0.0, 0.003], (200, 1))
    orientation = head.source_normals[head.is_cortex][:200]
    pos, normals = head.source_pos, head.source_normals
    there, here = (DipoleWeights.around(at, pos, normals) for at in (anchors + offset, anchors))
    fields = []
    for found, step in ((there, 0 * offset), (here, offset)):
        weights = found.weights(np.arange(200), orientation, step)
        fields.append(np.einsum("cak,ak->ca", leadfield[:, found.nearest], weights))
    assert np.percentile(rdm(*fields), 90) < 0.05


def test_no_free_orientation_of_a_free_head():
    with pytest.raises(ValueError, match="no fixed orientation along the normal"):
        free_orientation(load_template("fsaverage-ico3-free"))
    with pytest.raises(FileNotFoundError, match="no head 'nobody-ico3-free'"):
        load_template("nobody-ico3-free")
