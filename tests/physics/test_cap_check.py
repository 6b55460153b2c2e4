"""Positions against names: every cap of MNE-Python passes, every fault of a list is named."""

import itertools

import mne
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deepesi.cli.main import main
from deepesi.physics.building.own_head import head_of_forward
from deepesi.physics.cap_check import check_cap
from deepesi.physics.channel_names import check_channel_names
from deepesi.physics.montage import TEN_TWENTY, standard_montage
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked

CENTRE = np.array([0, 0, 0.04])


def cap(names=TEN_TWENTY, montage="easycap-M1"):
    """Positions ``(C, 3)`` of electrodes, m, head frame."""
    known, positions = standard_montage(montage)
    rows = {name: row for row, name in enumerate(known)}
    return list(names), positions[[rows[name] for name in names]]


def biosemi(n_channels):
    return cap(standard_montage(f"biosemi{n_channels}")[0], f"biosemi{n_channels}")


def turned(positions, axis, degrees):
    turn = Rotation.from_euler(axis, degrees, degrees=True)
    return turn.apply(positions - CENTRE) + CENTRE


def as_worn(positions, rng, error):
    """A cap as digitized: pitched, scaled, shifted, each electrode off by `error` m (mean)."""
    pose = [rng.uniform(-4, 1), *rng.normal(0, 2, 2)]
    turn = Rotation.from_euler("xyz", pose, degrees=True)
    worn = turn.apply((positions - CENTRE) * (1 + rng.normal(0, 0.05, 3))) + CENTRE
    steps = rng.normal(scale=error / np.sqrt(np.pi / 2), size=worn.shape)
    radial = (worn - CENTRE) / np.linalg.norm(worn - CENTRE, axis=1, keepdims=True)
    return worn + steps - radial * (steps * radial).sum(1, keepdims=True) + rng.normal(0, 7e-3, 3)


@pytest.mark.parametrize("montage", mne.channels.get_builtin_montages())
def test_every_cap_of_mne_passes(montage):
    check_cap(*standard_montage(montage))


def test_eeglab_sample_recording_passes(eeglab_data):
    """The positions lie 49 mm from those of the names: another origin, and the same cap."""
    raw = mne.io.read_raw_eeglab(eeglab_data / "eeglab_data.set", verbose="error")
    raw.drop_channels(["EOG1", "EOG2"])
    check_cap(raw.ch_names, np.array([c["loc"][:3] for c in raw.info["chs"]]))


@pytest.mark.parametrize("n_channels", [16, 32, 64])
def test_caps_as_worn_pass(n_channels):
    """Errors of 10 mm per electrode, more than any digitizer or template cap has."""
    names, positions = biosemi(n_channels)
    rng = np.random.default_rng(n_channels)
    for _ in range(60):
        check_cap(names, as_worn(positions, rng, 0.01))


@pytest.mark.parametrize("montage", ["easycap-M1", "colin27_1005", "fsaverage_1005"])
@pytest.mark.parametrize("degrees", [-30, -20, 20, 30])
@pytest.mark.parametrize(
    ("axis", "about"),
    [("x", "through the ears"), ("y", "from back to front"), ("z", "vertical axis")],
)
def test_a_turned_cap_is_refused(montage, axis, degrees, about):
    names, positions = cap(montage=montage)
    with pytest.raises(ValueError, match=f"turned by [123]. degrees about .*({about}|slanted)"):
        check_cap(names, turned(positions, axis, degrees))


def test_a_turned_cap_as_worn_is_refused():
    rng = np.random.default_rng(0)
    names, positions = biosemi(32)
    for axis, degrees in itertools.product("xyz", (-20, 20, -25, 25)):
        with pytest.raises(ValueError, match="the cap is turned by"):
            check_cap(names, turned(as_worn(positions, rng, 0.006), axis, degrees))


def test_axes_of_eeglab_and_ctf_are_named():
    names, positions = cap()
    x, y, z = positions.T
    with pytest.raises(
        ValueError,
        match="turned by 9. degrees about the vertical axis, x points to the nose, y points to "
        "the left ear, z points to the top of the head.*--montage NAME",
    ):
        check_cap(names, np.stack([y, -x, z], axis=1))


@pytest.mark.parametrize(
    ("order", "signs"),
    [
        (order, signs)
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
        if (order, signs) != ((0, 1, 2), (1, 1, 1))
    ],
)
def test_every_order_of_axes_is_refused(order, signs):
    names, positions = biosemi(32)
    axes = np.eye(3)[list(order)] * np.array(signs)[:, None]
    kind = "turned" if np.linalg.det(axes) > 0 else "mirrored"
    with pytest.raises(ValueError, match=f"the cap is {kind}.*x points to"):
        check_cap(names, positions @ axes.T)


def test_a_mirrored_cap_is_named():
    names, positions = cap()
    with pytest.raises(
        ValueError, match="mirrored, x points to the left ear, y points to the nose"
    ):
        check_cap(names, positions * [-1, 1, 1])


@pytest.mark.parametrize(
    ("pair", "n_channels"),
    [(("C3", "C4"), 32), (("Fp1", "O2"), 16), (("F3", "FC1"), 32), (("C1", "CP1"), 64)],
)
def test_exchanged_electrodes_are_named(pair, n_channels):
    names, positions = biosemi(n_channels)
    rows = [names.index(name) for name in pair]
    positions[rows] = positions[rows[::-1]]
    with pytest.raises(ValueError, match=rf"names: ({'|'.join(pair)}) and .* are exchanged\. In"):
        check_cap(names, positions)


