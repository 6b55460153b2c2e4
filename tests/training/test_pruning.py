"""A narrower network that starts from the strongest units of a wider one."""

import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.models.convdip import ConvDip
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.models.piunet import PhysicsInformedUNet
from deepesi.physics.cohort import Cohort
from deepesi.physics.head_inputs import prepare
from deepesi.training.pruning import start_from_strongest
from deepesi.training.run import fit
from deepesi.training.weights import load_network
from tests.training.toy import compose, weights


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi16")


def convdip(**settings):
    torch.manual_seed(0)
    return ConvDip(n_dipoles=84, **({"height": 6, "width": 6, "hidden": 16} | settings)).eval()


def unet(**settings):
    torch.manual_seed(0)
    settings = {"spacing": 0.04, "n_x": 8, "n_y": 8, "n_z": 8} | settings
    return PhysicsInformedUNet(**settings).eval()


def estimate(model, head):
    data = torch.randn(3, head.n_channels, 2, generator=torch.Generator().manual_seed(1))
    return model(data * head.noise_level, as_tensors(prepare(model.head_inputs, head)))


@pytest.mark.parametrize("heteroscedastic", [False, True])
def test_leaving_out_what_does_nothing_changes_nothing(head, heteroscedastic):
    """Filters, and the channels that they lead to, of which a third is silent."""
    wide = convdip(n_filters=6, heteroscedastic=heteroscedastic)
    with torch.no_grad():
        torch.nn.init.normal_(wide.last.weight)
        for silent in (1, 4):
            wide.convolution.weight[silent] = 0
            wide.convolution.bias[silent] = 0
    before = {k: v.clone() for k, v in wide.state_dict().items()}
    narrow = convdip(n_filters=4, heteroscedastic=heteroscedastic)
    torch.nn.init.zeros_(narrow.last.weight)
    start_from_strongest(narrow, wide, head)
    expected, found = estimate(wide, head), estimate(narrow, head)
    for theirs, ours in zip(expected, found, strict=True):
        if theirs is not None:
            torch.testing.assert_close(
                ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max())
            )
    assert before.keys() == wide.state_dict().keys()
    assert all(torch.equal(v, wide.state_dict()[k]) for k, v in before.items())


def test_the_strongest_units_are_kept_together(head):
    """Units of the residual stream, which all blocks add to, are the same ones in every layer."""
    wide, strong = convdip(hidden=20), [0, 3, 7, 8, 13, 19]
    with torch.no_grad():
        for block in wide.blocks:
            block[3].weight[strong] *= 10
        wide.first.weight[strong] *= 10
    narrow = convdip(hidden=6)
    start_from_strongest(narrow, wide, head)
    assert torch.equal(narrow.first.weight, wide.first.weight[strong])
    assert torch.equal(narrow.last.weight, wide.last.weight[:, strong])
    for ours, theirs in zip(narrow.blocks, wide.blocks, strict=True):
        assert torch.equal(ours[0].weight, theirs[0].weight[strong])
        within = [int((theirs[1].bias == bias).nonzero()) for bias in ours[1].bias]
        assert torch.equal(ours[1].weight, theirs[1].weight[within][:, strong])
        assert torch.equal(ours[3].weight, theirs[3].weight[strong][:, within])


@pytest.mark.parametrize("hidden", range(1, 16))
def test_every_width(head, hidden):
    """Exactly as many units as asked for, whatever the share."""
    start_from_strongest(convdip(hidden=hidden), convdip(hidden=16), head)


@pytest.mark.parametrize(("base", "narrower"), [(8, 4), (12, 8), (16, 4)])
def test_unet_is_followed_through_its_halvings(head, base, narrower):
    wide, narrow = unet(base_channels=base), unet(base_channels=narrower)
    start_from_strongest(narrow, wide, head)
    assert torch.isfinite(estimate(narrow, head).mean).all()
    entered = wide.unet.input_block.convolution.weight
    assert all(
        any(torch.equal(a, b) for b in entered) for a in narrow.unet.input_block.convolution.weight
    )
    assert torch.equal(narrow.first.weight, wide.first.weight)  # where no width differs


@pytest.mark.parametrize(
    ("narrow", "wide", "message"),
    [
        (convdip(hidden=8), convdip(hidden=8), "no width differs. Make the network narrower"),
        (convdip(hidden=16), convdip(hidden=8), r"would be larger: .*first.weight \(16, 290\)"),
        (convdip(n_hidden=1), convdip(), "a ConvDip with 14 arrays .* from a ConvDip with 20"),
        (convdip(), unet(), "cannot start from a PhysicsInformedUNet"),
        (
            UnrolledMatchedFilter(hidden=12),
            UnrolledMatchedFilter(hidden=24),
            "units cannot be traced",
        ),
    ],
)
def test_other_networks_are_refused(head, narrow, wide, message):
    with pytest.raises(ValueError, match=message):
        start_from_strongest(narrow, wide, head)


@pytest.mark.slow
def test_training_starts_from_a_wider_run(toy, toy_path, tmp_path):
    cohort = Cohort.single(toy)
    fit(compose(toy_path, tmp_path / "wide"), cohort, tmp_path / "wide")
    wide = tmp_path / "wide" / "checkpoints" / "last.ckpt"
    asked = ["experiment=prune", f"pruned_from={wide}", "model.hidden=8"]
    still = [*asked, "trainer.learning_rate=1e-30", "trainer.weight_decay=0"]
    best = fit(compose(toy_path, tmp_path / "narrow", *still), cohort, tmp_path / "narrow")
    narrow, _ = load_network(best, toy.space)
    rows = weights(wide)["model.first.bias"]
    assert all((rows == bias).any() for bias in narrow.first.bias)

    other = [*asked, "model.output_scale=0.2"]
    with pytest.raises(ValueError, match="widths only, but model.output_scale was 0.1, now"):
        fit(compose(toy_path, tmp_path / "x", *other), cohort, tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="there is no nowhere"):
        fit(compose(toy_path, tmp_path / "x", asked[0], "pruned_from=nowhere"), cohort, tmp_path)

    # A run that goes on has its weights, and asks no more where they once came from.
    ckpt = tmp_path / "narrow" / "checkpoints" / "last.ckpt"
    on = [asked[0], "pruned_from=nowhere", *still[2:], f"ckpt={ckpt}"]
    fit(compose(toy_path, tmp_path / "on", *on), cohort, tmp_path / "on")
