"""``deepesi apply --out X.zarr``: the estimates of the files, in one group, whole or not at all."""

import io
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

from deepesi import __version__
from deepesi.export.to_onnx import export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.runtime.inverse import Inverse, PreparedInverse
from deepesi.runtime.session import open_model
from deepesi.utils.files import atomic_folder
from tests.conftest import make_evoked, slow
from tests.runtime.test_apply import along_normals, apply, eloreta, folder

__all__ = ["eloreta", "folder"]  # fixtures

zarr = pytest.importorskip("zarr")


def estimates(stem: str) -> list[np.ndarray]:
    """Estimates in the files that `apply` numbered, ``(dipoles, times)`` each."""
    paths = sorted(Path("out").glob(f"{stem}-[0-9]*-lh.stc"))
    return [mne.read_source_estimate(str(p).removesuffix("-lh.stc")).data for p in paths]


def both(model, recording, *more, head):
    """The same to files and to a group; gives the group."""
    apply(model, recording, *more, head=head)
    apply(model, recording, *more, "--out", "out/x.zarr", head=head)
    return zarr.open_group("out/x.zarr", mode="r")


def test_raw_recording_in_several_stretches(eloreta, folder, toy_path, capsys):
    group = both(eloreta, "x_raw.fif", head=toy_path)
    stretches = estimates("stc")
    assert len(stretches) == 3
    np.testing.assert_array_equal(group["mean"][:], np.concatenate(stretches, axis=1))
    assert group["mean"].dtype == np.float32
    assert group["mean"].chunks == (84, 2048)
    np.testing.assert_allclose(group["times"][:], np.arange(5500) / 250)
    assert "std" not in group
    printed = capsys.readouterr().out
    assert printed.count("0002: strongest at") == 2
    assert printed.splitlines()[-1] == "wrote out/x.zarr"
    assert len(list(Path("out").iterdir())) == 7


def test_epochs(eloreta, folder, toy_path):
    group = both(eloreta, "x-epo.fif", "--condition", "seen", head=toy_path)
    np.testing.assert_array_equal(group["mean"][:], np.stack(estimates("stc")))
    assert group["mean"].shape == (2, 84, 60)
    assert group["mean"].metadata.dimension_names == ("epochs", "dipoles", "times")
    np.testing.assert_allclose(group["times"][:], -0.1 + np.arange(60) / 250)


def test_evoked_response_with_deviations(toy, folder, toy_path):
    """Attributes of the group, and the picture."""
    model = folder / "m.onnx"
    export_onnx(
        ConvDip(84, height=8, width=8, hidden=16, heteroscedastic=True),
        toy.montage_head("biosemi16"),
        model,
        anatomy=toy.fingerprint,
    )
    evoked = make_evoked()
    evoked.save("x-ave.fif", verbose="error")
    group = both(model, "x-ave.fif", head=toy_path)
    for name, stem in (("mean", "stc"), ("std", "stc-std")):
        expected = mne.read_source_estimate(f"out/{stem}").data
        np.testing.assert_array_equal(group[name][:], expected)
        assert group[name].attrs["unit"] == "A m"
    assert Path("out/x.png").stat().st_size > 0
    assert dict(group.attrs) == {
        "source_space": toy.space.name,
        "source_space_fingerprint": toy.space.fingerprint,
        "vertices": [part.tolist() for part in toy.space.vertices],
        "n_orient": 1,
        "tmin": 0.0,
        "sfreq": 250.0,
        "ch_names": evoked.ch_names,
        "nave": 4,
        "origin": "sensors of a recording on fsaverage-ico1 (placed by 32 names of the 10-05 "
        "system, residual 3.4 mm, pitch 2.2 degrees), its noise covariance",
        "model_sha256": open_model(model).sha256,
        "deepesi": __version__,
    }
    assert len(open_model(model).sha256) == 64


