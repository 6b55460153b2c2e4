"""Every network has a configuration that names each of its settings with its default."""

import inspect
from importlib.resources import files

import hydra
import pytest
from omegaconf import OmegaConf

from deepesi.core.contracts import InverseModel

CONFIGS = {
    path.name: OmegaConf.load(path)
    for path in (files("deepesi.configs") / "model").iterdir()
    if path.name != "ensemble.yaml"
}

#: What new trainings take instead of the default, which networks saved before the setting have.
NEWER = {"convdip.yaml": {"output_scale": 0.1}}


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_names_every_setting_with_its_default(name):
    settings = dict(OmegaConf.to_container(CONFIGS[name]))
    settings.pop("defaults", None)  # groups of nested settings, whose value is null here
    network = hydra.utils.get_class(settings.pop("_target_"))
    assert issubclass(network, InverseModel)
    parameters = inspect.signature(network).parameters
    expected = {
        key: p.default if p.default is not p.empty else "???" for key, p in parameters.items()
    }
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in expected.items()}
    assert settings == plain | NEWER.get(name, {})
