"""Every loss term against known values, its gradient, and every objective in training."""

import importlib
import pkgutil
from dataclasses import fields, replace
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from torch.distributions import Normal

import deepesi.configs
import deepesi.losses
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.quantities import magnitude
from deepesi.losses.alignment import MaximumMeanDiscrepancy, SkullAlignment
from deepesi.losses.anatomy import CurvatureSmoothness, OffCortexRidge
from deepesi.losses.base import LossTerm, WeightedSum
from deepesi.losses.distillation import Distillation
from deepesi.losses.physics import Reprojection
from deepesi.losses.smoothness import SpatialVariation, SurfaceLaplacian, TemporalDifference
from deepesi.losses.sparsity import GroupSparsity
from deepesi.losses.spectral import SpectralDistance
from deepesi.losses.supervised import CosineDistance, NormalizedL1, NormalizedL2
from deepesi.losses.transport import RESOLVED, EnergyDistance, PeakDistance, PeakTransport
from deepesi.losses.uncertainty import GaussianNLL
from deepesi.metrics.functional import nemd
from deepesi.physics.cohort import Cohort
from deepesi.physics.graph import adjacency, distances_mm
from deepesi.training.run import fit, plain
from tests.conftest import slow


class BackProjection(InverseModel):
    """A teacher: the matched filter of every source."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = Reprojection().gain
        self.head_inputs = (self.gain,)

    def forward(self, data, inputs):
        gain = inputs[self.gain.key]
        return Estimate(gain.T @ data / gain.square().sum(0).mean())


TERMS = {
    "L1": NormalizedL1(),
    "L2": NormalizedL2(),
    "cosine": CosineDistance(),
    "reprojection": Reprojection(),
    "true reprojection": Reprojection(leadfield="true"),
    "Laplacian": SurfaceLaplacian(),
    "spatial variation": SpatialVariation(),
    "temporal difference": TemporalDifference(),
    "group sparsity": GroupSparsity(),
    "NLL": GaussianNLL(),
    "energy": EnergyDistance(),
    "peak transport": PeakTransport(),
    "peak distance": PeakDistance(),
    "distillation": Distillation(BackProjection()),
    "spectral": SpectralDistance(bands=[(50.0, 125.0)], segments=[2, 3]),
    "skull alignment": SkullAlignment(MaximumMeanDiscrepancy(("gaussian", "laplace"))),
    "curvature": CurvatureSmoothness(),
    "off the cortex": OffCortexRidge(),
}
OBJECTIVES = sorted(p.stem for p in (Path(deepesi.configs.__file__).parent / "loss").glob("*.yaml"))
DECLARED = [d for term in TERMS.values() for d in term.head_inputs]
every_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)


@pytest.fixture(scope="module")
def batch(simulate):
    return simulate(DECLARED, n_times=3).batch(0)


@pytest.fixture(scope="module")
def free(toy):
    """The toy head with three components per source, with lead fields of their own."""
    mixing = np.random.default_rng(0).normal(size=(84, 3, 1))
    modes = (mixing * toy.family.source_modes[:, None]).reshape(252, -1)
    return replace(
        toy,
        family=replace(toy.family, source_modes=modes),
        space=replace(toy.space, n_orient=3),
    )


@pytest.fixture(scope="module", params=[1, 3], ids=["fixed", "free"])
def any_batch(request, toy, free, simulate):
    return simulate(DECLARED, heads=toy if request.param == 1 else free, n_times=3).batch(0)


def at(batch, factor):
    std = 0.3 * batch.sources.abs().amax((1, 2), keepdim=True)
    return Estimate(factor * batch.sources, std.expand_as(batch.sources))


def at_sources(batch, *numbers):
    """One unit of moment at some of the sources, in the first sample."""
    values = torch.zeros_like(batch.sources)
    values[:, list(numbers), 0] = 1e-9
    return values


def close(values, expected, tolerance=1e-5):
    return torch.allclose(values, torch.as_tensor(expected).float(), atol=tolerance)


def in_double(batch):
    """Units of order one in double precision, so that finite differences are exact enough."""
    scale = batch.sources.abs().max()
    true = {
        f.name: getattr(batch.true_leadfield, f.name).double() for f in fields(batch.true_leadfield)
    }
    return replace(
        batch,
        data=batch.data.double() / scale,
        sources=batch.sources.double() / scale,
        inputs={k: v.double() if v.is_floating_point() else v for k, v in batch.inputs.items()},
        true_leadfield=type(batch.true_leadfield)(**true),
    )


def test_every_term_of_the_package_is_tested():
    for module in pkgutil.walk_packages(deepesi.losses.__path__, "deepesi.losses."):
        importlib.import_module(module.name)
    terms = {k for k in LossTerm.__subclasses__() if k.__module__.startswith("deepesi.")}
    assert terms == {type(term) for term in TERMS.values()}


@every_term
def test_gradients(any_batch, term):
    """Along a random direction the gradient is the slope, of the mean and of the std."""
    torch.manual_seed(0)
    wide = in_double(any_batch)
    start = [
        wide.sources + 0.1 * torch.randn_like(wide.sources),
        0.1 + 0.1 * torch.rand_like(wide.sources),
    ]
    start = [x.requires_grad_() for x in start]
    directions = [torch.randn_like(x) for x in start]

    def value(step):
        moved = (x + step * d for x, d in zip(start, directions, strict=True))
        return term(Estimate(*moved), wide).sum()

    gradients = torch.autograd.grad(value(0.0), start, allow_unused=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    with torch.no_grad():
        measured = (value(1e-6) - value(-1e-6)) / 2e-6
    assert slope.item() == pytest.approx(measured.item(), rel=1e-4)


@every_term
def test_an_estimate_of_zero_can_be_learned_from(any_batch, term):
    zero = torch.zeros_like(any_batch.sources, requires_grad=True)
    std = torch.zeros_like(zero, requires_grad=True)
    value = term(Estimate(zero, std), any_batch)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(zero.grad).all()


@every_term
def test_one_value_per_example_whatever_the_scale(any_batch, term):
    small = replace(any_batch, data=1e-3 * any_batch.data, sources=1e-3 * any_batch.sources)
    value, same = term(at(any_batch, 0.5), any_batch), term(at(small, 0.5), small)
    assert value.shape == (8,)
    assert torch.allclose(value, same, rtol=1e-4, atol=1e-6)


@every_term
def test_orientations_of_a_source_belong_together(free, simulate, term):
    """Turning the axes of all sources, lead fields with them, changes only what sums magnitudes."""
    batch = simulate(DECLARED, heads=free, n_times=3).batch(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]

    def turned(values):  # (..., D, T)
        return (rotation @ values.unflatten(-2, (-1, 3))).flatten(-3, -2)

    modes = turned(batch.true_leadfield.source_modes)
    gain = Reprojection().gain.key
    inputs = batch.inputs | {gain: turned(batch.inputs[gain].mT.contiguous()).mT}
    other = replace(
        batch,
        sources=turned(batch.sources),
        inputs=inputs,
        true_leadfield=replace(batch.true_leadfield, source_modes=modes),
    )
    estimate = batch.sources.roll(3, 1)
    std = torch.full_like(estimate, 1e-9)
    first = term(Estimate(estimate, std), batch)
    second = term(Estimate(turned(estimate), std), other)
    per_component = isinstance(term, NormalizedL1 | GaussianNLL)
    assert per_component or torch.allclose(first, second, rtol=1e-3)


@pytest.mark.parametrize(
    ("term", "at_target", "at_double", "at_zero"),
    [
        (NormalizedL1(), 0, 1, 1),
        (NormalizedL2(), 0, 1, 1),
        (CosineDistance(), 0, 0, 1),
        (GroupSparsity(), 1, 2, 0),
        (EnergyDistance(), 0, 0, 1),
    ],
    ids=lambda t: type(t).__name__ if isinstance(t, LossTerm) else None,
)
def test_values_at_multiples_of_the_target(any_batch, term, at_target, at_double, at_zero):
    for factor, value in ((1, at_target), (2, at_double), (0, at_zero)):
        assert close(term(at(any_batch, factor), any_batch), value)


def test_cosine_of_the_opposite_is_two(batch):
    assert close(CosineDistance()(at(batch, -1), batch), 2)


@pytest.mark.parametrize("leadfield", ["nominal", "true"])
def test_reprojection_is_zero_where_the_lead_field_explains_the_data(any_batch, leadfield):
    gain = torch.as_tensor(any_batch.head.leadfield).float()
    sources = any_batch.sources
    explained = (
        gain @ sources if leadfield == "nominal" else any_batch.true_leadfield.project(sources)
    )
    exact, term = replace(any_batch, data=explained), Reprojection(leadfield)
    assert term(at(exact, 1), exact).max() < 1e-9
    assert close(term(at(exact, 0), exact), 1)
    assert close(term(at(exact, 3), exact), 4, 1e-4)


def test_the_true_lead_field_removes_the_mismatch_of_heads(batch):
    clean = replace(batch, data=batch.true_leadfield.project(batch.sources))
    assert Reprojection()(at(clean, 1), clean).min() > 1e-3
    assert Reprojection("true")(at(clean, 1), clean).max() < 1e-9


def test_unknown_lead_field_is_refused():
    with pytest.raises(ValueError, match=r"one of \['nominal', 'true'\], got 'best'"):
        Reprojection(leadfield="best")


def test_laplacian_equals_the_matrix(batch):
    links = torch.as_tensor(adjacency(batch.head.space.edges, 84).toarray()).float()
    matrix = torch.eye(84) - links / links.sum(1, keepdim=True)
    expected = (matrix @ batch.sources).square().sum((1, 2)) / batch.sources.square().sum((1, 2))
    assert torch.allclose(SurfaceLaplacian()(at(batch, 1), batch), expected, rtol=1e-4)


@pytest.mark.parametrize("term", [SurfaceLaplacian(), SpatialVariation()])
def test_a_constant_is_smooth(any_batch, term):
    flat = Estimate(torch.full_like(any_batch.sources, 1e-9))
    assert term(flat, any_batch).max() < 1e-6


def test_variation_of_a_point_counts_its_neighbours(batch):
    """Likewise that of the half of a brain that is on: its rim."""
    edges = batch.head.space.edges
    degree = np.bincount(edges.ravel(), minlength=84)
    point = replace(batch, sources=at_sources(batch, 7))
    assert close(SpatialVariation()(at(point, 1), point), degree[7] / degree.mean())
    half = at_sources(batch, *np.flatnonzero(batch.head.source_pos[:, 1] > 0))
    on = (half[0, :, 0] > 0).numpy()
    rim = (on[edges[:, 0]] != on[edges[:, 1]]).sum()
    assert 0 < rim < len(edges)
    assert close(SpatialVariation()(Estimate(half), point), rim / degree.mean(), 1e-4)


def test_variation_needs_a_mesh(batch):
    term = SpatialVariation()
    none = replace(batch, inputs={term.edges.key: torch.zeros(0, 2, dtype=torch.int64)})
    with pytest.raises(
        ValueError, match=r"SpatialVariation: the source space '.*' has no mesh edges"
    ):
        term(at(none, 1), none)


def test_change_in_time(batch):
    """2² for a change of sign, the square of the step of phase for a sinusoid, 0 for a constant."""
    signs, ones = torch.tensor([1.0, -1.0, 1.0]), torch.ones(3)
    pattern = batch.sources[..., :1]
    steady = replace(batch, sources=pattern * ones)
    term = TemporalDifference()
    assert close(term(Estimate(pattern * signs), steady), 2 * 4 / 3)
    assert close(term(at(steady, 1), steady), 0)
    phase = 2 * torch.pi * 10 * torch.arange(1000) / 250
    long = batch.data[..., :1].expand(-1, -1, 1000)
    slow = replace(batch, sources=pattern * phase.sin(), data=long)
    expected = (2 * torch.pi * 10 / 250) ** 2
    assert torch.allclose(term(at(slow, 1), slow), torch.tensor(expected), rtol=0.02)


def test_one_sample_has_nothing_to_change(simulate):
    batch = simulate(n_times=1).batch(0)
    estimate = batch.sources.clone().requires_grad_()
    value = TemporalDifference()(Estimate(estimate), batch)
    value.sum().backward()
    assert value.tolist() == [0.0] * 8
    assert not estimate.grad.any()


def test_group_norm_is_taken_over_orientation_and_time(free, simulate):
    batch = simulate(DECLARED, heads=free, n_times=3).batch(0)
    target, estimate = at_sources(batch, 30), torch.zeros_like(batch.sources)
    estimate[:, 6, 0], estimate[:, 8, 2] = 3e-9, 4e-9  # both of the third source
    estimate[:, 9, 1] = 1e-9
    value = GroupSparsity()(Estimate(estimate), replace(batch, sources=target))
    assert close(value, 5 + 1)


def test_likelihood_is_that_of_a_normal_distribution(any_batch):
    """Up to what an exact estimate that is sure of itself would get."""
    std, floor = 0.3, 0.01
    scale = any_batch.sources.abs().amax((1, 2), keepdim=True)
    total = (std**2 + floor**2) ** 0.5
    error = 0.4 * any_batch.sources / scale
    expected = Normal(0.0, floor).log_prob(torch.tensor(0.0)) - Normal(0.0, total).log_prob(error)
    value = GaussianNLL(floor)(at(any_batch, 1.4), any_batch)
    assert torch.allclose(value, expected.mean((1, 2)), rtol=1e-4)
    sure = Estimate(any_batch.sources, torch.zeros_like(any_batch.sources))
    assert close(GaussianNLL()(sure, any_batch), 0)


def test_likelihood_is_best_where_std_fits_errors(batch):
    target = torch.full_like(batch.sources, 1e-9)
    flat = replace(batch, sources=target)
    values = [
        GaussianNLL()(Estimate(1.2 * target, s * target), flat).mean()
        for s in (0.1, 0.19, 0.2, 0.21, 0.4)
    ]
    assert int(torch.stack(values).argmin()) == 2


def test_being_sure_of_silent_sources_has_a_bound(batch):
    """For sources that are zero, a standard deviation far below the floor gains nothing more."""
    silent = replace(batch, sources=at_sources(batch, 3))
    values = [
        GaussianNLL()(Estimate(silent.sources, torch.full_like(batch.sources, std)), silent)
        for std in (1e-10, 1e-14, 1e-17)
    ]
    assert (values[0] > values[1]).all()
    assert close(values[1] - values[2], 0)


@pytest.mark.parametrize("floor", [0.0, -0.1, float("nan"), float("inf")])
def test_likelihood_without_a_floor_is_refused(floor):
    with pytest.raises(ValueError, match="floor must be a fraction above 0, got"):
        GaussianNLL(floor=floor)


def test_likelihood_needs_a_standard_deviation(batch):
    with pytest.raises(ValueError, match=r"no standard deviation. Set model.heteroscedastic=true"):
        GaussianNLL()(Estimate(batch.sources), batch)


def test_energy_between_two_points(batch):
    """Twice their distance, over the energy between one of them and the uniform map."""
    distances = distances_mm(batch.head.source_pos, batch.head.source_pos)
    point, ratio = replace(batch, sources=at_sources(batch, 5)), []
    for other in (4, 40, 80):
        value = EnergyDistance()(Estimate(at_sources(batch, other)), point)
        expected = 2 * distances[5, other] / (2 * distances[5].mean() - distances.mean())
        assert close(value, expected, 5e-3)
        target, estimate = np.eye(84)[5], np.eye(84)[other]
        ratio.append(value.mean().item() / nemd(estimate, target, distances))
    assert max(ratio) == pytest.approx(min(ratio), rel=5e-3)


def with_peaks(batch, *peaks):
    """Equal points as target, listed as peaks beside an absent one."""
    rows = torch.tensor([[*peaks, -1]]).expand(len(batch.data), -1)
    sources = sum(at_sources(batch, peak) for peak in peaks)
    none = torch.zeros(rows.shape)
    scene = replace(batch.scene, peaks=rows, extents=none, moments=none)
    return replace(batch, sources=sources, scene=scene)


def test_peak_transport_to_one_point_is_the_normalized_earth_mover_s_distance(batch):
    distances = distances_mm(batch.head.source_pos, batch.head.source_pos)
    estimate = torch.rand(batch.sources.shape, generator=torch.Generator().manual_seed(0))
    estimate = estimate * at_sources(batch, 5).max()
    magnitudes = magnitude(estimate, 1).double().numpy()
    values = PeakTransport()(Estimate(estimate), with_peaks(batch, 5))
    for value, example in zip(values, magnitudes, strict=True):
        assert value.item() == pytest.approx(nemd(example, np.eye(84)[5], distances), rel=1e-3)


def test_peak_transport_pays_for_what_another_peak_lacks(batch):
    distances = distances_mm(batch.head.source_pos, batch.head.source_pos)
    two, mean = with_peaks(batch, 5, 70), distances[[5, 70]].min(axis=0).mean()
    one_only = PeakTransport()(Estimate(at_sources(batch, 5)), two)
    assert close(one_only, 0.5 * distances[5, 70] / mean, 5e-3)
    assert PeakTransport()(Estimate(two.sources), two).max() < 1e-2
    zero = PeakTransport()(Estimate(torch.zeros_like(two.sources)), two)
    uniform = PeakTransport()(Estimate(torch.ones_like(two.sources)), two)
    assert torch.allclose(zero, uniform, rtol=1e-4)


def test_peak_distance_is_the_localization_error_in_relative_terms(batch):
    """For one point: ``log(1 + d / d₀)`` over that of the uniform map, whatever else is faint."""
    distances = distances_mm(batch.head.source_pos, batch.head.source_pos)
    estimate = at_sources(batch, 11) + 0.05 * at_sources(batch, 40)
    value = PeakDistance()(Estimate(estimate), with_peaks(batch, 5))
    relative = np.log1p(distances[5, 11] / (1e3 * RESOLVED))
    assert close(value, relative / np.log1p(distances[5].mean() / (1e3 * RESOLVED)), 1e-3)
    uniform = PeakDistance()(Estimate(torch.ones_like(estimate)), with_peaks(batch, 5))
    assert close(uniform, 1.0, 1e-4)


def test_peak_distance_judges_every_peak_by_what_lies_nearest_to_it(batch):
    """Shares do not matter, and a peak that has nothing near it costs what a uniform map does."""
    two = with_peaks(batch, 5, 70)
    unequal = at_sources(batch, 5) + 0.1 * at_sources(batch, 70)
    assert PeakDistance()(Estimate(unequal), two).max() < 1e-2
    assert close(PeakDistance()(Estimate(at_sources(batch, 5)), two), 0.5, 2e-2)


def test_energy_of_the_uniform_map_is_one_and_of_a_share_its_square(batch):
    """Whatever the sign, and whether magnitude is spread over samples."""
    point = replace(batch, sources=at_sources(batch, 5))
    uniform = torch.zeros_like(batch.sources)
    uniform[:, ::2, 1], uniform[:, 1::2, 2] = 1.0, -1.0
    assert close(EnergyDistance()(Estimate(uniform), point), 1)
    target = point.sources / 1e-9
    mixed = 0.3 * uniform / 84 + 0.7 * target
    mixed[:, 5] = torch.tensor([0.7 + 0.3 / 84, 0.0, 0.0])
    assert close(EnergyDistance()(Estimate(mixed), point), 0.3**2)


def test_distillation_is_the_distance_to_the_teacher(any_batch):
    teacher = TERMS["distillation"]._teacher[0]
    said = teacher(any_batch.data, any_batch.inputs)
    assert TERMS["distillation"](said, any_batch).abs().max() < 1e-5
    to_truth = CosineDistance()(said, any_batch)  # the distance is alike in its arguments
    assert torch.allclose(TERMS["distillation"](at(any_batch, 1.0), any_batch), to_truth, atol=1e-5)
    other = Distillation(BackProjection(), NormalizedL2())
    assert other(said, any_batch).abs().max() < 1e-8
    assert (other(at(any_batch, 1.0), any_batch) > 1e-3).any()


class Silent(InverseModel):
    """Finds nothing."""

    head_inputs = ()

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, data, inputs):
        return Estimate(data.new_zeros(len(data), 84, data.shape[2]) * self.weight[0])


def test_a_teacher_stays_as_it_is_and_may_say_nothing(batch):
    term = Distillation(Silent())
    assert not list(term.parameters())
    assert not term.state_dict()
    estimate = Estimate(torch.randn_like(batch.sources, requires_grad=True))
    distance = term(estimate, batch)
    assert torch.equal(distance, CosineDistance()(estimate, batch))
    distance.sum().backward()
    assert term._teacher[0].weight.grad is None


def test_weighted_sum_and_its_log(batch):
    total = WeightedSum({"l1": NormalizedL1(), "l2": NormalizedL2()}, {"l1": 2.0, "l2": 0.5})
    value, log = total(at(batch, 0), batch)
    assert value.item() == pytest.approx(2.5)
    assert {k: v.item() for k, v in log.items()} == pytest.approx(
        {"raw/l1": 1, "raw/l2": 1, "weighted/l1": 2, "weighted/l2": 0.5}
    )


def test_weighted_sum_wants_one_weight_per_term():
    with pytest.raises(ValueError, match=r"terms \['l1'\] and weights \['l2'\]"):
        WeightedSum({"l1": NormalizedL1()}, {"l2": 1.0})


@pytest.mark.parametrize("weight", [-1e-3, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(ValueError, match=rf"zero or more, got {{'l2': {weight}}}.*switch a term"):
        WeightedSum({"l1": NormalizedL1(), "l2": NormalizedL2()}, {"l1": 1.0, "l2": weight})


def test_an_objective_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"all weights are 0, got {'l1': 0.0}"):
        WeightedSum({"l1": NormalizedL1()}, {"l1": 0.0})


def test_a_term_of_weight_zero_is_logged_and_has_no_influence(batch):
    class Undefined(NormalizedL2):
        def forward(self, estimate, batch):
            return super().forward(estimate, batch) * float("nan")

    estimate = (0.5 * batch.sources).requires_grad_()
    terms = {"l1": NormalizedL1(), "odd": Undefined()}
    value, log = WeightedSum(terms, {"l1": 1.0, "odd": 0.0})(Estimate(estimate), batch)
    value.backward()
    assert value.item() == pytest.approx(0.5)
    assert torch.isfinite(estimate.grad).all()
    assert log["raw/odd"].isnan()


def test_terms_are_computed_in_single_precision_beside_a_network_that_is_not(any_batch):
    total = WeightedSum(TERMS, dict.fromkeys(TERMS, 1.0))
    estimate = Estimate(*(x.bfloat16() for x in at(any_batch, 0.5)[:2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, mixed = total(estimate, any_batch)
    _, single = total(Estimate(*(x.float() for x in estimate[:2])), any_batch)
    assert {v.dtype for v in mixed.values()} == {torch.float32}
    assert all(torch.equal(mixed[name], single[name]) for name in mixed)


def compose(toy_path, run_dir, *overrides):
    settings = [
        "model.hidden=16",
        "model.height=6",
        "model.width=6",
        "data.batch_size=4",
        "data.n_times=3",
        "data.pool_size=1",
        "data.setups.montages=[biosemi16]",
        "data.sources.radius=[0.03,0.06]",
        "trainer.steps_per_epoch=2",
        "trainer.max_steps=2",
        "trainer.validation_batch_size=4",
        "trainer.log_every=1",
        "trainer.checkpoint_every=1",
        f"head.name={toy_path}",
        "name=toy",
        f"logger.save_dir={run_dir}",
    ]
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose("train", [*settings, *overrides])


#: One of every kind; the others are of terms that have tests of their own above.
QUICK = {"default", "uncertainty", "spectral", "adversarial"}


@pytest.mark.parametrize("name", [n if n in QUICK else slow(n) for n in OBJECTIVES])
def test_every_objective_trains(name, toy, toy_path, tmp_path):
    overrides = [f"loss={name}", "model.heteroscedastic=true"]
    if name == "spectral":
        term = "loss.terms.spectral"
        overrides += ["data.n_times=32", f"{term}.segments=[32]", f"{term}.bands=[[8.0,30.0]]"]
    config = compose(toy_path, tmp_path, *overrides)
    assert fit(config, Cohort.single(toy), tmp_path).is_file()
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {f"train/weighted/{term}" for term in config.loss.terms} <= set(header)


def test_an_objective_trains_in_mixed_precision(toy, toy_path, tmp_path):
    overrides = ["loss=focal", "trainer.precision=bf16-mixed"]
    assert fit(compose(toy_path, tmp_path, *overrides), Cohort.single(toy), tmp_path).is_file()


def test_objectives_in_the_package():
    assert set(OBJECTIVES) == {
        "default",
        "focal",
        "peaks",
        "peaks_uncertainty",
        "smooth",
        "folded",
        "spectral",
        "aligned",
        "adversarial",
        "uncertainty",
        "no_physics",
        "no_laplacian",
    }


@pytest.mark.parametrize(
    ("name", "off"), [("no_physics", "reprojection"), ("no_laplacian", "laplacian")]
)
def test_ablations_differ_from_the_default_in_one_weight(name, off, toy_path, tmp_path):
    default, ablation = (
        plain(compose(toy_path, tmp_path, f"loss={n}").loss) for n in ("default", name)
    )
    assert default["weights"] == {"cosine": 1.0, "reprojection": 0.01, "laplacian": 0.001}
    assert ablation == default | {"weights": default["weights"] | {off: 0.0}}


def test_uncertainty_without_a_standard_deviation_says_what_to_set(toy, toy_path, tmp_path):
    config = compose(toy_path, tmp_path, "loss=uncertainty")
    with pytest.raises(ValueError, match="model.heteroscedastic=true"):
        fit(config, Cohort.single(toy), tmp_path)


def test_negative_weight_on_the_command_line_is_refused(toy, toy_path, tmp_path):
    config = compose(toy_path, tmp_path, "loss.weights.cosine=-1.0")
    with pytest.raises(
        InstantiationException, match=r"finite and zero or more, got .*cosine.*-1.0"
    ):
        fit(config, Cohort.single(toy), tmp_path)
