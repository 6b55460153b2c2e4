"""One suite over every inverse model of the package; one without recipe or configuration fails."""

import functools
import importlib
import inspect
import json
import pkgutil
from dataclasses import replace
from pathlib import Path
from pydoc import locate

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate

import deepesi
from deepesi.baselines.bayes_patches import BayesPatches
from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.baselines.beamformer import LCMV
from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.baselines.mixed_norm import MixedNorm
from deepesi.baselines.music import RecursiveMUSIC
from deepesi.baselines.other_orientation import FixedOrientation, FreeOrientation
from deepesi.baselines.sparse_bayes import UPDATES, SparseBayes
from deepesi.baselines.sparse_regression import SparseRegression
from deepesi.core.contracts import InverseModel, PosteriorModel, as_tensors
from deepesi.core.onnx_model import OnnxModel, OnnxPosterior, load_onnx
from deepesi.export.to_onnx import MAX_DIFFERENCE, check_parity, export_onnx
from deepesi.models.annealed_patches import AnnealedPatches
from deepesi.models.by_cortex import ByCortex
from deepesi.models.convdip import ConvDip
from deepesi.models.gnn import SensorGNN
from deepesi.models.loose_matched_filter import LooseMatchedFilter
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.models.piunet import PhysicsInformedUNet
from deepesi.models.posterior.evidential import Evidential
from deepesi.models.posterior.flow_matching import FlowMatching
from deepesi.models.posterior.structured import StructuredPosterior
from deepesi.models.transformer import SourceTransformer
from deepesi.models.unrolled_champagne import UnrolledChampagne
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.head_inputs import prepare
from deepesi.physics.linear_inverse import METHODS
from deepesi.runtime.session import as_feeds, open_model
from deepesi.training.site_whitening import SiteWhitening
from deepesi.uncertainty.consensus import Consensus
from deepesi.uncertainty.ensemble import DeepEnsemble, StackedEnsemble
from deepesi.uncertainty.mc_dropout import MCDropout
from deepesi.uncertainty.tempered import Tempered, TemperedPosterior
from tests.conftest import slow
from tests.contract.parity import check_exported, effect_of_rounding
from tests.core.flow import ToyFlow

REFERENCE = Path(__file__).parents[1] / "reference" / "estimates.json"


def network(seed=0, **options):
    torch.manual_seed(seed)
    model = ConvDip(n_dipoles=84, height=8, width=8, hidden=32, **options)
    # Outputs of order one instead of the near-zero start, so that deviations would show.
    torch.nn.init.normal_(model.last.weight)
    return model


def moved(model):
    """Away from the neutral start, at which most weights have no effect."""
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


#: Radii of the toy head's sources, 25 mm apart.
WIDE = {"smallest": 0.03, "largest": 0.06}


def unrolled_ista(heteroscedastic=False, n_steps=3):
    torch.manual_seed(0)
    return moved(UnrolledISTA(n_steps=n_steps, heteroscedastic=heteroscedastic))


def matched_filter(heteroscedastic=False, **sizes):
    torch.manual_seed(0)
    # Exporting takes seconds per step, so two components in one go and one in two.
    steps = (
        {"n_components": 1, "n_sweeps": 2}
        if heteroscedastic
        else {"n_components": 2, "n_sweeps": 1}
    )
    sizes = {"hidden": 8, "n_radii": 3, **steps, **sizes}
    return moved(UnrolledMatchedFilter(**WIDE, **sizes, heteroscedastic=heteroscedastic))


def loose_matched_filter(**sizes):
    torch.manual_seed(0)
    sizes = {"n_components": 2, "n_sweeps": 1, "hidden": 8, "n_radii": 2, "n_strongest": 8} | sizes
    return moved(LooseMatchedFilter(**WIDE, **sizes, heteroscedastic=True))


def by_cortex():
    own = matched_filter(heteroscedastic=True, n_radii=2, along_normals=True)
    return ByCortex(loose_matched_filter(), own)


