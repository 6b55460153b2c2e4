import math

import pytest
import torch
from scipy.stats import kstest, spearmanr, truncnorm

from deepesi.data_gen.heads import HeadOnDevice
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.family import NOMINAL, Tissues


def draw(n=20000, **settings):
    return TissueRanges(**settings).draw(n, torch.Generator().manual_seed(0)).double()


def test_distributions():
    skull, thickness, scalp, brain = draw().T
    low, high = math.log(0.003), math.log(0.03)
    assert kstest((skull.log() - low) / (high - low), "uniform").pvalue > 1e-3
    cut = truncnorm((0.0036 - 0.00597) / 0.00119, (0.0084 - 0.00597) / 0.00119, 0.00597, 0.00119)
    assert kstest(thickness, cut.cdf).pvalue > 1e-3
    assert kstest((brain - 0.33) / 0.14, "uniform").pvalue > 1e-3
    assert scalp.min() >= 0.28
    assert scalp.max() <= 0.6


def test_thickness_goes_with_conductivity():
    skull, thickness, scalp, _ = draw().T
    # The rank correlation of normal scores with rho 0.52 is 6/pi asin(rho/2).
    expected = 6 / math.pi * math.asin(0.26)
    assert spearmanr(skull, thickness).statistic == pytest.approx(expected, abs=0.02)
    assert abs(spearmanr(skull, scalp).statistic) < 0.02


def test_narrow_ranges_hold_the_nominal():
    drawn = TissueRanges().draw(500, torch.Generator().manual_seed(0), width=0.0)
    assert torch.allclose(drawn, torch.tensor(list(vars(NOMINAL).values())))
    half = TissueRanges().draw(500, torch.Generator().manual_seed(0), width=0.5)
    full = TissueRanges().draw(500, torch.Generator().manual_seed(0))
    assert half[:, 0].log().std() == pytest.approx(full[:, 0].log().std().item() / 2, rel=1e-3)


def test_coefficients_equal_those_of_the_family(template):
    tissues = draw(5)
    found = HeadOnDevice(template).lead_fields.coefficients(tissues)
    for row, values in zip(found, tissues.tolist(), strict=True):
        expected = torch.as_tensor(template.family.coefficients(Tissues(*values)))
        assert torch.allclose(row.double(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skull_conductivity": (330, 400)}, r"skull_conductivity 330 to 400 .*S/m"),
        ({"skull_conductivity": (0.03, 0.003)}, "must be an ascending range"),
        ({"skull_thickness": (3.5, 8.5)}, r"skull_thickness 3.5 to 8.5 .*m \(6 mm is 0.006\)"),
        ({"scalp_conductivity": (280, 600)}, "scalp_conductivity 280 to 600"),
        ({"thickness_correlation": 2}, "thickness_correlation 2 must lie within -1 to 1"),
    ],
)
def test_ranges_out_of_order_or_unit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TissueRanges(**settings)
