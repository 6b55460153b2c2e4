"""Exported files, and a recording to apply them to."""

import pytest
import torch

from deepesi.export.to_onnx import export_onnx
from deepesi.models.convdip import ConvDip
from tests.conftest import make_evoked


@pytest.fixture(scope="session")
def convdip(tmp_path_factory, template):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("x") / "c.onnx"
    export_onnx(ConvDip(1284, hidden=16), template.montage_head("biosemi32"), path)
    return path


@pytest.fixture
def evoked():
    return make_evoked()
