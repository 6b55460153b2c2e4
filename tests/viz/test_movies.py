"""Movies show what was given, in one scale, and refuse what is no movie."""

import imageio_ffmpeg
import mne
import numpy as np
import pytest
from PIL import Image
from scipy.interpolate import griddata

from deepesi.viz import animate_cortex, animate_scalp
from deepesi.viz.scalp_movie import (
    RESOLUTION,
    MaskedSensorWarning,
    _cubic,
    flat_positions,
)
from tests.conftest import make_evoked

TIMES = np.array([-0.1, 0.0, 0.17])


def frames(path) -> list[np.ndarray]:
    image = Image.open(path)
    found = []
    for number in range(image.n_frames):
        image.seek(number)
        found.append(np.asarray(image.convert("RGB")).astype(int))
    return found


@pytest.fixture(scope="module")
def info() -> mne.Info:
    return make_evoked().info


@pytest.fixture(scope="module")
def values(info) -> np.ndarray:
    """Positive in front and negative behind, in the second frame half as strong."""
    front = np.array([channel["loc"][1] for channel in info["chs"]])
    return np.outer([1.0, 0.5, -1.0], front / np.abs(front).max())


def redness(frame: np.ndarray) -> tuple[float, float]:
    """Mean of red less blue of the upper and the lower half of the map."""
    half = frame[60:380, :350, 0] - frame[60:380, :350, 2]
    return float(half[:160].mean()), float(half[160:].mean())


@pytest.mark.parametrize("interpolation", ["cubic", "mne"])
def test_scalp_movie_shows_the_values(tmp_path, info, values, interpolation):
    path = animate_scalp(
        values, info, TIMES, tmp_path / "a.gif", 5, interpolation, label="µV", progress=False
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]
    first, second, last = map(redness, frames(path))
    assert first[0] > 5 > -5 > first[1]
    assert last[0] < -5 < 5 < last[1]  # the map has turned
    assert 0.2 < second[0] / first[0] < 0.9  # paler: the scale is that of the whole movie
    assert Image.open(path).info["duration"] == 200  # ms


def test_cubic_is_griddata(info, values):
    """The same numbers at every pixel, and nothing outside the electrodes."""
    from matplotlib.figure import Figure

    positions = np.array([channel["loc"][:3] for channel in info["chs"]])
    ax = Figure().subplots()
    _cubic(ax, positions, 1.0)(values[0])
    drawn = ax.images[0].get_array()
    reach = ax.images[0].get_extent()[1]
    grid = np.meshgrid(*2 * [np.linspace(-reach, reach, RESOLUTION)])
    expected = griddata(flat_positions(positions), values[0], tuple(grid), method="cubic")
    assert np.array_equal(np.ma.getmaskarray(drawn), np.isnan(expected))
    assert np.nanmax(np.abs(drawn.filled(np.nan) - expected)) < 1e-9


def test_top_of_the_head_is_the_centre():
    positions = np.array([[0, 0, 0.13], [0, 0.09, 0.04], [-0.09, 0, 0.04]])
    assert np.allclose(flat_positions(positions), [[0, 0], [0, 1], [-1, 0]])


def test_mp4_has_every_frame(tmp_path, info, values):
    path = animate_scalp(values, info, TIMES, tmp_path / "a.mp4", progress=False)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert count == 3
    assert seconds == pytest.approx(0.3, abs=0.05)
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    first = np.frombuffer(next(reader), np.uint8).reshape(height, width, 3).astype(int)
    assert redness(first)[0] > 5 > -5 > redness(first)[1]


def test_electrodes_without_numbers_are_left_out_and_named(tmp_path, info, values):
    holed = values.copy()
    holed[1, 3] = np.nan
    holed[2, 5] = np.inf
    names = f"{info['ch_names'][3]}, {info['ch_names'][5]}"
    with pytest.warns(MaskedSensorWarning, match=f"{names} not drawn: not a number"):
        path = animate_scalp(holed, info, TIMES, tmp_path / "a.gif", progress=False)
    without = mne.pick_info(info, [i for i in range(32) if i not in (3, 5)])
    rest = np.delete(values, [3, 5], axis=1)
    expected = animate_scalp(rest, without, TIMES, tmp_path / "b.gif", progress=False, limit=1.0)
    assert all(map(np.array_equal, frames(path), frames(expected)))


def without_positions(info):
    return mne.create_info(info["ch_names"], 100.0, "eeg")


