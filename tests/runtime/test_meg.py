"""Recordings with MEG: alone and beside EEG, equal to MNE-Python's, and what is refused."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.physics.coil_placement import FAR_FROM_FIDUCIALS
from deepesi.physics.family import NOMINAL
from deepesi.physics.helmets import CLEARANCE, put_on
from deepesi.physics.helmets import helmet as helmet_of
from deepesi.physics.io.channels import sensor_array
from deepesi.physics.io.coils import coils_of, sss_rank
from deepesi.physics.io.heads import head_from_forward, head_on_template
from deepesi.physics.io.placed_coils import place_recorded_coils
from deepesi.physics.io.rank import RankWarning, _by_info
from deepesi.physics.io.selection import unused_channels
from deepesi.physics.linear_inverse import METHODS, linear_inverse
from deepesi.physics.noise import rank_of, whitener
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse, PlacementWarning
from tests.conftest import SHARED

LAMBDA2 = 1 / 9
#: Left ear, nasion and right ear of fsaverage, m, head frame.
FIDUCIALS = np.array([[-0.0825, 0, 0], [0, 0.11405, 0], [0.0825, 0, 0]])
MIXTURES = {
    "both": {"meg": True, "eeg": True},
    "meg": {"meg": True, "eeg": False},
    "mag": {"meg": "mag", "eeg": False},
    "grad": {"meg": "grad", "eeg": False},
    "eeg": {"meg": False, "eeg": True},
}


@cache
def helmet():
    """Every sixth triplet of a Neuromag helmet and 32 electrodes."""
    meg = mne.channels.read_meg_canonical_info("neuromag")
    meg = mne.pick_info(meg, [i for start in range(0, 306, 18) for i in range(start, start + 3)])
    montage = mne.channels.make_standard_montage("biosemi32")
    eeg = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    with meg._unlock():
        meg["sfreq"] = eeg["sfreq"]
        meg["chs"] = meg["chs"] + eeg["chs"]
        meg["dig"] = eeg["dig"]
    meg._update_redundant()
    shift = np.eye(4)
    shift[:3, 3] = 0, 0.01, 0.05
    meg["dev_head_t"] = mne.Transform("meg", "head", shift)
    return meg


@cache
def forward():
    """Two halves of a sphere with 20 sources each, seen by all sensors."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(40, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[:, 0] = np.repeat([-1, 1], 20) * np.abs(normals[:, 0])
    center = np.array([0, 0, 0.04])
    tangents = np.cross(normals, rng.normal(size=(40, 3)))
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    sphere = mne.make_sphere_model(center, 0.09, info=helmet(), verbose="error")
    src = mne.setup_volume_source_space(
        pos={"rr": center + 0.065 * normals, "nn": tangents}, verbose="error"
    )
    found = mne.make_forward_solution(helmet(), None, src, sphere, verbose="error")
    halves = []
    for number, rows in enumerate((range(20), range(20, 40))):
        half = src[0].copy()
        half["type"], half["id"] = "surf", 101 + number
        half["rr"], half["nn"] = half["rr"][rows], half["nn"][rows]
        half["np"] = half["nuse"] = 20
        half["inuse"], half["vertno"] = np.ones(20, int), np.arange(20)
        half["use_tris"] = half["tris"] = np.zeros((0, 3), int)
        half["nuse_tri"] = half["ntri"] = 0
        half["coord_frame"] = found["src"][0]["coord_frame"]
        half["patch_inds"] = None
        halves.append(half)
    found["src"] = mne.SourceSpaces(halves)
    return found


@cache
def recording():
    """A source under noise of 1 µV, 50 fT and 10 fT/cm; the noise covariance of single trials."""
    info = helmet()
    units = sensor_array(info, info["ch_names"]).head_units
    rng = np.random.default_rng(1)
    names = forward()["sol"]["row_names"]
    order = [names.index(name) for name in info["ch_names"]]
    noise = 1e-6 * units[:, None] * rng.normal(size=(len(units), 2000))
    raw = mne.io.RawArray(noise, info, verbose="error")
    cov = mne.compute_raw_covariance(raw, verbose="error")
    signal = 1e-7 * forward()["sol"]["data"][order, 21:24] @ forward()["src"][0]["nn"][7]
    data = signal[:, None] * np.hanning(20) + noise[:, :20] / 3
    evoked = mne.EvokedArray(data, info, tmin=-0.02, nave=9, baseline=None, verbose="error")
    return evoked, cov