def annealed_patches(n_components=2):
    sizes = {"n_chains": 2, "n_annealed": 1, "n_kept": 1, "n_radii": 2, "min_distance": 0.05}
    return AnnealedPatches(n_components, **WIDE, **sizes)


def unrolled_champagne(**sizes):
    torch.manual_seed(0)
    sizes = {"n_steps": 3, "n_dense": 2, "n_strongest": 20, "n_radii": 2, "hidden": 8} | sizes
    return moved(UnrolledChampagne(**WIDE, **sizes))


def sensor_gnn(heteroscedastic=False, **sizes):
    torch.manual_seed(0)
    sizes = {"n_components": 2, **sizes}
    return moved(SensorGNN(**WIDE, **sizes, heteroscedastic=heteroscedastic))


def transformer(heteroscedastic=False, **sizes):
    torch.manual_seed(0)
    sizes = {"n_components": 2, "n_rounds": 1, "stretch": 4, **sizes}
    return moved(SourceTransformer(**WIDE, **sizes, heteroscedastic=heteroscedastic))


def structured_posterior(n_components=2):
    torch.manual_seed(0)
    sizes = {"hidden": 8, "n_radii": 2, "n_draws": 64}
    return moved(StructuredPosterior(n_components, **WIDE, **sizes))


def flow_matching(**sizes):
    torch.manual_seed(0)
    sizes = {"n_steps": 3, "hidden": 8, "n_messages": 1, "n_conjugate": 4, "n_draws": 64} | sizes
    return moved(FlowMatching(**sizes))


def stacked_ensemble():
    seeds = iter(range(3))
    return StackedEnsemble(lambda: network(next(seeds)), n_members=3)


def piunet(heteroscedastic=False, **sizes):
    torch.manual_seed(0)
    sizes = {"base_channels": 4, "gathered": 4, "hidden": 8, **sizes}
    return moved(PhysicsInformedUNet(**WIDE, **sizes, heteroscedastic=heteroscedastic))


RECIPES = (
    {
        "ConvDip": network,
        "ConvDip with std": lambda: network(heteroscedastic=True),
        "UnrolledMatchedFilter": matched_filter,
        "UnrolledMatchedFilter with std": lambda: matched_filter(heteroscedastic=True),
        "LooseMatchedFilter": loose_matched_filter,
        "ByCortex": by_cortex,
        "AnnealedPatches": annealed_patches,
        "UnrolledChampagne": unrolled_champagne,
        "BayesSinglePatch": lambda: BayesSinglePatch(smallest=0.03, largest=0.06, n_radii=2),
        "BayesPatches": lambda: BayesPatches(
            (1, 2), 0.03, 0.06, 2, n_chains=2, n_annealed=4, n_kept=4, n_samples=2
        ),
        "SensorGNN": sensor_gnn,
        "SensorGNN with std": lambda: sensor_gnn(heteroscedastic=True),
        "PhysicsInformedUNet": piunet,
        "PhysicsInformedUNet with std": lambda: piunet(heteroscedastic=True),
        "StructuredPosterior": structured_posterior,
        "FlowMatching": flow_matching,
        "Evidential": lambda: moved(Evidential(hidden=8, n_messages=1, n_conjugate=4)),
        "SourceTransformer": transformer,
        "SourceTransformer with std": lambda: transformer(heteroscedastic=True),
        "UnrolledISTA": unrolled_ista,
        "UnrolledISTA with std": lambda: unrolled_ista(heteroscedastic=True),
        "BayesianMinimumNorm": BayesianMinimumNorm,
        "eLORETA, GCV": lambda: MinimumNorm("eLORETA", "gcv"),
        "FixedOrientation": lambda: FixedOrientation(network()),
        "FreeOrientation": lambda: FreeOrientation(BayesianMinimumNorm()),
        "LCMV": LCMV,
        "RecursiveMUSIC": RecursiveMUSIC,
        "MixedNorm": MixedNorm,
        "SparseRegression": SparseRegression,
        "ridge": lambda: SparseRegression(l1_ratio=0.0),
        "elastic net": lambda: SparseRegression(l1_ratio=0.5),
        "SparseBayes, noise learned": lambda: SparseBayes("convex", learn_noise=True),
        "SparseBayes, patches": lambda: SparseBayes("convex", patches=(0.03, 0.06, 2)),
        "DeepEnsemble": lambda: DeepEnsemble([network(0), network(1, heteroscedastic=True)]),
        "StackedEnsemble": stacked_ensemble,
        "Consensus": lambda: Consensus([MinimumNorm(), BayesianMinimumNorm()], [2, 1], [1.0, 0.5]),
        "Consensus with a solver": lambda: Consensus([MinimumNorm(), RecursiveMUSIC(1)]),
        "MCDropout": lambda: MCDropout(network(dropout=0.2), n_samples=3),
        "Tempered": lambda: Tempered(network(heteroscedastic=True), 0.5),
        "TemperedPosterior": lambda: TemperedPosterior(BayesianMinimumNorm(), 0.5),
    }
    | {m: lambda m=m: MinimumNorm(m) for m in METHODS}
    | {f"SparseBayes {u}": lambda u=u: SparseBayes(u) for u in UPDATES}
)


