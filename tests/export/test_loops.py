"""Loops of a graph against the same computation without loops."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from deepesi.core.traced_loops import DOMAIN, trace_draws, trace_one_step
from deepesi.export.loops import draw_in_parts, repeat_steps

SHAPE = 5, 3
#: Parameters of the steps.
ROWS = torch.tensor([[0.5, 1.0], [0.25, -1.0], [2.0, 0.5]])


class Sampler(nn.Module):
    """Draws ``(N, B, D, T)`` by steps; all of them share a product with the data."""

    def sample(self, data, noise):
        known = (data @ data.mT).cos() @ data
        state = noise.unflatten(2, (data.shape[1], data.shape[2])) + known
        start = state.flatten(0, 1)

        def step(x, row):
            size, shift = row.unbind()
            return size * x.tanh() + shift * x.mean((1, 2), keepdim=True)

        if torch.compiler.is_exporting():
            start = trace_one_step(step, start, ROWS)
        else:
            for row in ROWS:
                start = step(start, row)
        return start.unflatten(0, noise.shape[:2])

    def forward(self, data, noise):
        fixed = torch.ones(4, 1, 1).expand(-1, data.shape[0], noise.shape[2])
        if not torch.compiler.is_exporting():
            return self.sample(data, torch.cat([fixed, noise]))
        return trace_draws(lambda part: self.sample(data, part), fixed, noise)


def example(n_draws, n_recordings):
    generator = torch.Generator().manual_seed(n_draws)
    return (
        torch.randn(n_recordings, *SHAPE, generator=generator),
        torch.randn(n_draws, n_recordings, SHAPE[0] * SHAPE[1], generator=generator),
    )


@pytest.fixture(scope="module")
def proto():
    free = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        Sampler(),
        example(7, 2),
        input_names=["data", "noise"],
        dynamic_shapes=({0: free}, {0: free, 1: free}),
        dynamo=True,
        opset_version=20,
        optimize=False,
        verbose=False,
    )
    found = program.model_proto
    repeat_steps(found)
    draw_in_parts(found, at_once=6)
    return found


def test_no_mark_stays_and_what_draws_share_is_outside_of_the_loop(proto):
    names = [node.op_type for node in proto.graph.node]
    assert names.count("Scan") == 1
    assert "Cos" in names
    assert "Tanh" not in names
    assert all(node.domain != DOMAIN for node in proto.graph.node)
    assert all(entry.domain != DOMAIN for entry in proto.opset_import)


@pytest.mark.parametrize(("n_draws", "n_recordings"), [(1, 1), (2, 3), (25, 1), (3, 20)])
def test_parts_give_the_same_as_all_at_once(proto, n_draws, n_recordings):
    """Also where the last part is not full, and where one draw is more than a part."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options)
    data, noise = example(n_draws, n_recordings)
    (found,) = session.run(None, {"data": data.numpy(), "noise": noise.numpy()})
    expected = Sampler()(data, noise).numpy()
    assert found.shape == (n_draws + 4, n_recordings, *SHAPE)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