def mixture(name):
    evoked, cov = recording()
    return evoked.copy(), cov, mne.pick_types_forward(forward().copy(), **MIXTURES[name])


def by_mne(evoked, forward, cov, method, n_orient, **settings):
    if "eeg" in evoked.get_channel_types():
        evoked = evoked.copy().set_eeg_reference(projection=True, verbose="error")
    fixed = n_orient == 1
    operator = mne.minimum_norm.make_inverse_operator(
        evoked.info,
        forward,
        cov,
        loose=0.0 if fixed else 1.0,
        fixed=fixed,
        depth=None,
        verbose="error",
        **settings,
    )
    pick_ori = None if fixed else "vector"
    stc = mne.minimum_norm.apply_inverse(
        evoked, operator, LAMBDA2, method, pick_ori=pick_ori, verbose="error"
    )
    return stc.data.reshape(-1, len(evoked.times))


def by_kernel(evoked, head, method):
    kernel = linear_inverse(head.leadfield, head.noise_cov, LAMBDA2, method, head.space.n_orient)
    return kernel @ head.sensors.to_head(evoked.get_data(picks=list(head.sensors.names)))


@pytest.mark.parametrize("n_orient", [1, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MIXTURES)
def test_minimum_norms_equal_those_of_mne(name, method, n_orient):
    evoked, cov, solution = mixture(name)
    head = head_from_forward(evoked.info, cov, solution, evoked.nave, n_orient=n_orient)
    found, expected = (
        by_kernel(evoked, head, method),
        by_mne(evoked, solution, cov, method, n_orient),
    )
    assert np.allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_whitened_noise_is_white():
    evoked, cov, solution = mixture("both")
    head = head_from_forward(evoked.info, cov, solution, evoked.nave)
    assert rank_of(head.noise_cov) == head.sensors.rank
    white = whitener(head.noise_cov)
    assert np.allclose(
        white @ head.noise_cov @ white, head.sensors.reference_operator, rtol=0, atol=1e-8
    )


def test_potentials_and_fields_are_independent():
    evoked, cov, solution = mixture("both")
    head = head_from_forward(evoked.info, cov, solution, evoked.nave)
    eeg = head.sensors.rows_of("eeg")
    coils = np.setdiff1d(np.arange(len(head.sensors)), eeg)
    assert not head.noise_cov[np.ix_(eeg, coils)].any()
    assert np.abs(
        head.noise_cov[np.ix_(coils, coils)] - np.diag(np.diag(head.noise_cov)[coils])
    ).any()


def test_all_kinds_have_the_same_size_in_heads():
    evoked, cov, solution = mixture("both")
    head = head_from_forward(evoked.info, cov, solution, 1)
    stds = np.sqrt(np.diag(head.noise_cov))
    for kind in ("eeg", "mag", "grad"):
        assert np.median(stds[head.sensors.rows_of(kind)]) == pytest.approx(1e-6, rel=0.1)


def test_sensors_are_in_the_head_frame():
    evoked, _, _ = mixture("meg")
    names = [c for c in evoked.ch_names if c.startswith("MEG")]
    sensors = sensor_array(evoked.info, names)
    device = np.array([evoked.info["chs"][i]["loc"][:3] for i in range(len(names))])
    assert np.allclose(sensors.positions, device + np.array([0, 0.01, 0.05]))
    assert np.allclose(np.linalg.norm(sensors.orientations, axis=1), 1)
    assert sensors.title == "MEG"


def test_kinds_that_the_forward_solution_lacks_are_not_used():
    evoked, cov, solution = mixture("eeg")
    head = head_from_forward(evoked.info, cov, solution, 1)
    assert set(head.sensors.kinds) == {"eeg"}
    n_mag, n_grad = (evoked.get_channel_types().count(kind) for kind in ("mag", "grad"))
    text = unused_channels(evoked.info, head.sensors)
    assert sorted(text.split(", ")) == sorted(
        [f"{n_mag} magnetometer channels", f"{n_grad} gradiometer channels"]
    )


@pytest.mark.parametrize("applied", [False, True])
def test_projectors_are_handled_as_in_mne(applied):
    """Applied to the recording or not: MNE-Python applies those of MEG before an inverse."""
    evoked, cov, solution = mixture("both")
    rng = np.random.default_rng(2)
    mags = [
        c
        for c, kind in zip(evoked.ch_names, evoked.get_channel_types(), strict=True)
        if kind == "mag"
    ]
    vectors = np.linalg.qr(rng.normal(size=(len(mags), 2)))[0].T
    projs = [
        mne.Projection(
            active=False,
            data={
                "row_names": None,
                "col_names": mags,
                "data": v[None],
                "nrow": 1,
                "ncol": len(mags),
            },
            desc=f"PCA-{number}",
            kind=1,
        )
        for number, v in enumerate(vectors)
    ]
    evoked.add_proj(projs, verbose="error")
    if applied:
        evoked.apply_proj(verbose="error")
    head = head_from_forward(evoked.info, cov, solution, evoked.nave)
    assert rank_of(head.noise_cov) == len(head.sensors) - 3
    expected = by_mne(evoked, solution, cov, "sLORETA", 1)
    found = by_kernel(evoked, head, "sLORETA")
    assert np.allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def with_sss(info, nfree):
    """An info as after Maxwell filtering that left `nfree` dimensions."""
    info = info.copy()
    components = np.zeros(95, int)
    components[:nfree] = 1
    with info._unlock():
        info["proc_history"] = [
            {
                "max_info": {
                    "sss_info": {
                        "nfree": nfree,
                        "components": components,
                        "in_order": 8,
                        "out_order": 3,
                        "frame": 1,
                        "job": 2,
                        "origin": np.zeros(3),
                        "nchan": 306,
                    },
                    "max_st": {},
                    "sss_ctc": {},
                    "sss_cal": {},
                }
            }
        ]
    return info


def test_an_overstated_rank_of_sss_is_warned_of():
    evoked, cov, solution = mixture("both")
    info, n_eeg = with_sss(evoked.info, 20), evoked.get_channel_types().count("eeg")
    assert sss_rank(info) == 20
    assert sss_rank(evoked.info) is None
    with pytest.warns(RankWarning, match=r"spans 51 dimensions .*left 20 .*--rank info"):
        head_from_forward(info, cov, solution, 1)
    head = head_from_forward(info, cov, solution, 1, rank="info")
    coils = np.setdiff1d(np.arange(len(head.sensors)), head.sensors.rows_of("eeg"))
    assert rank_of(head.noise_cov[np.ix_(coils, coils)]) == 20
    assert rank_of(head.noise_cov) == 20 + n_eeg - 1
    head = head_from_forward(info, cov, solution, 1, rank={"meg": 20})
    assert rank_of(head.noise_cov[np.ix_(coils, coils)]) == 20
    assert rank_of(head.noise_cov) == 20 + n_eeg - 1


def test_projectors_take_dimensions_off_what_sss_left():
    evoked, cov, solution = mixture("both")
    info = with_sss(evoked.info, 20)
    sensors = head_from_forward(info, cov, solution, 1, rank="info").sensors
    coils = np.flatnonzero(np.array(sensors.modalities) == "meg")
    projector = np.array(sensors.reference_operator)
    pattern = np.zeros(len(sensors))
    pattern[coils] = 1 / np.sqrt(len(coils))
    projector = projector - np.outer(pattern, pattern)
    assert _by_info(sensors, projector, info)["meg"] == 19


def refused(message, change=lambda e, c, f: None, name="both"):
    evoked, cov, solution = (part.copy() for part in mixture(name))
    changed = change(evoked, cov, solution)
    evoked, cov, solution = changed or (evoked, cov, solution)
    with pytest.raises(ValueError, match=message):
        head_from_forward(evoked.info, cov, solution, evoked.nave)


def without_transform(evoked, cov, solution):
    evoked.info["dev_head_t"] = None


def moved_head(evoked, cov, solution):
    shift = evoked.info["dev_head_t"]["trans"].copy()
    shift[2, 3] += 0.02
    evoked.info["dev_head_t"] = mne.Transform("meg", "head", shift)


def mostly_bad(evoked, cov, solution):
    kinds = zip(evoked.ch_names, evoked.get_channel_types(), strict=True)
    evoked.info["bads"] = [c for c, kind in kinds if kind != "eeg"][7:]


def in_femtotesla(evoked, cov, solution):
    rows = [i for i, kind in enumerate(evoked.get_channel_types()) if kind == "mag"]
    cov["data"][rows] *= 1e15
    cov["data"][:, rows] *= 1e15


def one_in_another_unit(evoked, cov, solution):
    cov["data"][2] *= 1e4
    cov["data"][:, 2] *= 1e4


def of_other_channels(evoked, cov, solution):
    cov["names"] = [name.replace("MEG", "REF") for name in cov["names"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_transform, r"frame of the device, .*dev_head_t.*is None.*Take the transform"),
        (moved_head, r"MEG coils lie 20 mm .*another position of the head"),
        (mostly_bad, r"7 of its 51 MEG channels .*are good, expected at least 8"),
        (in_femtotesla, r"magnetometer in tesla .*Covariances are in T².*multiply by 1e-30"),
        (one_in_another_unit, r"MEG 0\d+ .*more than 1000 times .*another unit"),
        (of_other_channels, r"51 of the 83 good EEG and MEG channels .*not in it"),
    ],
)
def test_what_cannot_be_localized_is_refused(change, message):
    refused(message, change)


