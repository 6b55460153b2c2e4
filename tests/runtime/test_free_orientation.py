"""An exported network of free orientation finds its head by itself."""

import mne
import numpy as np
import pytest
import torch

from deepesi.cli.export import export_path
from deepesi.models.loose_matched_filter import LooseMatchedFilter
from deepesi.physics.io.heads import head_from_forward
from deepesi.physics.montage import eeg_info
from deepesi.physics.template import load_oriented, load_template
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.packaged import model_path
from deepesi.training.weights import save_network
from tests.conftest import slow


@pytest.fixture(scope="module", params=["packaged", slow("exported")])
def exported(request, tmp_path_factory):
    """The packaged one; or by the command, whose head has fixed orientation by default."""
    if request.param == "packaged":
        return model_path("default")
    folder = tmp_path_factory.mktemp("free")
    torch.manual_seed(0)
    settings = {"n_components": 1, "n_sweeps": 1, "hidden": 4, "exchanged": 2, "n_radii": 2}
    settings |= {"n_messages": 1, "n_conjugate": 1}
    space = load_template("fsaverage-ico3-free").space
    kind = LooseMatchedFilter
    identity = {
        "model": {"_target_": f"{kind.__module__}.{kind.__qualname__}", **settings},
        "space": space.name,
        "space_fingerprint": space.fingerprint,
    }
    save_network(kind(**settings), identity, folder / "model")
    export_path(str(folder / "model"), folder / "model.onnx", "fsaverage-ico3", "biosemi16")
    return folder / "model.onnx"


@pytest.mark.parametrize("head", [None, "fsaverage-ico3", "fsaverage-ico3-free", "warp9-ico3"])
def test_the_head_has_the_orientation_of_the_file(exported, head):
    inverse = Inverse.load(exported, head=head)
    assert inverse.contract.n_orient == 3
    assert inverse.template.space.n_orient == 3
    assert inverse.template.name.removesuffix("-free") == (head or "fsaverage-ico3").removesuffix(
        "-free"
    )


def test_a_source_is_found_with_its_moment(exported):
    template = load_oriented("fsaverage-ico3", 3)
    head = template.montage_head("biosemi16")
    source = int(np.flatnonzero(template.is_cortex)[300])
    moment = np.zeros((1284, 3))
    moment[source] = template.source_normals[source] * 1e-7
    data = (head.leadfield @ moment.ravel())[:, None] * [[1.0, -1.0]]
    inverse = Inverse.load(exported).prepare_for(head, nave=1, origin="simulation")
    mean = inverse.estimate(data, window=1)[0].reshape(1284, 3, -1)
    found = int(np.linalg.norm(mean[:, :, 0], axis=1).argmax())
    assert np.linalg.norm(template.source_pos[found] - template.source_pos[source]) < 0.03


def test_a_path_is_loaded_as_it_is(toy_path):
    assert load_oriented(toy_path, 3).space.n_orient == 1
    assert load_oriented("fsaverage-ico3", None).space.n_orient == 1


def test_own_forward_solutions_have_the_orientation_that_is_needed(sample_data):
    path = sample_data / "derived" / "sample-oct5-eeg-fwd.fif"
    forward = mne.read_forward_solution(path, verbose="error")
    info = eeg_info(
        forward["sol"]["row_names"], np.array([c["loc"][:3] for c in forward["info"]["chs"]])
    )
    noise = mne.make_ad_hoc_cov(info, {"eeg": 1e-6}, verbose="error")
    fixed, free = (head_from_forward(info, noise, forward, n_orient=n) for n in (1, 3))
    assert free.space.fixed.fingerprint == fixed.space.fingerprint
    along = free.along_normals().leadfield
    assert along == pytest.approx(fixed.leadfield, abs=1e-6 * np.abs(fixed.leadfield).max())
    one_component = mne.convert_forward_solution(forward, force_fixed=True, verbose="error")
    with pytest.raises(ValueError, match="fixed orientation, and the model needs three"):
        head_from_forward(info, noise, one_component, n_orient=3)
