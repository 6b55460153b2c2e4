"""Caps as rigid bodies: realised poses and errors, what the analyst takes, and refused ranges."""

import doctest
from dataclasses import replace

import numpy as np
import pytest

from deepesi.data_gen import caps
from deepesi.data_gen.caps import CapRanges, Movement, displace_cap, draw_cap, moved_cap
from deepesi.physics.cap_placement import positions_of_names
from deepesi.physics.cap_pose import MIDDLE, fit_pose

MONTAGE = "easycap-M1"
STILL = CapRanges(
    pitch=0.0,
    pitch_sd=0.0,
    rotation_sd=0.0,
    lateral_shift_sd=0.0,
    shift_sd=(0.0, 0.0),
    electrode_error=(0.0, 0.0),
    digitization_error=(0.0, 0.0),
    coregistration_shift_sd=(0.0, 0.0),
    coregistration_rotation_sd=(0.0, 0.0),
)
#: As in `CapRanges`, without errors of single electrodes.
RIGID = Movement(
    np.radians([-3.5, 0, 0]), np.radians([5.5, 2, 2]), np.array([0.002, 0.007, 0.007]), 0.0
)


@pytest.fixture(scope="module")
def cap(template):
    """Names of the cap and the positions of these names on the head."""
    names, _ = template.montage(MONTAGE)
    rows, known = positions_of_names(template, names)
    assert len(rows) == 72
    return [names[row] for row in rows], known


def drawn(template, names, ranges, n_poses=3, n_copies=2, seed=0):
    rng = np.random.default_rng(seed)
    return draw_cap(template, MONTAGE, names, ranges, n_poses, n_copies, rng)


def same(points, others) -> bool:
    return all(
        np.array_equal(a, b)
        for a, b in zip(vars(points).values(), vars(others).values(), strict=True)
    )


# Realised movements


def test_realised_poses_equal_the_ranges(template, cap):
    moved = moved_cap(template, cap[1], RIGID, 1500, 1, np.random.default_rng(0))[:, 0]
    start = cap[1].positions
    poses = [fit_pose(start, positions, n_iterations=1) for positions in moved]
    pitch = np.array([pose.pitch for pose in poses])
    assert pitch.mean() == pytest.approx(-3.5, rel=0.1)
    assert pitch.std() == pytest.approx(5.5, rel=0.1)
    turns = np.array([p.turn for p in poses])
    about_z = np.degrees((turns[:, 1, 0] - turns[:, 0, 1]) / 2)
    about_y = np.degrees((turns[:, 0, 2] - turns[:, 2, 0]) / 2)
    assert about_z.std() == pytest.approx(2, rel=0.1)
    assert about_y.std() == pytest.approx(2, rel=0.1)
    middle = np.array([p.recorded(MIDDLE[None])[0] - MIDDLE for p in poses])
    assert middle.std(axis=0) == pytest.approx([0.002, 0.007, 0.007], rel=0.1)
    assert np.abs(middle.mean(axis=0)).max() < 0.0005


def test_pitch_survives_the_projection_onto_the_scalp(template, cap):
    """Only the part of a shift along the scalp remains."""
    onto = displace_cap(template, cap[1], RIGID, 400, 1, np.random.default_rng(0))
    poses = [fit_pose(cap[1].positions, p, n_iterations=1) for p in onto.positions[:, 0]]
    pitch = np.array([pose.pitch for pose in poses])
    assert pitch.mean() == pytest.approx(-3.5, rel=0.1)
    assert pitch.std() == pytest.approx(5.5, rel=0.1)
    middle = np.array([p.recorded(MIDDLE[None])[0] - MIDDLE for p in poses])
    assert middle.std(axis=0) / RIGID.shift_sd == pytest.approx([0.5, 0.65, 0.95], abs=0.1)


@pytest.mark.parametrize("error", [0.003, 0.007])
def test_realised_electrode_errors_equal_the_range(template, cap, error):
    ranges = replace(STILL, electrode_error=(error, error), knowledge=("names",))
    made = drawn(template, cap[0], ranges, 4, 16)
    steps = np.linalg.norm(made.displaced.positions - made.nominal.positions, axis=-1)
    assert steps.mean() == pytest.approx(error, rel=0.1)


def test_copies_share_the_pose_and_not_the_error(template, cap):
    made = drawn(template, cap[0], CapRanges(electrode_error=(0.001, 0.001)), 8, 8)
    means = made.displaced.positions.mean(axis=2)
    assert means.std(axis=1).max() < 0.0006 < means.std(axis=0).max()
    assert made.displaced.vertices.shape == (8, 8, len(cap[0]), 3)


# What the analyst takes


@pytest.mark.parametrize("knowledge", ["names", "digitized"])
def test_zero_ranges_give_the_nominal_positions_bit_for_bit(template, cap, knowledge):
    made = drawn(template, cap[0], replace(STILL, knowledge=(knowledge,)))
    assert made.displaced.positions.shape == (1, 1, len(cap[0]), 3)
    assert same(made.displaced[0, 0], made.nominal)
    assert same(made.nominal, cap[1])