def from_configs(configs, tested):
    """Recipes by target: models with values in ``configs/``, without the targets `tested`."""
    found = {}
    for path in (path for group in ("model", "baselines") for path in (configs / group).glob("*")):
        values = yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else {}
        for one in [values] if "_target_" in values else values.values():
            target = one.get("_target_") if isinstance(one, dict) else None
            if target is None or target in tested or not issubclass(locate(target), InverseModel):
                continue
            sizes = {"n_dipoles": 84} if one.get("n_dipoles") == "???" else {}
            found[target] = lambda one=one, sizes=sizes: moved(instantiate(one | sizes))
    return found


def target_of(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


CONFIGURED = from_configs(
    Path(deepesi.__file__).parent / "configs", {target_of(type(m())) for m in RECIPES.values()}
)
RECIPES |= CONFIGURED


def test_a_model_with_values_in_the_configurations_needs_no_recipe(tmp_path):
    (tmp_path / "model").mkdir()
    values = {"_target_": target_of(ConvDip), "n_dipoles": "???", "hidden": 8}
    (tmp_path / "model" / "mine.yaml").write_text(yaml.safe_dump(values))
    assert from_configs(tmp_path, {target_of(ConvDip)}) == {}
    (make,) = from_configs(tmp_path, set()).values()
    assert isinstance(make(), ConvDip)
    assert make().last.out_features == 84


EXPORTED = {OnnxModel: network, OnnxPosterior: BayesianMinimumNorm}


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for kind, make in EXPORTED.items():
        export_onnx(make(), toy.montage_head("biosemi16"), folder / f"{kind.__name__}.onnx")
    return folder


#: The same cross-validation as ``elastic net``, which has both penalties.
ONE_PENALTY = {"SparseRegression", "ridge"}


def slow_among(some, names):
    """Names for a parametrized test, of which some are slow."""
    return [slow(name) if name in some else name for name in names]


@pytest.fixture(params=slow_among(ONE_PENALTY, [*RECIPES, *EXPORTED]))
def model(request):
    if request.param not in EXPORTED:
        return RECIPES[request.param]().eval()
    return load_onnx(request.getfixturevalue("exported") / f"{request.param.__name__}.onnx")


def apply(model, data, head):
    with torch.no_grad():
        return model(data, as_tensors(prepare(model.head_inputs, head))).mean


def subclasses(kind):
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_model_of_the_package_is_tested():
    for module in pkgutil.walk_packages(deepesi.__path__, "deepesi."):
        importlib.import_module(module.name)
    found = {
        k
        for k in subclasses(InverseModel)
        if k.__module__.startswith("deepesi.") and not inspect.isabstract(k)
    }
    tested_elsewhere = {SiteWhitening}  # any network, with changed features
    found -= tested_elsewhere
    assert found == {type(make()) for make in RECIPES.values()} | EXPORTED.keys()


def test_shape_and_declaration(model, simulate):
    batch = simulate(model.head_inputs, montage="biosemi32", n_times=5).batch(0)
    estimate = model(batch.data, batch.inputs)
    assert estimate.mean.shape == (8, 84, 5)
    assert torch.isfinite(estimate.mean).all()
    assert (estimate.mean.std(dim=1) > 0).all()
    assert estimate.std is None or (estimate.std >= 0).all()


def test_channel_order_does_not_matter(model, simulate):
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    order = np.random.default_rng(0).permutation(16)
    shuffled = batch.head.pick([batch.head.sensors.names[i] for i in order])
    first = apply(model, batch.data, batch.head)
    second = apply(model, batch.data[:, order], shuffled)
    assert torch.allclose(first, second, rtol=1e-3, atol=1e-4 * first.abs().max().item())


#: See where electrodes are, so an electrode more is another montage to them; ``curve`` of the
#: cross-validated ones divides the electrodes into folds.
SEE_ELECTRODES = {
    "ByCortex",
    "ConvDip",
    "FixedOrientation",
    "ConvDip with std",
    "DeepEnsemble",
    "StackedEnsemble",
    "MCDropout",
    "Tempered",
    "SensorGNN",
    "SensorGNN with std",
    "SourceTransformer",
    "SourceTransformer with std",
    "UnrolledMatchedFilter",
    "UnrolledMatchedFilter with std",
    "StructuredPosterior",
    "SparseRegression",
    "ridge",
    "elastic net",
}


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in SEE_ELECTRODES])
def test_a_channel_that_the_others_determine_tells_nothing(name, simulate):
    """The mean of the others in place of the last: rank ``C - 2``, the estimate without it."""
    model = RECIPES[name]().eval()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    without = batch.head.pick(batch.head.sensors.names[:-1])
    with_mean = replace(
        batch.head,
        leadfield=np.pad(without.leadfield, ((0, 1), (0, 0))),
        noise_cov=np.pad(without.noise_cov, (0, 1)),
    )
    data = batch.data[:, :-1] - batch.data[:, :-1].mean(1, keepdim=True)
    first = apply(model, data, without)
    second = apply(model, torch.nn.functional.pad(data, (0, 0, 0, 1)), with_mean)
    assert torch.allclose(first, second, rtol=1e-3, atol=1e-4 * first.abs().max().item())


