from dataclasses import replace

import numpy as np
import pytest

from deepesi.data_gen.caps import CapRanges
from deepesi.data_gen.curriculum import Curriculum
from deepesi.data_gen.heads import HeadOnDevice
from deepesi.data_gen.montages import FEWEST, displaced_positions, draw_channels
from deepesi.data_gen.noise import NoiseRanges
from deepesi.data_gen.setups import SetupPool, SetupRanges
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.montage import OWN_MONTAGES, standard_montage
from deepesi.physics.noise import white_noise_cov
from deepesi.physics.scalp import displace, project_to_mesh
from deepesi.physics.sensors import average_reference
from deepesi.physics.template import DATA, load_template
from tests.conftest import slow

MONTAGES = [
    "10-20-19",
    "10-20-21",
    "biosemi16",
    "biosemi32",
    "biosemi64",
    "biosemi128",
    "easycap-M1",
    "easycap-M10",
    "GSN-HydroCel-32",
    "GSN-HydroCel-64_1.0",
    "GSN-HydroCel-65_1.0",
    "GSN-HydroCel-128",
    "GSN-HydroCel-129",
    "GSN-HydroCel-256",
    "GSN-HydroCel-257",
    "fsaverage_1020",
]


@pytest.fixture(scope="module")
def pool(toy):
    def make(ranges, size=2, period=4, **settings):
        heads = [HeadOnDevice(toy)]
        return SetupPool(
            heads, toy, ranges, TissueRanges(), [], size=size, period=period, **settings
        )

    return make


def levels(drawn):
    return [drawn.at(0, "train", 0, step).head.noise_level for step in range(8)]


def test_pool_is_redrawn_and_a_function_of_the_step(pool):
    ranges = SetupRanges(montages=["biosemi16", "biosemi32"])
    first = levels(pool(ranges))
    assert len({f"{x:.12e}" for x in first}) == 4
    assert first[0] == first[2]
    assert pool(ranges).at(0, "train", 0, 7).head.noise_level == first[7]


@pytest.mark.parametrize(
    "name",
    [slow(n) if "warp" in n else n for n in sorted(path.stem for path in DATA.glob("*-ico3.npz"))],
)
def test_every_montage_fits_every_packaged_head(name):
    template = load_template(name)
    for montage in MONTAGES:
        names, electrodes = template.montage(montage)
        assert len(names) == len(set(names)) == len(electrodes.positions)
        assert np.median(electrodes.distances) < 0.01
        template.montage_head(montage)


def test_ten_twenty():
    names, positions = standard_montage("10-20-21")
    assert names == list(OWN_MONTAGES["10-20-21"])
    every, places = standard_montage("fsaverage_1020")
    assert np.array_equal(positions[4], places[every.index("Fz")])


def test_nominal_head_and_known_covariance(pool, toy):
    ranges = SetupRanges(
        ["biosemi16"],
        noise=NoiseRanges(level=(1e-6, 1e-6)),
        nominal=TissueRanges((0.02, 0.02), (0.005, 0.005)),
    )
    setup = pool(ranges).at(0, "train", 0, 0)
    assert np.allclose(setup.head.noise_cov, white_noise_cov(setup.head.sensors, 1e-6))
    assert not np.allclose(setup.head.leadfield, toy.montage_head("biosemi16").leadfield, rtol=0.05)
    assert setup.noise_power == pytest.approx(15e-12)


@pytest.mark.slow
def test_estimated_covariance_is_near_the_true_one_and_nearer_with_more_samples(pool):
    def error(samples):
        noise = NoiseRanges(brain=(1, 1), exponent=(1, 1))
        ranges = SetupRanges(["biosemi32"], noise=noise, baseline=(samples, samples))
        setup = pool(ranges).at(0, "train", 0, 0)
        estimated, true = setup.head.noise_cov, setup.noise.cov
        return np.linalg.norm(estimated - true) / np.linalg.norm(true)

    def size(samples):
        noise = NoiseRanges(brain=(1, 1), drift=(1, 1))
        pools = pool(SetupRanges(["biosemi32"], noise=noise, baseline=(samples, samples)), period=2)
        drawn = [pools.at(0, "train", 0, step) for step in range(40)]
        return np.mean([np.trace(s.head.noise_cov) / s.noise_power for s in drawn])

    assert size(100) == pytest.approx(1, abs=0.12)
    few, many = error(60), error(20000)
    assert 0.1 < few < 1.0
    assert many < 0.15
    assert many < 0.5 * few