def one_far_away(info):
    positions = np.array([channel["loc"][:3] for channel in info["chs"]])
    positions[7] *= 4
    return positions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensors": without_positions}, "no position is known of Fp1, .*set_montage"),
        ({"sensors": one_far_away}, r"outside the head: 8 \(\d+ mm\) from its centre, expected"),
        ({"sensors": lambda info: np.zeros((32, 2))}, r"positions of shape \(32, 2\), expected"),
        ({"sensors": lambda info: np.full((32, 3), 80.0)}, "expected 0.05-0.2 m"),
        ({"values": lambda v: v[:1]}, r"3,\)"),
        ({"values": lambda v: v[:1], "times": TIMES[:1]}, "1 sample is a picture, not a movie"),
        ({"values": lambda v: v.T}, r"shape \(32, 3\) for 32 electrodes.*values.T"),
        ({"values": lambda v: np.full_like(v, np.nan)}, "0 electrodes have numbers in all frames"),
        ({"path": "a.avi"}, "expected a name that ends in .gif or .mp4"),
        ({"fps": 0}, "0 frames per second, expected more than 0"),
        ({"fps": 60}, "60 frames per second.*at most 50 for .gif"),
        ({"interpolation": "linear"}, "'linear', expected cubic or mne"),
    ],
)
@pytest.mark.filterwarnings("ignore::deepesi.viz.scalp_movie.MaskedSensorWarning")
def test_what_is_no_scalp_movie(tmp_path, info, values, change, message):
    given = {"values": values, "sensors": info, "times": TIMES, "path": "a.gif", "fps": 10}
    for name, value in change.items():
        given[name] = value(given[name]) if callable(value) else value
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=message):
        animate_scalp(**given)
    assert not list(tmp_path.iterdir())


def test_electrodes_along_a_line(tmp_path):
    angle = np.linspace(0.3, 2.8, 6)
    midline = np.stack([0 * angle, 0.09 * np.cos(angle), 0.04 + 0.09 * np.sin(angle)], axis=1)
    with pytest.raises(ValueError, match="all electrodes lie on one line"):
        animate_scalp(np.ones((3, 6)), midline, TIMES, tmp_path / "a.gif")


def test_mp4_names_the_extra(tmp_path, info, values, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(ModuleNotFoundError, match=r"deepesi\[movies\]"):
        animate_scalp(values, info, TIMES, tmp_path / "a.mp4")


@pytest.fixture(scope="module")
def stc(template) -> mne.SourceEstimate:
    """One source of each hemisphere, strongest in the first and in the last frame."""
    data = np.zeros((1284, 3))
    left = int(template.source_pos[:642, 0].argmin())
    right = 642 + int(template.source_pos[642:, 0].argmax())
    data[left], data[right] = [-1e-8, 5e-9, 0], [0, 5e-9, 1e-8]
    return mne.SourceEstimate(data, list(template.space.vertices), 0.0, 0.1, "fsaverage")


def coloured(frame: np.ndarray) -> list[int]:
    """Numbers of pixels that are not grey: upper views (left), lower views (right)."""
    colour = np.ptp(frame[60:460, :540], axis=2) > 40
    return [int(half.sum()) for half in np.split(colour, 2, axis=0)]


def test_cortex_movie_shows_both_hemispheres(tmp_path, stc):
    path = animate_cortex(stc, tmp_path / "a.gif", progress=False)
    first, both, last = map(coloured, frames(path))
    assert first[0] > 50
    assert first[1] == 0
    assert last[1] > 50
    assert last[0] == 0
    assert min(both) > 20  # half of the largest, above the threshold


def test_line_around_the_prediction_set_and_what_is_above_two_deviations(tmp_path, stc):

    def blue(frame):
        return ((frame[..., 2] > 200) & (frame[..., 0] < 120)).sum()

    near = np.zeros(1284, bool)
    near[np.abs(stc.data).max(axis=1).argsort()[-1]] = True
    lines = {
        "none": {},
        "set": {"prediction_set": near},
        "std": {"std": 0 * stc + 4e-9},
    }
    counts = {
        name: [blue(f) for f in frames(animate_cortex(stc, tmp_path / "a.gif", **line))]
        for name, line in lines.items()
    }
    assert counts["none"] == [0, 0, 0]
    assert min(counts["set"]) > 20
    assert counts["std"][0] > 20 < counts["std"][2]
    assert counts["std"][1] == 0  # 5e-9 is less than two deviations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "fsaverage-ico4"}, "642, 642 sources, which are not the 2562 and 2562"),
        ({"prediction_set": np.ones(7, bool)}, r"shape \(7, 1\), expected \(1284,\)"),
        ({"std": 1, "prediction_set": 1}, "give std or prediction_set"),
        ({"path": "a.png"}, "ends in .gif or .mp4"),
        ({"stc": "NaN"}, "NaN or infinite at 1 of 1284 sources. Set these to zero, or crop"),
    ],
)
def test_what_is_no_cortex_movie(tmp_path, stc, change, message):
    given = {"stc": stc, "path": "a.gif"} | change
    given["path"] = tmp_path / given["path"]
    if given["stc"] == "NaN":
        given["stc"] = stc.copy()
        given["stc"].data[5, 1] = np.nan
    with pytest.raises(ValueError, match=message):
        animate_cortex(**given)
    assert not list(tmp_path.iterdir())


def test_one_sample_of_an_estimate(tmp_path, stc):
    with pytest.raises(ValueError, match="1 sample is a picture"):
        animate_cortex(stc.copy().crop(0, 0), tmp_path / "a.gif")


def test_positions_in_place_of_an_info(tmp_path, info, values):
    positions = np.array([channel["loc"][:3] for channel in info["chs"]])
    by_info, by_positions = (
        frames(animate_scalp(values, given, TIMES, tmp_path / "a.gif", progress=False))
        for given in (info, positions)
    )
    assert all(map(np.array_equal, by_info, by_positions))
