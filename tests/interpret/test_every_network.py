"""``deepesi explain`` with its default methods, over every network and solver with gradients."""

from dataclasses import replace

import pytest

from deepesi.cli.explain import open_network
from deepesi.evaluation.solvers import SolverModel
from deepesi.interpret.run import METHODS, ExplainOptions, explain
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.setup import SetupOptions
from tests.conftest import make_covariance, make_evoked, slow
from tests.contract.test_contract import RECIPES

#: Contributions of the first and the last add up, those of the second do not.
FAST = {"ConvDip", "BayesSinglePatch", "MNE"}
EXPORTABLE = [name for name, make in RECIPES.items() if make().exportable]
#: Methods that are left out for a model, whatever its weights.
LEFT_OUT = {
    "ConvDip": set(),
    "StackedEnsemble": set(),
    "AnnealedPatches": {"deep_lift"},
    "UnrolledMatchedFilter": {"deep_lift"},
    "LooseMatchedFilter": {"deep_lift"},
    "UnrolledChampagne": {"deep_lift"},
}


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    """An average with a source at one sample, and its noise covariance."""
    folder = tmp_path_factory.mktemp("recording")
    evoked = make_evoked("biosemi16", n_times=5)
    signal = toy.montage_head("biosemi16").leadfield[:, 7]
    evoked.data[:, 3] += 6e-6 * signal / abs(signal).max()
    evoked.save(folder / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(folder / "x-cov.fif", verbose="error")
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [n if n in FAST else slow(n) for n in EXPORTABLE])
def test_contributions_add_up_or_are_left_out_by_name(name, folder, toy_path, tmp_path):
    def open_inverse(path, setup):
        model = SolverModel("mne")
        model.model = RECIPES[name]().eval()
        model.contract = replace(model.contract, head_inputs=model.model.head_inputs)
        return Inverse(model, setup.head)

    steps = explain(
        folder / name,
        folder / "x-ave.fif",
        tmp_path / "page.html",
        ReadingOptions(),
        SetupOptions(noise_cov=folder / "x-cov.fif", head=str(toy_path)),
        ExplainOptions(at=3 / 250),
        open_inverse,
        open_network,
    )
    lines = []
    while True:
        try:
            lines.append(next(steps))
        except StopIteration as end:
            found = end.value
            break
    print(name, *found.missing, sep="\n  ")
    lacking = set(METHODS) - found.attributions.keys()
    assert "occlusion" not in lacking
    assert len(found.missing) == len(lacking)
    kind, page = type(RECIPES[name]()).__name__, (tmp_path / "page.html").read_text()
    for method, text in zip(sorted(lacking, key=METHODS.index), found.missing, strict=True):
        assert text.startswith(f"The method {method} is left out for {kind}: ")
        assert "Use occlusion" in text
        assert text in lines
        assert text in page
    assert lacking >= LEFT_OUT.get(name, set())
    if name in ("ConvDip", "StackedEnsemble"):
        assert not lacking