def test_another_compensation_grade_is_refused():
    """The grade of CTF data is in the coil types: third-order gradients here."""
    evoked, cov, solution = mixture("meg")
    for channel in evoked.info["chs"]:
        if channel["kind"] == 1:
            channel["coil_type"] = int(channel["coil_type"]) | (3 << 16)
    with pytest.raises(ValueError, match="compensation grade 0, the recording has grade 3"):
        head_from_forward(evoked.info, cov, solution, 1)


def test_data_in_femtotesla_are_refused(eloreta):
    evoked, cov, solution = mixture("both")
    inverse = Inverse.load(eloreta).for_recording(evoked, cov, solution)
    rows = [i for i, kind in enumerate(evoked.get_channel_types()) if kind == "mag"]
    evoked.data[rows] *= 1e15
    with pytest.raises(ValueError, match=r"magnetometer in tesla.* look like femtotesla"):
        inverse.apply(evoked)


@pytest.mark.parametrize("name", MIXTURES)
def test_one_file_takes_any_mixture(eloreta, name, tmp_path):
    """An exported file, prepared for a recording and read back, finds the source."""
    evoked, cov, solution = mixture(name)
    inverse = Inverse.load(eloreta).for_recording(evoked, cov, solution)
    stc = inverse.apply(evoked, baseline="none").stc
    assert np.abs(stc.data[:, 9]).argmax() == 7
    inverse.save(tmp_path / "head.npz")
    again = Inverse.load(eloreta).for_prepared(tmp_path / "head.npz")
    assert again.sensors.kinds == inverse.sensors.kinds
    assert np.allclose(again.apply(evoked, baseline="none").stc.data, stc.data)