@pytest.mark.parametrize("factor", [1e-3, slow(7.0)])
def test_joint_scaling(model, simulate, factor):
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    louder = replace(batch.head, noise_cov=factor**2 * batch.head.noise_cov)
    first = apply(model, batch.data, batch.head)
    second = apply(model, factor * batch.data, louder)
    assert torch.allclose(factor * first, second, rtol=1e-3, atol=1e-4 * second.abs().max().item())


#: Models that draw from their posterior; one of the package that is missing fails the suite.
POSTERIORS = {
    "BayesianMinimumNorm": BayesianMinimumNorm,
    "FlowMatching": flow_matching,
    "StructuredPosterior": structured_posterior,
    "TemperedPosterior": RECIPES["TemperedPosterior"],
    "ToyFlow": ToyFlow,
}


#: Their samples are zero at most sources.
SPARSE = {"StructuredPosterior"}


def test_every_posterior_model_of_the_package_is_tested():
    found = {type(make()) for make in RECIPES.values()}
    tested = {type(make()) for make in POSTERIORS.values()}
    assert {kind for kind in found if issubclass(kind, PosteriorModel)} <= tested


def samples(name, data, head, noise=None):
    """From noise by source, which does not depend on channels."""
    model = POSTERIORS[name]().eval()
    inputs = as_tensors(prepare(model.head_inputs, head))
    if noise is None:
        return model.draw(data, inputs, 5)
    with torch.no_grad():
        return model.sample(data, inputs, noise)


