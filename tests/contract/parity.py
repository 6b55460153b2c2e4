"""Holds an exported file against its model in torch."""

import copy

import numpy as np
import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.session import as_feeds, open_model


def check_exported(model, toy, simulate, path):
    """Export a model and compare it, or hold why it has no exported form."""
    model.eval()
    if not model.exportable:
        with pytest.raises(ValueError, match="has no form in ONNX: it iterates on every recording"):
            export_onnx(model, toy.montage_head("biosemi16"), path)
        return
    export_onnx(model, toy.montage_head("biosemi16"), path)
    check_file(model, simulate, path)


def check_file(model, simulate, path):
    """At another batch size, duration and montage than traced; silence is answered with zero."""
    for montage, size, n_times in (("biosemi32", 3, 11), ("fsaverage_1020", 1, 1)):
        batch = simulate([], montage=montage, batch_size=size, n_times=n_times).batch(0)
        assert check_parity(model, path, batch, n_timed=1).max_difference <= 1e-5
    opened = open_model(path)
    inputs = as_feeds(prepare(opened.contract.head_inputs, batch.head))
    silence = opened.run(np.zeros_like(batch.data.numpy()), inputs)
    assert all(np.isfinite(found).all() for found in silence.values())
    assert np.abs(silence["mean"]).max() < 1e-9  # A m


def effect_of_rounding(model, batch):
    """Difference of mean and standard deviation to double precision, over the largest of both."""
    inputs = as_tensors(prepare(model.head_inputs, batch.head))
    doubled = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    with torch.no_grad():
        single = model(batch.data, inputs)
        exact = copy.deepcopy(model).double()(batch.data.double(), doubled)
    pairs = [(a, b) for a, b in zip(single[:2], exact[:2], strict=True) if a is not None]
    differences = [(a.double() - b).abs().max() for a, b in pairs]
    return float(max(differences) / max(exact_part.abs().max() for _, exact_part in pairs))