def test_another_position_of_the_head_is_refused_with_a_prepared_head(eloreta, tmp_path):
    evoked, cov, solution = mixture("both")
    Inverse.load(eloreta).for_recording(evoked, cov, solution).save(tmp_path / "head.npz")
    moved = evoked.copy()
    with moved.info._unlock():
        moved.info["dev_head_t"]["trans"][2, 3] += 0.02
    again = Inverse.load(eloreta).for_prepared(tmp_path / "head.npz")
    with pytest.raises(ValueError, match=r"MEG coils lie 20 mm \(mean\) .*Prepare again"):
        again.apply(moved, baseline="none")


def test_a_file_for_eeg_refuses_meg_by_name():
    """Files of before MEG name EEG alone; nothing is computed."""
    evoked, cov, solution = mixture("both")
    inverse = Inverse.load("default")
    assert inverse.contract.sensor_kinds == ("eeg",)
    beside = (
        r"takes EEG channels, .* have magnetometer and gradiometer channels as well.*--picks eeg"
    )
    with pytest.raises(ValueError, match=beside):
        inverse.for_recording(evoked, cov, solution)
    with pytest.raises(ValueError, match=r"takes EEG channels, .* gradiometer channels\. To go"):
        inverse.for_recording(evoked, cov, solution, picks="grad")


def test_a_prepared_head_with_meg_is_refused_by_a_file_for_eeg(eloreta, tmp_path):
    evoked, cov, solution = mixture("both")
    path = tmp_path / "head.npz"
    inverse = Inverse.load(eloreta)
    inverse.for_recording(evoked, cov, solution).save(path)
    only = SimpleNamespace(contract=replace(inverse.contract, sensor_kinds=("eeg",)))
    with pytest.raises(ValueError, match="takes EEG channels"):
        Inverse(only).for_prepared(path)