@pytest.mark.parametrize("name", POSTERIORS)
def test_same_noise_same_samples(name, simulate):
    model = POSTERIORS[name]().eval()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    size = model.noise_size(batch.data, batch.inputs)
    noise = torch.randn((5, 8, size), generator=torch.Generator().manual_seed(0))
    first, other = (
        samples(name, batch.data, batch.head, values) for values in (noise, noise.flip(0))
    )
    assert first.shape == (5, 8, 84, 3)
    assert torch.equal(first, samples(name, batch.data, batch.head, noise))
    assert torch.equal(first, samples(name, batch.data, batch.head))  # the seed's noise
    torch.testing.assert_close(first.flip(0), other, rtol=1e-4, atol=1e-5 * first.std().item())
    varies = first.std(0) > 0
    assert varies.any(1).all() if name in SPARSE else varies.all()


@pytest.mark.parametrize("name", POSTERIORS)
def test_channel_order_does_not_matter_to_samples(name, simulate):
    batch = simulate(n_times=3).batch(0)
    order = np.random.default_rng(0).permutation(16)
    shuffled = batch.head.pick([batch.head.sensors.names[i] for i in order])
    first = samples(name, batch.data, batch.head)
    second = samples(name, batch.data[:, order], shuffled)
    assert torch.allclose(first, second, rtol=1e-3, atol=1e-4 * first.abs().max().item())


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("factor", [1e-3, slow(7.0)])
def test_joint_scaling_of_samples(name, simulate, factor):
    batch = simulate(n_times=3).batch(0)
    louder = replace(batch.head, noise_cov=factor**2 * batch.head.noise_cov)
    first = samples(name, batch.data, batch.head)
    second = samples(name, factor * batch.data, louder)
    assert torch.allclose(factor * first, second, rtol=1e-3, atol=1e-4 * second.abs().max().item())


@pytest.mark.parametrize(
    "name", [slow(name) if name == "FlowMatching" else name for name in POSTERIORS]
)
def test_an_estimate_is_the_mean_and_deviation_of_samples(name, simulate):
    """With many draws, the difference is at most that of chance."""
    model = POSTERIORS[name]().eval()
    batch = simulate(model.head_inputs, batch_size=2, n_times=2).batch(0)
    with torch.no_grad():
        estimate = model(batch.data, batch.inputs)
        few, many = (4000, 4000) if estimate.samples is None else (len(estimate.samples), 1000)
        drawn = model.draw(batch.data, batch.inputs, many, seed=1)
    off, ratio = (drawn.mean(0) - estimate.mean) / drawn.std(0), drawn.std(0) / estimate.std
    chance = torch.ones(())  # variance of the logarithm of a deviation from few draws, times few
    if name in SPARSE:  # where a source is active in a fifth of the draws or more
        often = (drawn != 0).double().mean(0) > 0.2
        assert often.any(1).all()
        off, ratio = off[often], ratio[often]
        fourth = ((drawn - drawn.mean(0)) / drawn.std(0)).pow(4).mean(0)[often]
        chance = (fourth.mean() - 1) / 4
    assert off.square().mean().sqrt() < 1.5 * (1 / few + 1 / many) ** 0.5
    assert ratio.log().square().mean().sqrt() < 1.5 * (chance / few) ** 0.5


@pytest.mark.parametrize("name", slow_among({*ONE_PENALTY, "elastic net"}, RECIPES))
def test_state_dict_round_trip(name, simulate):
    model, again = RECIPES[name]().eval(), RECIPES[name]().eval()
    for parameter in again.parameters():
        torch.nn.init.zeros_(parameter)
    again.load_state_dict(model.state_dict())
    batch = simulate(model.head_inputs).batch(0)
    assert torch.equal(model(batch.data, batch.inputs).mean, again(batch.data, batch.inputs).mean)


