"""Attributions against closed forms, and against captum where it has the method."""

from dataclasses import replace

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.sparse_regression import SparseRegression
from deepesi.core.contracts import as_tensors
from deepesi.core.onnx_model import load_onnx
from deepesi.interpret.any_model.frames import frame_at
from deepesi.interpret.any_model.occlusion import filled, moving_sensors, occluded, occlusion
from deepesi.interpret.any_model.targets import Moment, Power, Share, explained, neighbourhood
from deepesi.interpret.networks.deep_lift import deep_lift
from deepesi.interpret.networks.gradients import (
    AGAINST_BASELINES,
    completeness,
    deep_lift_attribution,
    integrated_gradients,
    noise_recordings,
    run_of_model,
    saliency,
)
from deepesi.models.convdip import ConvDip
from deepesi.models.gnn import SensorGNN
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.channel_check import channel_precision, predicted_channels
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.packaged import model_path

LINEAR = MinimumNorm(regularization="constant", snr_db=10)
#: Radii of the toy head's sources, 25 mm apart.
WIDE = {"smallest": 0.03, "largest": 0.06}


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi16")


@pytest.fixture(scope="module")
def data(head):
    """A source at 12 dB, three samples."""
    rng = np.random.default_rng(0)
    signal = head.leadfield[:, [7]] * [1.0, 2.0, 0.5]
    noise = head.sensors.reference(rng.standard_normal((16, 3)))
    return 1e-6 * (4 * signal / np.abs(signal).max() + noise)


@pytest.fixture(scope="module")
def fill(head, data):
    return filled(data, channel_precision(head))


def torch_function(model, head, data, target, sample=1):
    inputs = as_tensors(prepare(model.head_inputs, head))
    return explained(frame_at(data, sample, 3), run_of_model(model, inputs), target)


def numpy_function(model, head, data, target, sample=1):
    function = torch_function(model, head, data, target, sample)

    def on_arrays(batch):
        with torch.no_grad():
            return function(torch.tensor(batch, dtype=torch.float32)).double().numpy()

    return on_arrays


def networks():
    torch.manual_seed(0)
    convdip = ConvDip(n_dipoles=84, height=8, width=8, hidden=32)
    nn.init.normal_(convdip.last.weight)  # outputs of order one instead of the near-zero start
    gnn = SensorGNN(**WIDE, n_components=1, n_rounds=1)
    return {"ConvDip": convdip, "GNN": gnn, "ISTA": UnrolledISTA(**WIDE, n_steps=2)}


def test_every_gradient_method_gives_the_kernel_of_a_linear_model(head, data, fill):
    """Row of the kernel times the difference from the baseline; saliency: times the noise."""
    kernel = prepare(LINEAR.head_inputs, head)[LINEAR.kernels.key][0]
    function = torch_function(LINEAR, head, data, Moment(7))
    baselines = noise_recordings(head.noise_cov, 3, 4)
    noise_std = np.sqrt(head.noise_cov.diagonal())
    at_sample = np.zeros((16, 3))
    at_sample[:, 1] = kernel[7]
    expected = at_sample * (data - baselines.mean(0))
    for method in (integrated_gradients, deep_lift_attribution):
        found = method(function, data, baselines)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    expected = at_sample * noise_std[:, None]
    found = saliency(function, data, noise_std)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_occlusion_of_a_linear_model_is_the_kernel_times_the_lost_part(head, data, fill):
    kernel = prepare(LINEAR.head_inputs, head)[LINEAR.kernels.key][0]
    function = numpy_function(LINEAR, head, data, Moment(7))
    referenced = kernel[7] - kernel[7].mean()
    expected = referenced * (data - fill)[:, 1]
    found = occlusion(function, data, fill, head.sensors)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5 * np.abs(expected).max())
    assert (found == found[:, :1]).all()
    by_sample = occlusion(function, data, fill, head.sensors, n_spans=3)
    np.testing.assert_allclose(by_sample[:, 1], expected, atol=1e-5 * np.abs(expected).max())
    assert np.abs(by_sample[:, [0, 2]]).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["ConvDip", "GNN", "ISTA"])