@pytest.mark.parametrize("parts", [2, slow(1)])
def test_free_orientation(eloreta, folder, toy, parts, tmp_path):
    head = along_normals(toy, parts, tmp_path / "free.npz")
    make_evoked().save("x-ave.fif", verbose="error")
    apply(eloreta, "x-ave.fif", "--out", "x.zarr", head=head)
    group = zarr.open_group("x.zarr", mode="r")
    assert group.attrs["n_orient"] == 3
    assert [len(part) for part in group.attrs["vertices"]] == [84 // parts] * parts
    evoked = mne.read_evokeds("x-ave.fif", 0, verbose="error")
    covariance = mne.read_cov("x-cov.fif", verbose="error")
    inverse = Inverse.load(eloreta, head=head).for_recording(evoked.info, covariance, nave=4)
    expected = inverse.apply(evoked).stc.data
    np.testing.assert_allclose(
        group["mean"][:].reshape(84, 3, 30), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("no moments")])
@pytest.mark.parametrize("recording", ["x-epo.fif", "x_raw.fif"])
def test_interrupted(eloreta, folder, toy_path, monkeypatch, error, recording):
    """In the last piece: no group is left, or the one of before."""
    run, pieces = PreparedInverse._run, []

    def interrupted(self, batch):
        pieces.append(batch)
        if len(pieces) == 3:
            raise error
        return run(self, batch)

    for before in ([], ["x.zarr"]):
        if before:
            apply(eloreta, recording, "--out", "out/x.zarr", head=toy_path)
            kept = zarr.open_group("out/x.zarr", mode="r")["mean"][:]
        pieces.clear()
        with monkeypatch.context() as patch:
            patch.setattr(PreparedInverse, "_run", interrupted)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                apply(eloreta, recording, "--out", "out/x.zarr", head=toy_path)
        assert len(pieces) == 3
        assert [p.name for p in Path("out").iterdir()] == before
    assert np.array_equal(zarr.open_group("out/x.zarr", mode="r")["mean"][:], kept)


def test_interrupted_while_it_speaks(eloreta, folder, toy_path, monkeypatch):
    """A closed pipe, say: what was begun is gone before the error is handled."""

    class Pipe(io.StringIO):
        def write(self, text):
            if "0001: strongest" in text:
                assert [p.name for p in Path("out").iterdir()] == [".x.partial.zarr"]
                raise BrokenPipeError("closed")
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Pipe())
    with pytest.raises(SystemExit, match="closed"):
        apply(eloreta, "x-epo.fif", "--out", "out/x.zarr", head=toy_path)
    assert not list(Path("out").iterdir())


def test_a_result_takes_the_place_of_the_one_before(eloreta, folder, toy_path):
    for recording, shape in (("x_raw.fif", (84, 5500)), ("x-epo.fif", (3, 84, 60))):
        apply(eloreta, recording, "--out", "out/x.zarr", head=toy_path)
        assert zarr.open_group("out/x.zarr", mode="r")["mean"].shape == shape
    assert [p.name for p in Path("out").iterdir()] == ["x.zarr"]


@pytest.mark.parametrize("kind", ["file", "folder", "group of others"])
def test_what_is_no_group_is_not_replaced(eloreta, folder, toy_path, kind):
    Path("x.zarr").touch() if kind == "file" else Path("x.zarr").mkdir()
    if kind == "group of others":
        Path("x.zarr/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(SystemExit, match=r"x.zarr exists and is no zarr group of deepesi, so it"):
        apply(eloreta, "x-epo.fif", "--out", "x.zarr", head=toy_path)
    assert Path("x.zarr").exists()


def test_without_zarr(eloreta, folder, toy_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(SystemExit, match=r"'zarr' to write estimates to a .zarr.*deepesi\[zarr\]"):
        apply(eloreta, "x-epo.fif", "--out", "out/x.zarr", head=toy_path)
    assert not Path("out").exists()


def test_folder_of_a_process_that_was_killed(tmp_path):
    """Between the two renamings, or while it wrote."""
    (tmp_path / ".x.old.zarr").mkdir()
    (tmp_path / ".x.old.zarr" / "data").touch()
    (tmp_path / ".x.partial.zarr" / "half").mkdir(parents=True)
    with atomic_folder(tmp_path / "x.zarr") as partial:
        assert not list(partial.iterdir())
        assert [p.name for p in (tmp_path / "x.zarr").iterdir()] == ["data"]
        (partial / "other").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zarr", "other"]