#: Exporting these takes half a minute each; with a deviation they export the same and more.
CONTAINED = (
    "SensorGNN",
    "PhysicsInformedUNet",
    "SourceTransformer",
    "UnrolledISTA",
    "UnrolledMatchedFilter",
)
#: The same operations in fewer steps, so that exporting takes seconds.
FEWER = {
    "SensorGNN with std": lambda: sensor_gnn(True, n_components=1, n_rounds=1),
    "PhysicsInformedUNet with std": lambda: piunet(True, n_passes=1, n_conjugate=2),
    "SourceTransformer with std": lambda: transformer(True, n_components=1, n_blocks=1),
    "UnrolledISTA with std": lambda: unrolled_ista(True, n_steps=1),
    "UnrolledMatchedFilter with std": lambda: matched_filter(
        True, n_sweeps=1, n_conjugate=2, n_messages=1
    ),
    "LooseMatchedFilter": lambda: loose_matched_filter(n_components=1, n_conjugate=2, n_messages=1),
    "AnnealedPatches": lambda: annealed_patches(n_components=1),
    "UnrolledChampagne": lambda: unrolled_champagne(n_steps=2, n_dense=1, n_iterations=12),
    "StructuredPosterior": lambda: structured_posterior(n_components=1),
    "FlowMatching": lambda: flow_matching(n_steps=2, n_conjugate=2),
}


#: What fast tests elsewhere export: as parts of another model (`Tempered`, `Consensus`), in
#: tests/export/test_members.py (ensembles) or tests/uncertainty (dropout).
ELSEWHERE = {"ConvDip", "BayesianMinimumNorm", "DeepEnsemble", "StackedEnsemble", "MCDropout"}
ELSEWHERE |= {"dSPM", "sLORETA"}


@pytest.mark.parametrize(
    "name",
    slow_among({*FEWER, *ELSEWHERE, "Evidential"}, (n for n in RECIPES if n not in CONTAINED)),
)
def test_onnx_parity_at_another_batch_duration_and_montage(name, toy, simulate, tmp_path):
    check_exported(RECIPES[name](), toy, simulate, tmp_path / "model.onnx")


#: Fast tests elsewhere export a matched filter (the first example of the README), a posterior
#: (tests/runtime/test_apply_samples.py) and `UnrolledISTA` (tests/runtime/test_apply.py). Slow
#: tests alone export the others.
@pytest.mark.slow
@pytest.mark.parametrize("name", FEWER)
def test_onnx_parity_in_fewer_steps(name, toy, simulate, tmp_path):
    check_exported(FEWER[name](), toy, simulate, tmp_path / "model.onnx")


#: With a prior on the normal, which needs a head of free orientation.
LOOSE = {
    "ConvDip": lambda: moved(ConvDip(252, 8, 8, hidden=32, loose=0.2, heteroscedastic=True)),
    "UnrolledISTA": lambda: moved(UnrolledISTA(n_steps=1, **WIDE, loose=0.2)),
    "PhysicsInformedUNet": lambda: piunet(n_passes=1, n_conjugate=2, loose=0.2),
    "SensorGNN": lambda: sensor_gnn(n_components=1, n_rounds=1, loose=0.2),
}


#: `UnrolledISTA`: a fast test of tests/runtime/test_apply.py.
@pytest.mark.parametrize("name", slow_among(LOOSE.keys() - {"ConvDip"}, LOOSE))
def test_onnx_parity_with_a_prior_on_the_normal(name, free_toy, simulate, tmp_path):
    torch.manual_seed(0)
    on_free = functools.partial(simulate, heads=free_toy)
    check_exported(LOOSE[name](), free_toy, on_free, tmp_path / "model.onnx")


#: Montages of 19 to 256 channels.
MONTAGES = (
    "10-20-19",
    "10-20-21",
    "biosemi32",
    "easycap-M10",
    "biosemi64",
    "fsaverage_1020",
    "GSN-HydroCel-65_1.0",
    "biosemi128",
    "biosemi160",
    "GSN-HydroCel-256",
    "biosemi256",
)