@pytest.mark.parametrize("name", MIXTURES)
def test_picks_are_those_of_a_picked_forward_solution(name, eloreta):
    evoked, cov, solution = mixture("both")
    picks = ["eeg", "meg"] if name == "both" else name
    inverse = Inverse.load(eloreta)
    found = inverse.for_recording(evoked, cov, solution, picks=picks)
    expected = inverse.for_recording(evoked, cov, mixture(name)[2])
    assert found.sensors.names == expected.sensors.names
    first, second = (p.apply(evoked, baseline="none").stc.data for p in (found, expected))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        ("seeg", r"picks: got \['seeg'\], expected some of eeg, meg, mag, grad"),
        ([], "picks: got none"),
        ("mag", "no good mag channels, only eeg, grad"),
    ],
)
def test_picks_that_cannot_be_are_refused(picks, message, eloreta):
    evoked, cov, solution = mixture("both")
    evoked.info["bads"] = [
        c for c, k in zip(evoked.ch_names, evoked.get_channel_types(), strict=True) if k == "mag"
    ]
    with pytest.raises(ValueError, match=message):
        Inverse.load(eloreta).for_recording(evoked, cov, solution, picks=picks)


def test_a_picked_kind_without_a_lead_field_is_refused(eloreta):
    evoked, cov, solution = mixture("eeg")
    message = r"forward solution has no grad and no mag channels .*, only eeg.*--picks eeg\)"
    with pytest.raises(ValueError, match=message):
        Inverse.load(eloreta).for_recording(evoked, cov, solution, picks=["eeg", "meg"])


def test_prepare_picks_from_the_command_line(eloreta, tmp_path, capsys):
    evoked, cov, solution = mixture("both")
    evoked.save(tmp_path / "x-ave.fif", verbose="error")
    cov.save(tmp_path / "x-cov.fif", verbose="error")
    mne.write_forward_solution(tmp_path / "x-fwd.fif", solution, verbose="error")
    files = ["--noise-cov", "x-cov.fif", "--forward", "x-fwd.fif", "--out", "head.npz"]
    files = [str(tmp_path / f) if f.endswith(("fif", "npz")) else f for f in files]
    main(["prepare", str(eloreta), str(tmp_path / "x-ave.fif"), *files, "--picks", "eeg", "mag"])
    assert "49 channels" in capsys.readouterr().out
    kinds = Inverse.load(eloreta).for_prepared(tmp_path / "head.npz").sensors.kinds
    assert set(kinds) == {"eeg", "mag"}


def test_offsets_are_said_in_the_unit_of_each_kind(eloreta):
    evoked, cov, solution = mixture("both")
    units = sensor_array(evoked.info, evoked.ch_names).head_units
    rng = np.random.default_rng(3)
    data = 1e-6 * units[:, None] * rng.normal(size=(len(units), 500))
    data[evoked.ch_names.index("Cz")] += 1e-4
    data[evoked.get_channel_types().index("mag")] += 2e-12
    raw = mne.io.RawArray(data, evoked.info, verbose="error")
    inverse = Inverse.load(eloreta).for_recording(raw, cov, solution)
    (text,) = inverse.correct(raw).changes
    assert re.search(r"offsets .* \(up to 96\.\d µV, 2e\+03 fT, [.\d]+ fT/cm\)", text)


@cache
def on_fsaverage():
    """A helmet on fsaverage and a source of the packaged head: average, covariance, source."""
    template, info = load_template(), mne.channels.read_meg_canonical_info("neuromag")
    info = mne.pick_info(info, list(range(0, 306, 9)) + list(range(1, 306, 9)))
    device, gap = helmet_of("neuromag306"), CLEARANCE + 0.01
    placed = put_on(device, template.family.scalp_pos, np.eye(3), np.zeros(2), gap)
    shift = np.eye(4)
    shift[:3, 3] = placed.points[0] - device.points[0]
    info["dev_head_t"] = mne.Transform("meg", "head", shift)
    left, nasion, right = FIDUCIALS
    with info._unlock():
        info["dig"] = mne.channels.make_dig_montage(
            lpa=left, nasion=nasion, rpa=right, coord_frame="head"
        ).dig
        info["sfreq"] = 250.0
    coils = coils_of(info)
    source = 200
    field = coils.sensors.head_units * template.magnetic.leadfield(NOMINAL, coils)[:, source]
    units, rng = coils.sensors.head_units[:, None], np.random.default_rng(0)
    data = 1e-7 * field[:, None] * np.hanning(20) + 1e-7 * units * rng.normal(size=(len(units), 20))
    evoked = mne.EvokedArray(data, info, tmin=-0.02, nave=1, baseline=None, verbose="error")
    cov = mne.Covariance(1e-14 * units[:, 0] ** 2, info.ch_names, [], [], 1000, verbose="error")
    return evoked, cov, source


