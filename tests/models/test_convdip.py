import pytest
import torch

from deepesi.models.convdip import ConvDip


def make(**settings):
    torch.manual_seed(0)
    return ConvDip(n_dipoles=84, height=8, width=8, hidden=32, **settings)


def test_standard_deviation_is_an_addition(simulate):
    """The same weights are drawn, and the same mean is estimated, with it and without."""
    plain, both = make(), make(heteroscedastic=True)
    added = {"last_std.weight", "last_std.bias"}
    assert both.state_dict().keys() - plain.state_dict().keys() == added
    assert all(torch.equal(v, both.state_dict()[k]) for k, v in plain.state_dict().items())
    batch = simulate(plain.head_inputs, n_times=3).batch(0)
    alone, estimate = (model(batch.data, batch.inputs) for model in (plain, both))
    assert alone.std is None
    assert torch.equal(alone.mean, estimate.mean)
    assert estimate.std.shape == (8, 84, 3)
    assert (estimate.std > 0).all()


def test_standard_deviation_depends_on_the_recording(simulate):
    model = make(heteroscedastic=True)
    torch.nn.init.normal_(model.last_std.weight)
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    std = model(batch.data, batch.inputs).std
    assert (std.std(dim=0) > 0).all()
    assert (std.std(dim=2) > 0).all()


@pytest.mark.parametrize("size", ["n_dipoles", "height", "width", "n_filters", "hidden"])
def test_sizes_that_are_not_positive_are_refused(size):
    with pytest.raises(ValueError, match=rf"ConvDip: all sizes must be 1 or more, .*'{size}': 0"):
        ConvDip(**({"n_dipoles": 84} | {size: 0}))


def test_an_output_of_one_stands_for_the_moment_that_was_asked_for(simulate):
    """With the same weights the map keeps its shape."""
    plain, scaled = make(heteroscedastic=True), make(heteroscedastic=True, output_scale=0.1)
    assert all(torch.equal(v, scaled.state_dict()[k]) for k, v in plain.state_dict().items())
    batch = simulate(plain.head_inputs, n_times=3).batch(0)
    whole, tenth = (model(batch.data, batch.inputs) for model in (plain, scaled))
    torch.testing.assert_close(tenth.mean, 0.1 * whole.mean)
    torch.testing.assert_close(tenth.std, 0.1 * whole.std)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match=f"ConvDip: output_scale must be above 0, got {scale}"):
        make(output_scale=scale)
