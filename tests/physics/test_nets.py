"""Nets with numbered electrodes: correct ones pass, and the fault of a wrong one is named."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deepesi.physics.cap_check import OF_NETS, check_cap
from deepesi.physics.cap_faults import compare_cap
from deepesi.physics.montage import standard_montage
from deepesi.physics.nets import NETS, possible_nets
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked, slow
from tests.physics.test_cap_check import CENTRE, turned, with_positions

#: Nets of the fast tests: one per system of names.
FEW = ("biosemi128", "easycap-M10", "GSN-HydroCel-129", "mgh60")
SOME = [*FEW, *map(slow, sorted({*NETS} - {*FEW}))]


def as_worn(positions, rng, error, pitch=0.0):
    """A net as digitized: pitched, scaled, shifted, each electrode off by `error` m (mean)."""
    turn = Rotation.from_euler("xyz", [pitch, *rng.normal(0, 2, 2)], degrees=True)
    worn = turn.apply((positions - CENTRE) * (1 + rng.normal(0, 0.05, 3))) + CENTRE
    steps = rng.normal(scale=error / np.sqrt(np.pi / 2), size=worn.shape)
    radial = (worn - CENTRE) / np.linalg.norm(worn - CENTRE, axis=1, keepdims=True)
    return worn + steps - radial * (steps * radial).sum(1, keepdims=True) + rng.normal(0, 7e-3, 3)


@pytest.mark.parametrize("pitch", [-12, 0, 12])
@pytest.mark.parametrize("montage", SOME)
def test_nets_as_worn_pass(montage, pitch):
    """Another size, 5 to 10 mm of digitization error, and a pitch of up to 12 degrees."""
    names, positions = standard_montage(montage)
    rng = np.random.default_rng(0)
    for error in (0.005, 0.01):
        for _ in range(5):
            check_cap(names, as_worn(positions, rng, error, pitch))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda p: p[:, [1, 0, 2]] * [1, -1, 1],
            "turned by (8|9). degrees.*x points to the nose, y",
        ),
        (lambda p: p[:, [2, 1, 0]] * [1, 1, -1], "turned by .*x points to the top of the head"),
        (lambda p: p[:, [1, 0, 2]], "mirrored, x points to the nose, y points to the right ear"),
        (lambda p: p * [-1, 1, 1], "mirrored, x points to the left ear, y points to the nose"),
        (lambda p: turned(p, "z", 25), "turned by [23]. degrees about the vertical axis"),
        (lambda p: turned(p, "y", -25), "turned by [23]. degrees about .* from back to front"),
        (lambda p: turned(p, "x", 40), "turned by [34]. degrees about the axis through the ears"),
    ],
)
@pytest.mark.parametrize("montage", SOME)
def test_turned_and_mirrored_nets_are_refused(montage, change, fault):
    names, positions = standard_montage(montage)
    rng = np.random.default_rng(1)
    for error in (0.0, 0.01):
        with pytest.raises(ValueError, match=f"contradict their names: as a .*{fault}.*--rename"):
            check_cap(names, change(as_worn(positions, rng, error)))


@pytest.mark.parametrize("montage", SOME)
def test_exchanged_electrodes_of_nets_are_named(montage):
    names, positions = standard_montage(montage)
    rng = np.random.default_rng(2)
    positions = as_worn(positions, rng, 0.005)
    for _ in range(5):
        one = rng.integers(len(names))
        far = np.flatnonzero(np.linalg.norm(positions - positions[one], axis=1) > 0.06)
        pair = sorted([one, rng.choice(far)])
        swapped = positions.copy()
        swapped[pair] = positions[pair[::-1]]
        text = " and ".join(names[row] for row in pair)
        with pytest.raises(ValueError, match=f"as a .*{text} are exchanged"):
            check_cap(names, swapped)


@pytest.mark.parametrize(
    ("rename", "montage"),
    [
        ("E{:03d}", "GSN-HydroCel-128"),
        ("EEG E{}", "GSN-HydroCel-128"),
        ("e{}", "GSN-HydroCel-128"),
        ("EEG {:03d}", "GSN-HydroCel-128"),
        ("EEG {:03d}", "mgh60"),
        ("{}", "easycap-M10"),
    ],
)
def test_numbers_in_any_spelling(rename, montage):
    positions = standard_montage(montage)[1]
    names = [rename.format(number) for number in range(1, len(positions) + 1)]
    names, positions = [*names, "VREF"], np.vstack([positions, [0, 0, 0.13]])
    check_cap(names, positions)
    with pytest.raises(ValueError, match="mirrored"):
        check_cap(names, positions * [-1, 1, 1])


@pytest.mark.parametrize("montage", ["biosemi16", "biosemi32", "biosemi64"])
def test_numbers_of_amplifiers_of_biosemi(montage):
    """The amplifier calls Fp1 ``A1``; no larger cap has its electrodes there."""
    positions = standard_montage(montage)[1]
    names = [f"{'AB'[row // 32]}{row % 32 + 1}" for row in range(len(positions))]
    check_cap(names, as_worn(positions, np.random.default_rng(0), 0.005))
    with pytest.raises(ValueError, match=f"as a {montage}, the cap is mirrored"):
        check_cap(names, positions * [-1, 1, 1])


def test_one_net_that_fits_is_enough():
    """``E1`` to ``E32`` are in every net of EGI; in one of 256 they lie elsewhere."""
    names, positions = standard_montage("GSN-HydroCel-256")
    names, positions = names[:32], positions[:32]
    nets = {net.name for net in possible_nets(names)}
    assert {"GSN-HydroCel-32", "GSN-HydroCel-129", "GSN-HydroCel-257", "EGI_256"} <= nets
    check_cap(names, positions)
    check_cap(names, as_worn(positions, np.random.default_rng(0), 0.005))


def test_two_layouts_of_one_net_are_within_the_tolerance():
    names, measured = standard_montage("EGI_256")
    designed = standard_montage("GSN-HydroCel-256")[1]
    for one, other in ((measured, designed), (designed, measured)):
        assert compare_cap(names, one, other, OF_NETS).fault == ""


@pytest.mark.parametrize("spelling", ["E{}", "{}", "A{}", "EEG {:03d}"])
@pytest.mark.parametrize("n_channels", [16, 32, 64])
def test_numbers_of_other_caps_say_nothing(spelling, n_channels):
    """Caps that no montage knows: numbered from the top, from front to back, or in no order."""
    scalp = standard_montage("fsaverage_1005")[1]
    scalp = scalp[scalp[:, 2] > 0]
    names = [spelling.format(number) for number in range(1, n_channels + 1)]
    rng = np.random.default_rng(n_channels)
    for axis in (2, 1, None, None):
        positions = scalp[rng.choice(len(scalp), n_channels, replace=False)]
        if axis is not None:
            positions = positions[positions[:, axis].argsort()[::-1]]
        check_cap(names, turned(positions, "z", 90))


#: A cap of the 10-10 system, numbered row by row from the forehead; ``mgh60`` is numbered alike.
ROWS = (
    ("Fp", "1 z 2"),
    ("AF", "7 3 4 8"),
    ("F", "7 5 3 1 z 2 4 6 8"),
    ("FT", "7"),
    ("FC", "5 3 1 z 2 4 6"),
    ("FT", "8"),
    ("T", "7"),
    ("C", "5 3 1 z 2 4 6"),
    ("T", "8"),
    ("TP", "7"),
    ("CP", "5 3 1 z 2 4 6"),
    ("TP", "8"),
    ("P", "7 5 3 1 z 2 4 6 8"),
    ("PO", "7 3 z 4 8"),
    ("O", "1 z 2"),
)


@pytest.mark.parametrize("spelling", ["{}", "EEG {:03d}"])
@pytest.mark.parametrize("n_channels", [16, 32, 48, 60])
def test_a_cap_that_resembles_a_net_passes(spelling, n_channels):
    at = dict(zip(*standard_montage("fsaverage_1005"), strict=True))
    electrodes = [row + column for row, columns in ROWS for column in columns.split()]
    positions = np.array([at[name] for name in electrodes[:n_channels]])
    names = [spelling.format(number) for number in range(1, n_channels + 1)]
    rng = np.random.default_rng(0)
    for error in (0.0, 0.005, 0.01):
        check_cap(names, as_worn(positions, rng, error))


def test_few_numbers_say_nothing():
    names, positions = standard_montage("GSN-HydroCel-128")
    check_cap(names[:15], turned(positions[:15], "z", 90))
    extra = [f"X{number}" for number in range(20)]
    check_cap(names[:32] + extra, np.vstack([turned(positions[:32], "z", 90), positions[-20:]]))


def test_the_sample_recording_passes(sample_data):
    """Names as in a montage (``EEG 001``), and another cap."""
    import mne

    info = mne.io.read_info(sample_data / "sample_audvis_short-ave.fif.gz", verbose="error")
    picks = mne.pick_types(info, meg=False, eeg=True, exclude=())
    names = [info["ch_names"][row] for row in picks]
    check_cap(names, np.array([info["chs"][row]["loc"][:3] for row in picks]))


def test_a_recording_with_a_net_is_refused(eloreta):
    """The border that `apply`, `prepare`, `validate` and Python have in common."""
    names, positions = standard_montage("GSN-HydroCel-32")
    evoked = make_evoked()
    evoked.rename_channels(dict(zip(evoked.ch_names, names[:32], strict=True)))
    places = dict(zip([tuple(c["loc"][:3]) for c in evoked.info["chs"]], positions, strict=False))
    right = with_positions(evoked.copy(), lambda p: places[tuple(p)])
    inverse = Inverse.load(eloreta)
    assert inverse.for_recording(right.info, make_covariance(right.info), nave=4) is not None
    turned_net = with_positions(evoked, lambda p: places[tuple(p)][[1, 0, 2]] * [1, -1, 1])
    with pytest.raises(ValueError, match="as a GSN-HydroCel-32, .* x points to the nose"):
        inverse.for_recording(turned_net.info, make_covariance(turned_net.info), nave=4)