def test_subsets_dropout_and_references_leave_enough_channels():
    names, _ = standard_montage("biosemi64")
    rng = np.random.default_rng(0)

    def sizes(names=names, opened=1.0, **settings):
        ranges = SetupRanges(["biosemi64"], **settings)
        drawn = [draw_channels(names, ranges, opened, rng) for _ in range(300)]
        assert all((np.diff(rows) > 0).all() for rows in drawn)
        return np.array([len(rows) for rows in drawn])

    assert set(sizes()) == {64}
    assert set(sizes(references=["electrode"])) == {63}
    assert set(sizes(dropout=(0.1, 0.2))) <= set(range(51, 59))
    assert sizes(subset=1.0).min() >= FEWEST
    assert len(set(sizes(subset=1.0))) > 30
    closed = {"subset": 1.0, "dropout": (0.2, 0.2), "references": ["electrode"]}
    assert set(sizes(opened=0.0, **closed)) == {64}
    half = sizes(references=["electrode"], opened=0.5)
    assert 100 < (half == 63).sum() < 200
    everything = sizes(subset=1.0, dropout=(0.2, 0.2), references=["electrode"])
    assert everything.min() >= FEWEST
    ears = [*standard_montage("10-20-19")[0], "A1", "A2"]
    assert set(sizes(ears, references=["linked-ears"])) == {19}


def test_reference_is_undone_by_the_average(toy):
    """Whatever a recording is referenced to, the other channels come out the same."""
    head = toy.montage_head("biosemi32")
    potential = np.random.default_rng(0).normal(size=(32, 5))
    for reference in (potential[7], potential[[3, 9]].mean(axis=0), potential.mean(axis=0)):
        rows = np.delete(np.arange(32), 7)
        recorded = (potential - reference)[rows]
        assert np.allclose(average_reference(recorded), average_reference(potential[rows]))
    assert np.allclose(average_reference(head.leadfield), head.leadfield)


def test_displacement_and_coregistration_have_the_stated_size(template):
    """Means over poses; the scalp takes away the part of a shift along its normal."""
    _, electrodes = template.montage("biosemi64")
    mesh = template.family.scalp_pos, template.family.scalp_faces

    def moved(rng=0, **errors):
        found = displace(electrodes.positions, *mesh, rng=np.random.default_rng(rng), **errors)
        return np.linalg.norm(found.positions - electrodes.positions, axis=-1)

    own = moved(displacement=0.005, n_copies=300)
    assert own.mean() == pytest.approx(0.005, rel=0.1)
    together = moved(displacement=0.0, n_copies=1, shift=0.0035, n_poses=400)
    # Two of three components of the shift lie along the scalp: mean sqrt(pi/2) of a deviation,
    # 0.0035 / (2 sqrt(2/pi)).
    assert together.mean() == pytest.approx(0.0035 * np.pi / 4, rel=0.1)
    turned = moved(displacement=0.0, n_copies=1, rotation=np.deg2rad(3), n_poses=400)
    assert 0.002 < turned.mean() < 0.006
    assert moved(displacement=0.0, n_copies=1).max() < 1e-6


def test_a_shift_moves_all_positions_together(template):
    _, electrodes = template.montage("biosemi64")
    found = displace(
        electrodes.positions,
        template.family.scalp_pos,
        template.family.scalp_faces,
        0.0,
        3,
        np.random.default_rng(0),
        shift=0.0035,
        n_poses=4,
    )
    assert found.positions.shape == (4, 3, 64, 3)
    assert np.allclose(found.positions[:, 0], found.positions[:, 1])
    assert not np.allclose(found.positions[0], found.positions[1], atol=1e-4)


def test_electrode_error_scales_what_a_setup_draws(toy):
    """A factor per set-up: none leaves electrodes where they are, two moves them twice as far."""

    def moved(factor, seed=0):
        ranges = SetupRanges(coregistration_shift=0.002, electrode_error=factor)
        electrodes = toy.montage("biosemi32")[1]
        places = displaced_positions(toy, electrodes, ranges, 1.0, np.random.default_rng(seed))
        return np.linalg.norm(places.positions - electrodes.positions, axis=-1).mean()

    assert moved((0.0, 0.0)) < 1e-6
    assert moved((2.0, 2.0)) / moved((1.0, 1.0)) == pytest.approx(2, rel=0.2)
    several = [moved((0.2, 1.0), seed) for seed in range(12)]
    assert min(several) < 0.5 * max(several)


