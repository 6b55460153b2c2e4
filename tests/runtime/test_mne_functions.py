"""MNE-Python's plots, morphs and labels take the estimates that are written."""

import matplotlib as mpl
import mne
import numpy as np
import pytest

from deepesi.physics.template import load_template
from deepesi.runtime.estimates import source_estimate
from deepesi.runtime.writing.estimate import write_estimate


@pytest.fixture(scope="module")
def subject(fsaverage_dir) -> dict[str, object]:
    return {"subjects_dir": fsaverage_dir, "verbose": "error"}


@pytest.fixture(scope="module")
def stc(tmp_path_factory) -> mne.SourceEstimate:
    """The y coordinate of every source, from a file; in the second sample twice as much."""
    template = load_template()
    values = template.source_mni[:, 1]
    out = tmp_path_factory.mktemp("stc") / "result"
    write_estimate(source_estimate(np.stack([values, 2 * values], 1), template.space, 0, 0.1), out)
    return mne.read_source_estimate(out, subject="fsaverage")


@pytest.mark.parametrize("spacing", ["ico3", "ico4"])
def test_sources_are_vertices_of_fsaverage(subject, spacing):
    """The same vertices at the same places as in MNE-Python's own source space."""
    src = mne.setup_source_space("fsaverage", spacing, add_dist=False, **subject)
    template = load_template(f"fsaverage-{spacing}")
    for part, vertices in zip(src, template.space.vertices, strict=True):
        assert np.array_equal(part["vertno"], vertices)
    places = np.concatenate([1e3 * part["rr"][part["vertno"]] for part in src])
    assert np.abs(places - template.source_mni).max() < 0.01


def test_morph_keeps_the_map(subject, stc):
    """On ico-5 the values are those of the place, but for the spread between sources."""
    morph = mne.compute_source_morph(stc, "fsaverage", "fsaverage", spacing=5, **subject)
    fine = morph.apply(stc)
    assert [len(v) for v in fine.vertices] == [10242, 10242]
    surfaces = [
        mne.read_surface(subject["subjects_dir"] / "fsaverage" / "surf" / f"{h}.white")[0]
        for h in ("lh", "rh")
    ]
    expected = np.concatenate(surfaces)[:, 1]
    assert np.corrcoef(fine.data[:, 0], expected)[0, 1] > 0.99
    assert np.allclose(fine.data[:, 1], 2 * fine.data[:, 0], rtol=1e-5, atol=1e-4)


def test_time_courses_of_labels(subject, stc):
    src = mne.setup_source_space("fsaverage", "ico3", add_dist=False, **subject)
    labels = mne.read_labels_from_annot("fsaverage", "aparc", **subject)
    found = mne.extract_label_time_course(stc, labels, src, mode="mean", verbose="error")
    assert found.shape == (4, 2)
    for label, values in zip(labels, found, strict=True):
        half = stc.lh_data if label.hemi == "lh" else stc.rh_data
        inside = half[np.isin(np.arange(642), label.vertices), 0]
        assert values[0] == pytest.approx(inside.mean(), rel=1e-5)
        assert (values[0] > 0) == label.name.startswith("front")


@pytest.mark.filterwarnings("ignore:.*matplotlib 3D backend is deprecated")
def test_plot(subject, stc, monkeypatch):
    monkeypatch.setattr(mpl, "rcParams", mpl.rcParams.copy())
    mpl.use("agg")
    figure = stc.plot(hemi="rh", backend="matplotlib", initial_time=0.1, spacing="ico4", **subject)
    (ax, *_) = figure.axes
    (surface, *_) = ax.collections
    colours = surface.get_facecolor()[:, :3]
    assert (np.ptp(colours, axis=1) > 0.3).mean() > 0.05  # activity
    assert (np.ptp(colours, axis=1) < 0.05).mean() > 0.05  # and bare cortex
