"""``deepesi explain`` on other heads: lobes and cortex of a forward solution and of ``--head``."""

import re
from dataclasses import replace

import mne
import numpy as np
import pytest

from deepesi.cli.main import main
from deepesi.physics.building.anatomy import ICO_VERTICES, _fsaverage5, ico_faces
from deepesi.physics.graph import vertex_normals
from deepesi.physics.template import save_template
from tests.conftest import make_covariance, make_evoked, write_subject

SUBJECT, N = "anna", ICO_VERTICES["ico3"]
#: MNI position of the source, mm.
OCCIPITAL = (-20, -95, 5)
NO_LOBES = "Lobes are not known, because {} has no MNI positions. To name them, give "
NO_CORTEX = "No cortex is drawn, because triangles between the sources of {} are not known."


def forward_on_fsaverage(info, subject):
    """A sphere with the white surfaces of fsaverage inside; head frame and MRI are the same."""
    mesh = _fsaverage5()
    full, between = (ico_faces(mesh["sphere"][0], n) for n in (len(mesh["sphere"][0]), N))
    sphere = mne.make_sphere_model((0, -0.02, 0.02), 0.14, verbose="error")
    spaces = []
    for number, white in enumerate(mesh["white_matter"]):
        normals = vertex_normals(white, full)
        pos = {"rr": white / 1e3, "nn": normals}
        space = mne.setup_volume_source_space(pos=pos, sphere_units="m", verbose="error")[0]
        inuse = (np.arange(len(white)) < N).astype(int)
        space.update(type="surf", id=101 + number, subject_his_id=subject)
        space.update(inuse=inuse, nuse=N, vertno=np.arange(N))
        space.update(tris=full, ntri=len(full), use_tris=between, nuse_tri=len(between))
        spaces.append(space)
    return mne.make_forward_solution(
        info, None, mne.SourceSpaces(spaces), sphere, meg=False, verbose="error"
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """An average with a source in the left occipital lobe, its noise, two forward solutions."""
    folder = tmp_path_factory.mktemp("recordings")
    evoked = make_evoked()
    for subject in (SUBJECT, "fsaverage"):
        forward = forward_on_fsaverage(evoked.info, subject)
        mne.write_forward_solution(folder / f"{subject}-fwd.fif", forward, verbose="error")
    fixed = mne.convert_forward_solution(forward, force_fixed=True, verbose="error")
    source = np.linalg.norm(1e3 * fixed["source_rr"] - OCCIPITAL, axis=1).argmin()
    signal = fixed["sol"]["data"][:, source]
    evoked.data[:, 12] += 2e-5 * (signal - signal.mean()) / np.abs(signal).max()
    evoked.save(folder / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(folder / "x-cov.fif", verbose="error")
    return folder


def explained(recordings, page, *more):
    main(
        [
            *("explain", "eloreta", f"{recordings}/x-ave.fif"),
            *("--noise-cov", f"{recordings}/x-cov.fif"),
            *("--methods", "occlusion", "--out", str(page), *map(str, more)),
        ]
    )
    return page.read_text()


def test_lobes_of_a_subject_are_unknown_without_its_folder(recordings, tmp_path):
    """Its cortex is drawn: it is in the forward solution."""
    forward = recordings / f"{SUBJECT}-fwd.fif"
    page = explained(recordings, tmp_path / "x.html", "--forward", forward)
    assert f"{NO_LOBES.format(f'{SUBJECT}-ico3')}FreeSurfer&#x27;s folder of its subject" in page
    assert "a source at least 60 mm away counts as in another lobe" in page
    assert "left occipital" not in page
    assert "No cortex is drawn" not in page
    assert "<figcaption>left posterior</figcaption>" in page
    assert "<figcaption>projections</figcaption>" not in page


def test_lobes_of_a_subject_are_known_with_its_folder(recordings, tmp_path):
    write_subject(tmp_path / SUBJECT, "1 0 0 0\n0 1 0 0\n0 0 1 0")
    page = explained(
        *(recordings, tmp_path / "x.html", "--forward", recordings / f"{SUBJECT}-fwd.fif"),
        *("--subjects-dir", tmp_path),
    )
    assert "left occipital" in page
    assert "Lobes are not known" not in page


def test_a_forward_solution_on_fsaverage_needs_no_folder(recordings, tmp_path):
    """Its MRI is MNI space."""
    forward = recordings / "fsaverage-fwd.fif"
    page = explained(recordings, tmp_path / "x.html", "--forward", forward)
    assert "left occipital" in page
    assert "Lobes are not known" not in page
    assert "MNI (" in page


def test_an_own_head_by_its_path_is_known(recordings, template, tmp_path):
    """Lobes and cortex are in the file, which is not among the installed heads."""
    space = replace(template.space, name="somebody-ico3", edges=template.space.edges[::-1])
    head = replace(template, name="somebody-ico3", space=space)
    save_template(tmp_path / "x.npz", head)
    page = explained(recordings, tmp_path / "x.html", "--head", tmp_path / "x.npz")
    assert "left occipital" in page
    assert "MNI (" in page
    assert "not known" not in page
    assert "<figcaption>projections</figcaption>" not in page
    unknown = np.full_like(template.source_mni, np.nan)
    save_template(tmp_path / "y.npz", replace(head, source_mni=unknown, display=None))
    page = explained(recordings, tmp_path / "y.html", "--head", tmp_path / "y.npz")
    assert f"{NO_LOBES.format('somebody-ico3')}its forward solution (--forward) and" in page
    assert NO_CORTEX.format("somebody-ico3") in page
    assert "<figcaption>projections</figcaption>" in page
    assert re.search(r"vertex \d+, at \(-?\d+, -?\d+, -?\d+\) mm in the head frame", page)