def test_electrodes_exchanged_in_a_ring_are_named():
    names, positions = biosemi(32)
    rows = [names.index(name) for name in ("F7", "C3", "O2")]
    positions[rows] = positions[np.roll(rows, 1)]
    with pytest.raises(ValueError, match="F7, .*have each other's positions"):
        check_cap(names, positions)


def test_scrambled_names_are_refused_in_a_short_message():
    names, positions = biosemi(64)
    scrambled = positions[np.random.default_rng(0).permutation(64)]
    with pytest.raises(ValueError, match="contradict their names: .{20,500} In the MNE"):
        check_cap(names, scrambled)


@pytest.mark.parametrize("unit", [1.0, 1e3])
def test_the_unit_does_not_count(unit):
    """Whether positions are in metres is another question, with an answer of its own."""
    names, positions = biosemi(32)
    check_cap(names, unit * positions)
    check_cap(names, np.zeros((32, 3)))
    with pytest.raises(ValueError, match="mirrored"):
        check_cap(names, unit * positions * [-1, 1, 1])


def test_a_misplaced_electrode_is_named():
    names, positions = biosemi(32)
    positions[names.index("F7")] = positions[names.index("CP5")] + 0.003
    with pytest.raises(ValueError, match=r"F7 lies [89]\d mm from the position of its name\. In"):
        check_cap(names, positions)


@pytest.mark.parametrize(
    "rename",
    [str.upper, str.lower, lambda n: {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}.get(n, n)],
)
def test_names_in_any_case_and_of_the_past(rename):
    names, positions = cap()
    names = [rename(name) for name in names]
    check_cap(names, positions)
    with pytest.raises(ValueError, match="mirrored"):
        check_cap(names, positions * [-1, 1, 1])


@pytest.mark.parametrize("reference", ["-Cz", "-REF", "-LE", "-A1A2"])
def test_a_reference_in_all_names_is_no_part_of_them(reference):
    """``F3-Cz`` beside ``F4-Cz`` is an electrode, and where it should be is known."""
    names, positions = cap()
    kept = [row for row, name in enumerate(names) if name != "Cz"]
    names, positions = [names[row] + reference for row in kept], positions[kept]
    check_cap(names, positions)
    with pytest.raises(ValueError, match="mirrored"):
        check_cap(names, positions * [-1, 1, 1])
    swapped = positions.copy()
    swapped[[2, 9]] = swapped[[9, 2]]
    with pytest.raises(ValueError, match=f"{names[2]} and {names[9]} are exchanged"):
        check_cap(names, swapped)


def test_chains_of_bipolar_derivations_say_nothing_of_a_cap():
    """``Fp1-F7, F7-T7, ...`` have no positions; another check reports this."""
    names, positions = cap()
    chain = [f"{a}-{b}" for a, b in itertools.pairwise(names)]
    check_cap(chain, turned(positions[:-1], "z", 90))
    with pytest.raises(ValueError, match="differences|derivations|bipolar"):
        check_channel_names(chain)


def test_few_names_say_nothing():
    names, positions = cap()
    check_cap(names[:7], turned(positions[:7], "z", 90))
    check_cap(names + [f"E{i}" for i in range(20)], np.tile(turned(positions, "z", 90), (3, 1)))


def with_positions(evoked, change):
    """The same response with other positions."""
    places = {c["ch_name"]: change(c["loc"][:3]) for c in evoked.info["chs"]}
    evoked.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
    return evoked


def test_a_recording_is_refused(eloreta):
    evoked = with_positions(make_evoked(), lambda p: p[[1, 0, 2]] * [1, -1, 1])
    with pytest.raises(ValueError, match="recording: the positions.*x points to the nose"):
        Inverse.load(eloreta).for_recording(evoked.info, make_covariance(evoked.info), nave=4)


def test_commands_refuse_it_and_take_standard_positions(eloreta, tmp_path, monkeypatch, capsys):
    evoked = with_positions(make_evoked(), lambda p: p * [-1, 1, 1])
    monkeypatch.chdir(tmp_path)
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    for command, out in (("apply", "out"), ("prepare", "head.npz")):
        arguments = [command, str(eloreta), "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", out]
        with pytest.raises(SystemExit, match="the cap is mirrored, x points to the left ear"):
            main(arguments)
        assert not list(tmp_path.glob(f"{out}*"))
        main([*arguments, "--montage", "biosemi32"])
        assert "wrote" in capsys.readouterr().out


def test_a_forward_solution_is_refused(eloreta, tmp_path):
    """The recording is right, its forward solution was computed for a mirrored cap."""
    evoked = make_evoked()
    mirrored = with_positions(make_evoked(), lambda p: p * [-1, 1, 1])
    sphere = mne.make_sphere_model("auto", "auto", evoked.info, verbose="error")
    src = mne.setup_volume_source_space(None, 30.0, sphere=sphere, verbose="error")
    forward = mne.make_forward_solution(
        mirrored.info, None, src, sphere, meg=False, verbose="error"
    )
    covariance = make_covariance(evoked.info)
    with pytest.raises(ValueError, match="forward solution: the positions.*mirrored"):
        Inverse.load(eloreta).for_recording(evoked.info, covariance, forward, nave=4)
    path = tmp_path / "x-fwd.fif"
    mne.write_forward_solution(path, forward, verbose="error")
    with pytest.raises(ValueError, match="head_of_forward: .*x-fwd.fif: the positions.*mirrored"):
        head_of_forward(path, n_orient=3)