def change_info(change):
    evoked, cov, source = on_fsaverage()
    evoked = evoked.copy()
    with evoked.info._unlock():
        change(evoked.info)
    return evoked, cov, source


def test_meg_on_the_packaged_head_finds_its_source(eloreta):
    """No forward solution: fiducials as those of the template leave the coils where they are."""
    evoked, cov, source = on_fsaverage()
    inverse = Inverse.load(eloreta).for_recording(evoked, cov)
    assert np.allclose(
        inverse.sensors.positions, coils_of(evoked.info).sensors.positions, atol=1e-4
    )
    assert str(inverse.coils).startswith("placed by the fiducials, residual 0.0 mm, nearest coil")
    stc = inverse.apply(evoked, baseline="none").stc
    peak = np.abs(stc.data[:, 9]).argmax()
    template = load_template()
    assert np.linalg.norm(template.source_pos[peak] - template.source_pos[source]) < 0.025
    gain = template.magnetic.leadfield(NOMINAL, coils_of(evoked.info))
    head = head_on_template(evoked.info, cov, template, coils=inverse.coils.coils)
    assert np.allclose(head.leadfield, gain, rtol=0, atol=1e-3 * np.abs(gain).max())


def test_coils_are_scaled_with_the_head_and_keep_their_size(eloreta):
    """A head nine tenths as large in a helmet nine tenths as wide: the template's lead field."""

    def smaller(info):
        for point in info["dig"]:
            point["r"] = 0.9 * point["r"]
        info["dev_head_t"] = mne.Transform("meg", "head", np.eye(4))
        for channel in info["chs"]:
            centre = channel["loc"][:3] + on_fsaverage()[0].info["dev_head_t"]["trans"][:3, 3]
            channel["loc"] = np.concatenate([0.9 * centre, channel["loc"][3:]])

    evoked, _, _ = change_info(smaller)
    found = place_recorded_coils(evoked.info, load_template()).coils
    whole = coils_of(on_fsaverage()[0].info)
    assert np.allclose(found.points, whole.points, atol=2e-4)
    assert np.allclose(found.directions, whole.directions)


def test_a_transform_of_the_user_places_the_coils():
    evoked, _, _ = on_fsaverage()
    folder = Path(mne.__file__).parent / "data" / "fsaverage"
    trans = mne.read_trans(folder / "fsaverage-trans.fif")
    found = place_recorded_coils(evoked.info, load_template(), trans=trans)
    assert found.method == "the transform"
    assert np.allclose(found.coils.points, coils_of(evoked.info).points, atol=1e-5)
    assert found.max_residual == FAR_FROM_FIDUCIALS  # there is no other point of the head
    assert 0 < found.residual < 1e-3
    assert found.warnings == []


def shifted(z):
    """A transform to fsaverage that puts a head this much too high, m."""
    trans = mne.read_trans(Path(mne.__file__).parent / "data" / "fsaverage" / "fsaverage-trans.fif")
    up = np.eye(4)
    up[2, 3] = z
    return mne.Transform("head", "mri", trans["trans"] @ up)


def test_a_transform_is_measured_by_fiducials():
    evoked, _, _ = on_fsaverage()
    found = place_recorded_coils(evoked.info, load_template(), trans=shifted(0.03))
    assert found.residual == pytest.approx(0.03, abs=1e-3)
    (line,) = found.warnings
    assert re.search(
        r"placed by the transform it is (29|30)\.\d mm off, expected at most 8 mm", line
    )


def test_a_transform_without_points_is_not_measured():
    evoked, _, _ = change_info(without_fiducials)
    found = place_recorded_coils(evoked.info, load_template(), trans=shifted(0.0))
    assert str(found).startswith("placed by the transform, residual not measured, nearest coil")
    assert found.warnings == []