def test_montages_open_one_after_the_other(pool):
    opening = Curriculum(100, montages=[(0.0, 0.1), (1.0, 1.0)])
    ranges = SetupRanges(montages=["biosemi16", "biosemi32", "10-20-19"])
    drawn = pool(ranges, size=1, period=1, curriculum=opening)
    early = {drawn.at(0, "train", 0, step).head.n_channels for step in range(10)}
    late = {drawn.at(0, "train", 0, 100 + step).head.n_channels for step in range(20)}
    assert early == {16}
    assert late == {16, 32, 19}


def test_curriculum_is_linear_between_its_points():
    widths = Curriculum(200, tissues=[(0.1, 0.0), (0.5, 1.0)]).widths
    assert [widths(s)["tissues"] for s in (0, 20, 60, 100, 999)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert widths(0)["noise"] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SetupRanges(montages=[]), "montages is empty"),
        (lambda: SetupRanges(references=["nose"]), r"references \['nose'\] unknown"),
        (lambda: SetupRanges(displacement=5), r"displacement 5 .*metres"),
        (lambda: SetupRanges(electrode_error=(0.5, 5.0)), "electrode_error 0.5 to 5"),
        (lambda: SetupRanges(coregistration_shift=3.5), "coregistration_shift 3.5"),
        (lambda: SetupRanges(dropout=(0.2, 0.1)), "dropout 0.2 to 0.1 must be an ascending range"),
        (lambda: SetupRanges(baseline=(1, 5)), "baseline 1 to 5 .*samples"),
        (lambda: SetupRanges(subset=2), "subset 2 must lie within 0 to 1"),
        (lambda: Curriculum(0), "n_steps must be 1 or more, got 0"),
        (lambda: Curriculum(9, noise=[(0.5, 0), (0.2, 1)]), r"noise .* must ascend in progress"),
        (lambda: Curriculum(9, tissues=[(0.5, 3)]), "tissues .* within 0-1"),
        (lambda: Curriculum(9, tissues=[0.5]), "must be a list of"),
    ],
)
def test_settings_out_of_order_or_unit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_warped_member_keeps_its_own_anatomy(toy):
    member = replace(toy, source_pos=1.1 * toy.source_pos, name="member")
    heads = [HeadOnDevice(member)]
    for own, expected in ((True, member), (False, toy)):
        ranges = SetupRanges(["biosemi16"], own_anatomy=own)
        setup = SetupPool(heads, toy, ranges, TissueRanges(), []).at(0, "train", 0, 0)
        assert np.array_equal(setup.head.source_pos, expected.source_pos)
        assert setup.true_head.template is member


@pytest.mark.parametrize("knowledge", ["names", "template", "digitized"])
def test_the_analyst_takes_the_cap_as_far_as_it_is_known(knowledge, toy):
    """Digitized positions are nearer to the true ones than those of names."""
    cap = CapRanges(knowledge=[knowledge])
    drawn = SetupPool(
        [HeadOnDevice(toy)], toy, SetupRanges(["biosemi32"], cap=cap), TissueRanges(), []
    ).at(0, "train", 0, 0)
    vertices, weights = (part.numpy() for part in drawn.displaced)
    true = np.einsum("pmcv,pmcvi->pmci", weights, toy.family.scalp_pos[vertices])
    nominal = drawn.head.sensors.positions
    off = 1e3 * np.linalg.norm(true - nominal, axis=-1).mean()
    assert np.allclose(drawn.sensor_pos.numpy(), nominal, atol=1e-6)
    assert (2 < off < 7) if knowledge == "digitized" else (7 < off < 18)


def test_an_analyst_without_the_anatomy_puts_the_known_cap_on_the_template(toy):
    other = load_template("warp9-ico3")
    cap = CapRanges(knowledge=["digitized"])
    ranges = SetupRanges(["biosemi32"], cap=cap, own_anatomy=False)
    grid = load_template("fsaverage-ico3")
    drawn = SetupPool([HeadOnDevice(other)], grid, ranges, TissueRanges(), []).at(0, "test", 0, 0)
    on_scalp = project_to_mesh(
        drawn.head.sensors.positions, grid.family.scalp_pos, grid.family.scalp_faces
    )
    assert on_scalp.distances.max() < 1e-6
    assert np.allclose(drawn.head.source_pos, grid.source_pos)