@pytest.mark.parametrize("method", AGAINST_BASELINES)
def test_contributions_add_up_to_the_explained_value(name, method, head, data):
    model, data = networks()[name], data[:, [1]]
    target = Share(neighbourhood(head.source_pos, 7, 0.03), 1)
    function = torch_function(model, head, data, target, 0)
    baselines = noise_recordings(head.noise_cov, 1, 2)
    found = AGAINST_BASELINES[method](function, data, baselines)
    assert np.abs(found).max() > 1e-3
    assert completeness(function, data, baselines, found) < 0.05
    assert completeness(function, data, baselines, 2 * found) > 0.05


class Activations(nn.Module):
    """Activations that are modules, each used once, as captum's DeepLift needs them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Tanh()
        )
        self.last = nn.Linear(8, 1)

    def forward(self, data):
        return self.last(self.layers(data))[:, 0]


def test_deep_lift_equals_that_of_captum_where_it_has_the_rule():
    network, rng = Activations(), torch.Generator().manual_seed(1)
    data, baselines = torch.randn(2, 5, 6, generator=rng).unbind(0)
    expected = captum.attr.DeepLift(network).attribute(data, baselines)
    torch.testing.assert_close(deep_lift(network, data, baselines), expected.detach())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, 0] * x[:, 1] / (1 + x[:, 2] ** 2),
        lambda x: 1 / (0.5 + x[:, 0].exp()) + x[:, 1].abs().sqrt(),
        lambda x: torch.softmax(x, dim=1)[:, 1] * torch.relu(x[:, 0]),
        lambda x: torch.logsumexp(2 * x, dim=1),
        lambda x: torch.einsum("bi,bi->b", x, x) / x.norm(dim=1),
    ],
)
def test_deep_lift_adds_up_over_functions_and_products(function):
    rng = torch.Generator().manual_seed(0)
    data, baselines = torch.randn(2, 20, 3, generator=rng, dtype=torch.float64).unbind(0)
    found = deep_lift(function, data, baselines).sum(1)
    torch.testing.assert_close(found, function(data) - function(baselines), atol=2e-3, rtol=0)


def test_saliency_equals_that_of_captum(head, data):
    noise_std = np.sqrt(head.noise_cov.diagonal())
    function = torch_function(networks()["ConvDip"], head, data, Share((3, 4), 1))
    tensor = torch.tensor(data[None], dtype=torch.float32, requires_grad=True)
    expected = captum.attr.Saliency(function).attribute(tensor, abs=False)[0].double().numpy()
    found = saliency(function, data, noise_std)
    np.testing.assert_allclose(found, expected * noise_std[:, None], rtol=1e-5, atol=1e-12)


def test_occlusion_equals_the_ablation_of_captum(head, data, fill):
    function = torch_function(networks()["ConvDip"], head, data, Power((3, 4), 1))
    tensor, filling = (torch.tensor(v[None], dtype=torch.float32) for v in (data, fill))
    features = torch.arange(16)[None, :, None].expand(1, 16, 3)

    def referenced(batch):
        return function(batch - batch.mean(1, keepdim=True)) * 1e18

    expected = captum.attr.FeatureAblation(referenced).attribute(
        tensor, baselines=filling, feature_mask=features
    )
    found = occlusion(
        numpy_function(networks()["ConvDip"], head, data, Power((3, 4), 1)),
        data,
        fill,
        head.sensors,
    )
    scale = float(expected.abs().max())
    np.testing.assert_allclose(1e18 * found, expected[0].numpy(), atol=1e-3 * scale)


def test_a_lost_sensor_is_predicted_by_the_others(head, data):
    """The conditional mean of a Gaussian of any reference, for one channel and for several."""
    precision = channel_precision(head)
    covariance = np.linalg.pinv(precision, rcond=1e-12, hermitian=True)
    covariance += 1e4 * np.trace(covariance)  # the same potential at all channels
    for lost in ([3], [0, 5, 9]):
        rest = np.setdiff1d(np.arange(16), lost)
        gain = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest][:, lost]).T
        found = predicted_channels(precision, data, lost)
        np.testing.assert_allclose(found, gain @ data[rest], atol=1e-3 * np.abs(data).max())
    batch = occluded(data, filled(data, precision), head.sensors)
    assert batch.shape == (16, 16, 3)
    assert np.abs(batch.sum(1)).max() < 1e-18


def test_sensors_whose_loss_moves_the_peak(head):
    positions = head.source_pos
    moments, without = np.zeros(84), np.zeros((3, 84))
    moments[5] = without[0, 5] = without[1, 6] = without[2, 40] = -1e-9
    lost = moving_sensors(moments, without, positions, 1, 0.001)
    distances = [np.linalg.norm(positions[5] - positions[k]) for k in (40, 6)]
    assert [(s.sensor, s.peak) for s in lost] == [(2, 40), (1, 6)]
    np.testing.assert_allclose([s.distance for s in lost], distances)
    assert moving_sensors(moments, without, positions, 1, distances[1] + 1e-6) == lost[:1]


def test_targets_with_free_orientation():
    moments = np.array([[3.0, 0, 4.0, 0, 0, 12.0]]) * 1e-9  # magnitudes 5 and 12 nAm
    assert Moment(2)(moments) == pytest.approx(4e-9)
    assert Power((0, 1), 3)(moments) == pytest.approx(169e-18)
    assert Share((1,), 3)(moments) == pytest.approx(144 / 169)
    assert Share((1,), 3)(torch.tensor(moments)).item() == pytest.approx(144 / 169)
    assert Share((1,), 3)(0 * moments) == 0


def test_a_frame_gives_the_estimate_of_the_sample(head, data):
    """Windows overlap as in `overlap_add`; the estimate of a linear model needs its sample only."""
    kernel = prepare(LINEAR.head_inputs, head)[LINEAR.kernels.key][0]
    long = np.tile(data, 7)
    frame = frame_at(long, 11, 6)
    assert frame.starts == (0, 3)
    assert frame.data.shape == (16, 9)
    moments = frame.moments(lambda batch: kernel @ batch, frame.data[None])
    np.testing.assert_allclose(moments[0], kernel @ long[:, 11], atol=1e-20)
    assert frame_at(long, 11, None).data.shape == (16, 1)
    with pytest.raises(ValueError, match="sample 21 of a recording of 21 samples"):
        frame_at(long, 21, 6)


def test_noise_recordings_have_the_covariance_of_the_noise(head):
    drawn = noise_recordings(head.noise_cov, 5, 4000)
    assert np.abs(drawn.mean(0)).max() < 1e-18  # in pairs
    found = np.einsum("nct,ndt->cd", drawn, drawn) / (5 * 4000)
    np.testing.assert_allclose(found, head.noise_cov, atol=0.05 * head.noise_cov.max())


def test_models_without_gradients_are_refused():
    packaged = load_onnx(model_path("convdip"))
    with pytest.raises(
        ValueError, match=r"convdip.onnx is an exported file.*torch.*Occlusion runs"
    ):
        run_of_model(packaged, {})
    with pytest.raises(ValueError, match="SparseRegression computes in NumPy and has no gradients"):
        run_of_model(SparseRegression(), {})


def test_wrong_fill_and_spans_are_refused(head, data):
    with pytest.raises(ValueError, match=r"fill of shape \(16, 1\) and 1 spans"):
        occluded(data, data[:, :1], head.sensors)
    with pytest.raises(ValueError, match=r"4 spans for data of shape \(16, 3\).*1 to 3 spans"):
        occluded(data, data, replace(head).sensors, 4)
