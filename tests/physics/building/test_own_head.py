"""Heads of the user's own, on the MNE sample subject: forward solution, and BEM with sources."""

import mne
import numpy as np
import pytest

from deepesi.data_gen.artifacts import Blinks
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.physics.building.bem import solve
from deepesi.physics.building.own_head import head_of_anatomy, head_of_forward, read_own_anatomy
from deepesi.physics.family import Tissues
from deepesi.physics.montage import eeg_info
from deepesi.physics.sensors import average_reference


@pytest.fixture(scope="module")
def forward(sample_data):
    return sample_data / "derived" / "sample-oct5-eeg-fwd.fif"


@pytest.fixture(scope="module")
def files(sample_data):
    return {
        "bem": sample_data / "subjects/sample/bem/sample-320-320-320-bem.fif",
        "src": sample_data / "derived/sample-oct5-metres-src.fif",
        "trans": sample_data / "MEG_sample/sample_audvis_trunc-trans.fif",
    }


@pytest.mark.parametrize("n_orient", [1, 3])
def test_forward_solution_is_kept_exactly(forward, n_orient):
    head = head_of_forward(forward, n_orient)
    solution = mne.read_forward_solution(forward, verbose="error")
    fixed = mne.convert_forward_solution(
        solution, force_fixed=n_orient == 1, use_cps=False, verbose="error"
    )
    expected = average_reference(fixed["sol"]["data"])
    found = head.montage_head("any").leadfield
    assert np.allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert np.allclose(head.source_pos, solution["source_rr"])
    assert head.cap == tuple(solution["sol"]["row_names"])
    assert head.space.n_orient == n_orient


def test_training_data_through_a_forward_solution(forward):
    head = head_of_forward(forward)
    recordings = SimulatedRecordings(
        head,
        PatchSources(),
        SetupRanges(dropout=(0.2, 0.2)),
        [],
        artifacts=[Blinks(probability=1)],
        batch_size=4,
        n_times=10,
    )
    parts = recordings.parts(0)
    assert parts.batch.data.shape == (4, 48, 10)
    gain = average_reference(
        head.montage_head("any").leadfield[
            [head.cap.index(c) for c in parts.batch.head.sensors.names]
        ]
    )
    expected = gain @ parts.batch.sources.double().numpy()
    assert np.allclose(parts.clean, expected, rtol=0, atol=1e-3 * abs(expected).max())
    assert parts.batch.scene.tissues.isnan().all()
    assert not parts.batch.scene.artifacts.any()
    notes = " ".join(recordings.limits)
    assert "has one lead field only" in notes
    assert "own 60 sensors" in notes
    assert "no eyes: Blinks are not drawn" in notes


def test_no_other_electrodes_on_a_forward_solution(forward):
    with pytest.raises(ValueError, match="no others can be put on it"):
        head_of_forward(forward).electrodes(np.zeros((3, 3)), ["a", "b", "c"])


def volume_forward(forward, tmp_path, mixed):
    """A small solution on a volume, or a surface and a volume, from the sample head's sphere."""
    solution = mne.read_forward_solution(forward, verbose="error")
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.09, verbose="error")
    subjects = forward.parents[1] / "subjects"
    src = mne.setup_volume_source_space(
        "sample",
        pos=25.0,
        sphere=sphere,
        mri=subjects / "sample/mri/T1.mgz",
        subjects_dir=subjects,
        add_interpolator=False,
        verbose="error",
    )
    if mixed:
        src = solution["src"] + src
    names = solution["sol"]["row_names"]
    info = eeg_info(names, np.array([c["loc"][:3] for c in solution["info"]["chs"]]))
    made = mne.make_forward_solution(
        info, solution["mri_head_t"], src, sphere, meg=False, verbose="error"
    )
    path = tmp_path / "volume-fwd.fif"
    mne.write_forward_solution(path, made, verbose="error")
    return path