#: Networks that weigh patches by the evidence of a long window, whose last digits are lost in
#: single precision, in torch as in a file.
ROUNDED = ("LooseMatchedFilter", "UnrolledChampagne")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", RECIPES)
def test_onnx_parity_over_fifty_set_ups(name, toy, simulate, tmp_path, monkeypatch):
    """Any montage, batch, duration and SNR; ``-s`` prints the largest deviation.

    It is 1e-5 at most; for those of `ROUNDED` a few times what single precision costs in torch.
    """
    model = RECIPES[name]().eval()
    if not model.exportable:
        pytest.skip("has no form in ONNX")
    path, rng = tmp_path / "model.onnx", np.random.default_rng(0)
    if name in ROUNDED:
        monkeypatch.setitem(MAX_DIFFERENCE, "float32", 1.0)  # measured here, not refused
    export_onnx(model, toy.montage_head("biosemi16"), path)
    deviations, limit = [], 1e-5
    for seed in range(50):
        batch = simulate(
            [],
            montage=MONTAGES[seed % len(MONTAGES)],
            batch_size=int(rng.integers(1, 9)),
            n_times=int(rng.integers(1, 40)),
            snr_db=[rng.uniform(-5, 30)] * 2,
            seed=seed,
        ).batch(0)
        deviations.append(check_parity(model, path, batch, n_timed=1).max_difference)
        if name in ROUNDED and deviations[-1] > 1e-5:
            limit = max(limit, 5 * effect_of_rounding(model, batch))
    print(f"{name}: largest deviation of 50 set-ups {max(deviations):.1e}")
    assert max(deviations) <= limit


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", RECIPES)
def test_a_gpu_finds_what_the_cpu_does(name, simulate):
    model = RECIPES[name]().eval()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    there = batch.to("cuda")
    first = model(batch.data, batch.inputs).mean.detach()
    second = model.to("cuda")(there.data, there.inputs).mean.detach()
    assert second.device.type == "cuda"
    assert torch.allclose(first, second.cpu(), rtol=1e-3, atol=1e-3 * first.abs().max().item())


@pytest.mark.parametrize("method", slow_among({"dSPM", "sLORETA"}, METHODS))
def test_unbound_models_follow_the_source_space(method, toy, template, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(MinimumNorm(method), toy.montage_head("biosemi16"), path)
    head = template.montage_head("biosemi16")
    opened = open_model(path)
    data = np.random.default_rng(0).normal(scale=1e-6, size=(1, 16, 2))
    found = opened.run(data, as_feeds(prepare(opened.contract.head_inputs, head)))
    assert found["mean"].shape == (1, 1284, 2)


@pytest.mark.parametrize("name", RECIPES)
def test_frozen_reference(name, simulate, request):
    """Drift of a model, the head, the generator or the head inputs shows here.

    After an intended change run with ``--freeze`` and say so in the change log.
    """
    found = summary(RECIPES[name]().eval(), simulate)
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    if request.config.getoption("--freeze"):
        REFERENCE.write_text(json.dumps(known | {name: found}, indent=1) + "\n")
        pytest.skip("reference written anew")
    # Processors add in other orders. What is far below the mean magnitude of an estimate is a
    # difference of large numbers or the tail of a softmax, so its digits are theirs.
    *_, magnitude, _ = known[name]
    assert found == pytest.approx(known[name], rel=1e-3, abs=1e-4 * magnitude)


def summary(model, simulate):
    """A few numbers of a fixed batch, in nA m."""
    batch = simulate(model.head_inputs, montage="biosemi32", seed=11, n_times=2).batch(3)
    values = 1e9 * apply(model, batch.data, batch.head)
    return [*values[0, ::28, 0].tolist(), values.abs().mean().item(), values.square().mean().item()]
