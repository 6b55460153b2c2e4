import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import deepesi

#: A training of seconds.
SMALL = [
    "data.batch_size=4",
    "data.setups.montages=[biosemi16]",
    "data.sources.radius=[0.03,0.06]",
    "data.pool_size=1",
    "trainer.n_validation_batches=1",
    "trainer.validation_batch_size=4",
    "scenario.sources.radius=[0.03,0.06]",
]
CONVDIP = ["model.hidden=16", "model.height=6", "model.width=6"]


@pytest.fixture(scope="session")
def run(toy, tmp_path_factory):
    """A ConvDip of two steps, trained within a program that uses Hydra itself."""
    out, before = tmp_path_factory.mktemp("api") / "run", HydraConfig.instance().cfg
    with hydra.initialize(config_path=None, version_base="1.3"):
        theirs = GlobalHydra.instance().hydra
        trained = deepesi.train(
            "convdip", toy, max_steps=2, seed=3, out=out, overrides=[*SMALL, *CONVDIP]
        )
        assert GlobalHydra.instance().hydra is theirs
    assert HydraConfig.instance().cfg is before
    return trained