def with_head_points(info):
    """150 points of the upper scalp of fsaverage beside the fiducials."""
    scalp = load_template().family.scalp_pos
    scalp = scalp[scalp[:, 2] > 0.02]
    points = scalp[np.linspace(0, len(scalp) - 1, 150).astype(int)]
    left, nasion, right = FIDUCIALS
    info["dig"] = mne.channels.make_dig_montage(
        lpa=left, nasion=nasion, rpa=right, hsp=points, coord_frame="head"
    ).dig


def test_a_transform_that_puts_the_head_off_the_scalp_is_refused():
    evoked, _, _ = change_info(with_head_points)
    right = place_recorded_coils(evoked.info, load_template(), trans=shifted(0.0))
    assert right.residual < 1e-3
    message = r"--trans: it puts the head \d\d mm off the scalp .*another session, or the wrong way"
    with pytest.raises(ValueError, match=message):
        place_recorded_coils(evoked.info, load_template(), trans=shifted(0.05))


def test_head_points_place_the_coils():
    evoked, _, _ = change_info(with_head_points)
    found = place_recorded_coils(evoked.info, load_template())
    assert found.method == "150 head points"
    assert found.residual < 1e-3
    apart = found.coils.points - coils_of(evoked.info).points
    assert np.linalg.norm(apart, axis=1).mean() < 5e-3


def test_coils_inside_the_head_are_named():
    def one_too_low(info):
        middle = np.array([0, 0, 0.06]) - info["dev_head_t"]["trans"][:3, 3]
        info["chs"][3]["loc"][:3] = middle

    evoked, _, _ = change_info(one_too_low)
    name = evoked.ch_names[3]
    message = rf"1 of its 68 MEG coils lie inside the head of .*: {name}\. .*\(info\['bads'\]\)"
    with pytest.raises(ValueError, match=message):
        place_recorded_coils(evoked.info, load_template())
    evoked.info["bads"] = [name]
    assert len(place_recorded_coils(evoked.info, load_template()).coils.sensors) == 67


def test_gradient_compensation_is_refused_on_the_packaged_head():
    """The grade of CTF data is in the coil types: third-order gradients here."""

    def compensated(info):
        for channel in info["chs"]:
            channel["coil_type"] = int(channel["coil_type"]) | (3 << 16)

    evoked, _, _ = change_info(compensated)
    with pytest.raises(ValueError, match="compensation has grade 3, .*_compensation\\(0\\)"):
        place_recorded_coils(evoked.info, load_template())


def test_a_prepared_head_remembers_where_the_head_was(eloreta, tmp_path):
    evoked, cov, _ = on_fsaverage()
    Inverse.load(eloreta).for_recording(evoked, cov).save(tmp_path / "head.npz")
    again = Inverse.load(eloreta).for_prepared(tmp_path / "head.npz")
    again.apply(evoked, baseline="none")

    def moved(info):
        info["dev_head_t"]["trans"][2, 3] += 0.01

    with pytest.raises(ValueError, match=r"MEG coils lie 10 mm \(mean\)"):
        again.apply(change_info(moved)[0], baseline="none")


def without_fiducials(info):
    info["dig"] = []


def upside_down(info):
    info["dev_head_t"]["trans"][2, 3] -= 0.11


def far_above(info):
    info["dev_head_t"]["trans"][2, 3] += 0.2


def no_transform(info):
    info["dev_head_t"] = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_transform, r"frame of the device, .*dev_head_t"),
        (without_fiducials, r"the position of its head on the template is unknown: .*--trans"),
        (upside_down, r"MEG coils lie inside the head of fsaverage-ico3"),
        (far_above, r"MEG coils lie \d+ mm from the scalp at the nearest"),
    ],
)
def test_meg_that_cannot_be_placed_is_refused(change, message, eloreta):
    evoked, cov, _ = change_info(change)
    with pytest.raises(ValueError, match=message):
        Inverse.load(eloreta).for_recording(evoked, cov)


def test_other_fiducials_are_doubted(eloreta):
    def long_nose(info):
        info["dig"][1]["r"] = 1.25 * info["dig"][1]["r"]

    evoked, cov, _ = change_info(long_nose)
    (line,) = place_recorded_coils(evoked.info, load_template()).warnings
    assert re.search(r"does not fit .* by the fiducials it is \d+\.\d mm off", line)
    prepared = Inverse.load(eloreta).for_recording(evoked, cov)
    assert prepared.placement_warnings == [line]
    assert f"warning: {line}" in prepared.placement_lines
    with pytest.warns(PlacementWarning, match="by the fiducials"):
        prepared.apply(evoked, baseline="none")