@pytest.mark.parametrize("mixed", [False, True])
def test_volume_and_mixed_forward_solutions(forward, tmp_path, mixed):
    path = volume_forward(forward, tmp_path, mixed)
    head = head_of_forward(path, 3)
    assert len(head.space.vertices) == (3 if mixed else 1)
    assert len(head.space.edges) > head.space.n_sources
    recordings = SimulatedRecordings(
        head,
        PatchSources((1, 2), (0.03, 0.06), 0.03, ("gaussian", "diffused"), orientation="random"),
        SetupRanges(),
        [],
        batch_size=4,
    )
    assert recordings.batch(0).sources.shape == (4, head.space.n_dipoles, 1)
    with pytest.raises(ValueError, match="no normal for fixed orientation.*n_orient=3"):
        head_of_forward(path, 1)


def test_fixed_forward_solution(forward, tmp_path):
    solution = mne.read_forward_solution(forward, verbose="error")
    fixed = mne.convert_forward_solution(
        solution, surf_ori=True, force_fixed=True, use_cps=False, verbose="error"
    )
    path = tmp_path / "fixed-fwd.fif"
    mne.write_forward_solution(path, fixed, verbose="error")
    a, b = head_of_forward(path), head_of_forward(forward)
    assert np.allclose(a.montage_head("").leadfield, b.montage_head("").leadfield, rtol=1e-3)


def test_forward_files_that_will_not_do(tmp_path, forward):
    with pytest.raises(FileNotFoundError, match="there is no file .*none-fwd.fif"):
        head_of_forward(tmp_path / "none-fwd.fif")
    with pytest.raises(ValueError, match="n_orient must be 1 or 3, got 2"):
        head_of_forward(forward, 2)


@pytest.mark.slow
def test_own_anatomy_has_every_conductivity(files, tmp_path, monkeypatch):
    """Built on the sample subject's surfaces, equal to a fresh BEM; then read from the cache."""
    monkeypatch.setenv("DEEPESI_CACHE", str(tmp_path))
    head = head_of_anatomy(**files, drop_outside=True)
    anatomy = read_own_anatomy(**files, drop_outside=True)
    assert head.space.n_sources == len(anatomy.source_pos) == 1968
    _, electrodes = head.montage("biosemi32")
    tissues = Tissues(0.0073, 0.0052, 0.41, 0.35)
    fresh = average_reference(solve(anatomy, electrodes.positions, tissues))
    found = head.family.leadfield(tissues, electrodes)
    a, b = np.linalg.norm(found, axis=0), np.linalg.norm(fresh, axis=0)
    assert np.percentile(np.linalg.norm(found / a - fresh / b, axis=0), 95) < 0.01
    assert np.percentile(np.abs(np.log(a / b)), 95) < 0.01
    written = list((tmp_path / "heads").iterdir())
    assert len(written) == 1
    before = written[0].stat().st_mtime_ns
    again = head_of_anatomy(**files, drop_outside=True)
    assert again.fingerprint == head.fingerprint
    assert written[0].stat().st_mtime_ns == before


def test_sources_outside_the_inner_skull_are_refused(files):
    with pytest.raises(ValueError, match=r"84 of 2052 sources lie outside.*drop_outside=true"):
        read_own_anatomy(**files)


def test_incomplete_or_crossing_surfaces_are_refused(files, sample_data, tmp_path):
    single = sample_data / "subjects/sample/bem/sample-1280-bem.fif"
    with pytest.raises(ValueError, match="lacks the scalp, the outer skull"):
        read_own_anatomy(**(files | {"bem": single}))
    surfaces = mne.read_bem_surfaces(files["bem"], verbose="error")
    outer = next(s for s in surfaces if s["id"] == 3)
    outer["rr"] = 1.2 * outer["rr"]
    mne.write_bem_surfaces(tmp_path / "crossing-bem.fif", surfaces, verbose="error")
    with pytest.raises(ValueError, match="the surfaces cross or touch"):
        read_own_anatomy(**(files | {"bem": tmp_path / "crossing-bem.fif"}), drop_outside=True)
