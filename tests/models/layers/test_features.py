"""Time-frequency inputs against MNE-Python and SciPy."""

import numpy as np
import pytest
import torch
from mne.time_frequency import psd_array_multitaper, tfr_array_morlet
from scipy.signal import firwin, hilbert

from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.models.gnn import SensorGNN
from deepesi.models.layers.features import Hilbert, Morlet, Multitaper, Raw
from deepesi.models.transformer import SourceTransformer

SFREQ = 250.0
FEATURES = {"raw": Raw, "morlet": Morlet, "hilbert": Hilbert, "multitaper": Multitaper}


@pytest.fixture(scope="module")
def data():
    return torch.randn(2, 3, 250, generator=torch.Generator().manual_seed(0))


def close(found, expected):
    scale = np.abs(expected).max()
    assert np.abs(np.asarray(found) - expected).max() <= 1e-4 * scale


def test_morlet_is_mnes(data):
    term = Morlet([8.0, 20.0], n_cycles=3.0)
    real, imaginary = term.parts(data).unbind(3)
    expected = tfr_array_morlet(
        data.double().numpy(), SFREQ, [8.0, 20.0], 3.0, zero_mean=True, output="complex"
    )
    close(torch.complex(real, imaginary).numpy(), expected)
    assert term(data).shape == (2, 3, 2, 500)


def test_multitaper_is_mnes(data):
    band = (8.0, 13.0)
    power = Multitaper([band], bandwidth=4.0)(data).square().mean(3)[..., 0]
    settings = {"bandwidth": 4.0, "adaptive": False, "remove_dc": False, "normalization": "full"}
    density, _ = psd_array_multitaper(
        data.double().numpy(), SFREQ, *band, **settings, verbose="error"
    )
    close(power, density.mean(2) * SFREQ / 2)


def test_multitaper_takes_stretches_of_long_windows(data):
    term = Multitaper([(8.0, 13.0), (4.0, 40.0)], length=100, bandwidth=5.0)
    parts = [term(data[..., start : start + 100]) for start in (0, 50, 100, 150)]
    power = torch.stack([part.square().mean(3) for part in parts]).mean(0)
    torch.testing.assert_close(term(data).square().mean(3), power)


def test_hilbert_is_scipys(data):
    """Envelope and phase of the filtered data; silence at both ends, as SciPy's is periodic."""
    term = Hilbert([(8.0, 13.0)], length=501)
    long = torch.randn(1, 1, 2000, generator=torch.Generator().manual_seed(1))
    long[..., :600] = long[..., 1400:] = 0.0
    envelope, phase = (part[0, 0, 0] for part in term.envelope_and_phase(long))
    time = (np.arange(501) - 250) / SFREQ
    taps = 2 * firwin(501, 2.5, window="blackmanharris", fs=SFREQ) * np.cos(2 * np.pi * 10.5 * time)
    filtered = np.convolve(long[0, 0].double().numpy(), taps, "same")
    analytic = hilbert(filtered)
    inside = slice(600, 1400)
    close(envelope[inside], np.abs(analytic)[inside])
    turned = np.angle(np.exp(1j * (phase.double().numpy() - np.angle(analytic))))
    strong = np.abs(analytic) > 0.1 * np.abs(analytic).max()
    assert np.abs(turned[inside][strong[inside]]).max() < 1e-2


@pytest.mark.parametrize("name", FEATURES)
def test_white_noise_has_the_same_power_in_groups_of_one_kind(name):
    noise = torch.randn(1, 64, 1000, generator=torch.Generator().manual_seed(0))
    features = FEATURES[name]()
    power = features(noise).square().mean((0, 1, 3))
    assert power.shape == (features.n_groups,)
    if name in ("raw", "multitaper"):
        assert ((power - 1).abs() < 0.1).all()


@pytest.mark.parametrize("name", FEATURES)
def test_linear_and_differentiable(name, data):
    features, other = FEATURES[name](), data.roll(1, 2)
    both = features(data + 2 * other)
    torch.testing.assert_close(both, features(data) + 2 * features(other), rtol=1e-3, atol=1e-4)
    leaf = data.clone().requires_grad_()
    features.log_powers(leaf, 1e-2).sum().backward()
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad != 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["morlet", "hilbert", "multitaper"])
@pytest.mark.parametrize("network", [SourceTransformer, SensorGNN])
def test_networks_with_filters_are_exported(network, name, toy, simulate, tmp_path):
    """At other lengths, batches and montages than traced; stretches are cut by the graph, too."""
    sizes = {"smallest": 0.03, "largest": 0.06, "n_components": 1, "n_rounds": 1}
    model, path = network(**sizes, features=FEATURES[name]()).eval(), tmp_path / "x.onnx"
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    contract = export_onnx(model, toy.montage_head("biosemi16"), path)
    assert contract.window_needs == model.window_needs
    for montage, size, n_times in (("biosemi32", 2, 251), ("fsaverage_1020", 1, 517)):
        batch = simulate([], montage=montage, batch_size=size, n_times=n_times).batch(0)
        assert check_parity(model, path, batch, n_timed=1).max_difference <= 1e-5


@pytest.mark.parametrize("name", ["morlet", "hilbert", "multitaper"])
def test_a_short_window_names_the_least_length(name, data):
    features = FEATURES[name]()
    short = data[..., : features.least - 1]
    with pytest.raises(ValueError, match=rf"It needs {features.least} samples or more"):
        features(short)
    assert torch.isfinite(features(data[..., : features.least])).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Morlet([130.0]), r"Morlet: frequencies must be .* below 125 Hz \(Nyquist"),
        (lambda: Hilbert([(10.0, 10.0)]), r"Hilbert: bands must be in order, .* got 10 to 10 Hz"),
        (lambda: Multitaper([(8.1, 8.1)]), r"Multitaper: bands must be in order"),
        (lambda: Morlet(n_cycles=0.0), "n_cycles must be above 0"),
        (lambda: Hilbert([(100.0, 140.0)]), r"Hilbert: bands must be .* got 100 to 140 Hz"),
        (lambda: Hilbert([(8.0, 10.0)]), "odd and at least 250 taps to resolve a band of 2 Hz"),
        (lambda: Multitaper([(13.0, 8.0)]), "Multitaper: bands must be in order"),
        (lambda: Multitaper(bandwidth=0.5), "It needs 500 samples or more"),
        (lambda: Multitaper([(8.1, 8.2)]), r"250 samples have no frequency from 8.1 to 8.2"),
    ],
)
def test_bands_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["morlet", "hilbert", "multitaper"])
@pytest.mark.parametrize("network", [SourceTransformer, SensorGNN])
def test_networks_take_them(network, name, simulate):
    features = FEATURES[name]()
    model = network(smallest=0.03, largest=0.06, features=features)
    batch = simulate(model.head_inputs, n_times=250, batch_size=2).batch(0)
    model(batch.data, batch.inputs).mean.square().sum().backward()
    embed = model.embed if network is SensorGNN else model.trunk.embed
    gradient = embed.weight.grad[:, -features.n_groups :]
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()
