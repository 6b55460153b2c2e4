"""The contract of models over a head with EEG and MEG: any mixture with the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.data_gen.coils import CoilRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.physics.family import NOMINAL
from deepesi.physics.helmets import helmet, put_on
from deepesi.physics.magnetic import KnownCoils
from deepesi.physics.template import load_template
from tests.contract.test_contract import RECIPES, apply

#: Models of images of the scalp, which MEG has none of.
OF_IMAGES = {
    "ConvDip",
    "ConvDip with std",
    "FixedOrientation",
    "DeepEnsemble",
    "StackedEnsemble",
    "MCDropout",
    "Tempered",
}
#: The quick ones; the others are slow on more channels.
SLOW = {
    "BayesPatches",
    "ridge",
    "LooseMatchedFilter",
    "AnnealedPatches",
    "SparseRegression",
    "FlowMatching",
    "elastic net",
    "SparseBayes em",
    "SparseBayes, patches",
    "SparseBayes, noise learned",
}


@pytest.fixture(scope="session")
def joint_toy(toy):
    """The toy head with a third of a Neuromag helmet."""
    template = load_template()
    coils = put_on(helmet("neuromag306"), template.family.scalp_pos, np.eye(3), np.zeros(2), 0.02)[
        [i for start in range(0, 306, 27) for i in range(start, start + 3)]
    ]
    rows = np.r_[0:42, 642:684]
    return replace(
        toy,
        name="joint toy",
        known_coils=KnownCoils.of(
            coils.sensors, template.magnetic.leadfield(NOMINAL, coils)[:, rows]
        ),
    )


@pytest.fixture
def simulate_joint(simulate, joint_toy):
    def make(declarations, **modalities):
        setups = SetupRanges(montages=["biosemi16"], coils=CoilRanges(**modalities))
        return simulate(declarations, joint_toy, setups=setups, n_times=3).batch(0)

    return make


def close(first, second):
    return torch.allclose(first, second, rtol=1e-3, atol=1e-3 * second.abs().max().item())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in RECIPES
        if name not in OF_IMAGES
    ],
)
def test_any_mixture_with_the_same_weights(name, simulate_joint):
    model = RECIPES[name]().eval()
    both = simulate_joint(model.head_inputs)
    assert set(both.head.sensors.kinds) == {"eeg", "mag", "grad"}
    first = apply(model, both.data, both.head)
    assert torch.isfinite(first).all()
    assert (first.std(dim=1) > 0).all()
    order = np.random.default_rng(0).permutation(len(both.head.sensors))
    shuffled = both.head.pick([both.head.sensors.names[i] for i in order])
    assert close(apply(model, both.data[:, order], shuffled), first)
    louder = replace(both.head, noise_cov=49 * both.head.noise_cov)
    assert close(apply(model, 7 * both.data, louder), 7 * first)
    for kinds in ({"eeg"}, {"mag", "grad"}):
        rows = [i for i, kind in enumerate(both.head.sensors.kinds) if kind in kinds]
        alone = both.head.pick([both.head.sensors.names[i] for i in rows])
        found = apply(model, both.data[:, rows], alone)
        assert found.shape == first.shape
        assert torch.isfinite(found).all()
        assert not close(found, first)


@pytest.mark.parametrize("name", ["ConvDip"])
def test_models_of_images_refuse_meg_by_name(name, simulate_joint):
    with pytest.raises(ValueError, match=r"topographic image takes EEG only.*'grad', 'mag'"):
        simulate_joint(RECIPES[name]().head_inputs)


@pytest.mark.parametrize(
    ("share", "kinds"),
    [("eeg_only", {"eeg"}), ("meg_only", {"mag", "grad"})],
)
def test_a_whole_modality_is_dropped(share, kinds, simulate_joint):
    batch = simulate_joint((), **{share: 1.0})
    assert set(batch.head.sensors.kinds) == kinds
    assert batch.data.shape[1] == len(batch.head.sensors)