def test_meg_beside_eeg_on_the_packaged_head_must_be_picked(eloreta):
    evoked, cov, _ = mixture("both")
    inverse = Inverse.load(eloreta)
    assert set(inverse.for_recording(evoked, cov).sensors.kinds) == {"eeg"}
    both = inverse.for_recording(evoked, cov, picks=["eeg", "meg"])
    assert set(both.sensors.kinds) == {"eeg", "mag", "grad"}
    assert both.coils.method == "32 names of the 10-05 system"
    assert set(inverse.for_recording(evoked, cov, picks="mag").sensors.kinds) == {"mag"}


def apply_with_page(eloreta, evoked, cov, *more):
    """``deepesi apply --html`` on the packaged head, in the working folder."""
    evoked.save("x-ave.fif", verbose="error")
    cov.save("x-cov.fif", verbose="error")
    files = ["--noise-cov", "x-cov.fif", "--html", "p.html", "--out", "out", *more]
    main(["apply", str(eloreta), "x-ave.fif", "--baseline", "none", *files])


def test_a_page_of_meg_alone_is_refused(eloreta, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evoked, cov, _ = on_fsaverage()
    with pytest.raises(SystemExit, match="shows potentials on the scalp, .* has MEG only"):
        apply_with_page(eloreta, evoked, cov)
    assert not list(tmp_path.glob("out*"))
    assert not Path("p.html").exists()


@pytest.mark.slow  # draws the cortex
def test_a_page_of_meg_beside_eeg_shows_the_potentials(eloreta, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evoked, cov, _ = mixture("both")
    apply_with_page(eloreta, evoked, cov, "--picks", "eeg", "meg")
    page = json.loads(re.search(r"'view'>(.*?)</script>", Path("p.html").read_text())[1])
    assert len(page["electrodes"]) == 32
    data = evoked.get_data("eeg")
    largest = 1e6 * np.abs(data - data.mean(axis=0)).max()
    assert page["potential_maximum"] == pytest.approx(largest, rel=1e-3)
    assert len(page["times"]) == len(evoked.times)


@pytest.fixture(scope="module")
def sample():
    """The right auditory response of MNE's sample subject, with a forward solution for all."""
    if not SHARED.is_dir():
        pytest.skip(f"the MNE sample recordings are not at {SHARED}")
    evoked = mne.read_evokeds(
        SHARED / "sample_audvis_short-ave.fif.gz", "Right Auditory", proj=False, verbose="error"
    )
    evoked.info["bads"] = ["MEG 2443", "EEG 053"]
    cov = mne.read_cov(SHARED / "sample_audvis_short-cov.fif", verbose="error")
    eeg = mne.read_forward_solution(SHARED / "derived/sample-oct5-eeg-fwd.fif", verbose="error")
    bem = SHARED / "subjects/sample/bem/sample-320-320-320-bem-sol.fif"
    solution = mne.make_forward_solution(
        evoked.info, eeg["mri_head_t"], eeg["src"], bem, mindist=0, verbose="error"
    )
    return evoked.apply_baseline((None, 0), verbose="error"), cov, solution


@pytest.mark.parametrize("name", MIXTURES)
def test_the_sample_recording_gives_what_mne_gives(sample, name):
    evoked, cov, solution = sample
    solution = mne.pick_types_forward(solution, **MIXTURES[name])
    head = head_from_forward(evoked.info, cov, solution, evoked.nave)
    expected = by_mne(evoked, solution, cov, "dSPM", 1)
    found = by_kernel(evoked, head, "dSPM")
    assert np.allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_auditory_cortex_of_the_sample_subject(sample):
    """MEG and EEG together: a tone in the right ear, the left auditory cortex at 60 to 130 ms."""
    evoked, cov, solution = sample
    head = head_from_forward(evoked.info, cov, solution, evoked.nave)
    strength = np.abs(by_kernel(evoked.crop(0.06, 0.13), head, "dSPM")).max(axis=1)
    x, y, z = 1e3 * head.source_pos[strength.argmax()]
    assert -75 < x < -40
    assert -25 < y < 35
    assert 40 < z < 80