def test_names_give_the_positions_of_the_names(template, cap):
    made = drawn(template, cap[0], CapRanges(knowledge=("names",)))
    assert made.knowledge == "names"
    assert same(made.nominal, cap[1])


def test_a_template_cap_is_the_fitted_montage_and_the_true_one_is_not(template, cap):
    made = drawn(template, cap[0], replace(STILL, knowledge=("template",)))
    known, fitted = template.montage(MONTAGE)
    assert same(made.nominal, fitted[[known.index(n) for n in cap[0]]])
    assert same(made.displaced[0, 0], cap[1])
    apart = np.linalg.norm(made.nominal.positions - cap[1].positions, axis=1)
    assert 0.003 < apart.mean() < 0.008


def test_digitized_positions_are_near_the_true_ones_and_far_from_the_names(template, cap):
    near, far = [], []
    for seed in range(20):
        made = drawn(template, cap[0], CapRanges(knowledge=("digitized",)), 4, 4, seed)
        off = np.linalg.norm(made.displaced.positions - made.nominal.positions, axis=-1)
        near.append(off.mean())
        far.append(np.linalg.norm(made.nominal.positions - cap[1].positions, axis=1).mean())
    assert np.mean(near) < 0.006 < 0.008 < np.mean(far)


def test_names_miss_the_true_positions_as_much_as_measured_on_real_recordings(template, cap):
    """7 to 18 mm in real recordings."""
    off = []
    for seed in range(20):
        made = drawn(template, cap[0], CapRanges(knowledge=("names",)), 8, 1, seed)
        away = np.linalg.norm(made.displaced.positions - made.nominal.positions, axis=-1)
        off.extend(away.mean(axis=(1, 2)))
    low, median, high = np.quantile(off, [0.05, 0.5, 0.95])
    assert 0.004 < low < median < high < 0.025
    assert 0.007 < median < 0.014


def test_all_levels_of_knowledge_are_drawn(template, cap):
    rng = np.random.default_rng(0)
    knowledge = [
        draw_cap(template, MONTAGE, cap[0], STILL, 1, 1, rng).knowledge for _ in range(200)
    ]
    shares = [knowledge.count(level) / 200 for level in ("names", "template", "digitized")]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.1)


def test_the_same_generator_gives_the_same_cap(template, cap):
    a, b = (drawn(template, cap[0], CapRanges(), seed=5) for _ in range(2))
    assert same(a.displaced, b.displaced)
    assert a.knowledge == b.knowledge


def test_other_names_keep_their_position_among_the_electrodes(template, cap):
    names, fitted = template.montage(MONTAGE)
    made = drawn(template, names, replace(STILL, knowledge=("names",)))
    others = [row for row, name in enumerate(names) if name not in cap[0]]
    assert len(others) == 2
    moved = np.linalg.norm(made.nominal.positions - fitted.positions, axis=1)
    assert 0.001 < moved[others].max() < 0.02
    assert same(made.nominal[[names.index(n) for n in cap[0]]], cap[1])


def test_a_cap_without_names_of_the_system_keeps_its_montage(template):
    names, fitted = template.montage("biosemi128")
    rng = np.random.default_rng(0)
    ranges = replace(STILL, knowledge=("names",))
    made = draw_cap(template, "biosemi128", names, ranges, 2, 2, rng)
    assert same(made.nominal, fitted)


def test_the_example_of_the_docstring_runs():
    results = doctest.testmod(caps)
    assert results.attempted >= 6
    assert results.failed == 0


# Refused


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"pitch": -3.5}, "pitch -3.5 must lie within -0.35 to 0.35 rad: radians"),
        ({"pitch_sd": 5.5}, "pitch_sd 5.5 must lie within 0 to 0.35 rad"),
        ({"rotation_sd": 2.0}, "rotation_sd 2 .* rad"),
        ({"rotation_sd": -0.01}, "rotation_sd -0.01 .* rad"),
        ({"lateral_shift_sd": 2.0}, "lateral_shift_sd 2 .* m: metres"),
        ({"shift_sd": (6.0, 8.0)}, "shift_sd 6 to 8 .* m: metres"),
        ({"shift_sd": (0.008, 0.006)}, "shift_sd 0.008 to 0.006 must be an ascending range"),
        ({"electrode_error": (3.0, 7.0)}, "electrode_error 3 to 7 .* m: metres"),
        ({"digitization_error": (1.0, 3.0)}, "digitization_error 1 to 3 .* m: metres"),
        ({"coregistration_shift_sd": (1.0, 3.0)}, "coregistration_shift_sd 1 to 3 .* m: metres"),
        ({"coregistration_rotation_sd": (1.0, 3.0)}, "coregistration_rotation_sd 1 to 3 .* rad"),
        ({"knowledge": ("mri",)}, r"knowledge \['mri'\], expected some of \['names', 'template'"),
        ({"knowledge": ()}, r"knowledge \[\], expected some of"),
    ],
)
def test_degrees_millimetres_and_unknown_levels_are_refused(setting, message):
    with pytest.raises(ValueError, match=f"CapRanges: {message}"):
        CapRanges(**setting)
