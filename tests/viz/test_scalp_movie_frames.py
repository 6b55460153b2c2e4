"""Frames of a scalp movie: head, electrodes, colour bar, fixed scale, time; and their rate."""

import contextlib
import fcntl
import os
import struct
import termios
import time

import imageio_ffmpeg
import matplotlib as mpl
import mne
import numpy as np
import pytest
from PIL import Image

from deepesi.viz import animate_scalp
from deepesi.viz.movie import drawn, write_movie
from deepesi.viz.scalp_movie import _cubic, _figure, flat_positions
from tests.conftest import make_evoked
from tests.viz.test_movies import frames

LIMIT, LABEL = 5.0, "coefficient (µV)"
TIMES, VALUES = np.array([-0.1, 0.0, 0.17]), (1.0, 5.0, -5.0)


@pytest.fixture(scope="module")
def info() -> mne.Info:
    return make_evoked().info


@pytest.fixture(scope="module")
def positions(info) -> np.ndarray:
    return np.array([channel["loc"][:3] for channel in info["chs"]])


@pytest.fixture(scope="module", params=["cubic", "mne"])
def shown(request, info, positions, tmp_path_factory) -> list[np.ndarray]:
    """Frames of nearly one value everywhere: a little less behind than in front."""
    path = tmp_path_factory.mktemp("movie") / "a.gif"
    values = np.outer(VALUES, 0.95 + 0.5 * positions[:, 1])
    words = {"label": LABEL, "title": "x", "progress": False}
    return frames(animate_scalp(values, info, TIMES, path, 10, request.param, **words))


def empty(title: str = "", label: str = LABEL):
    """The axes of such a movie, and its picture before anything is shown."""
    figure, ax = _figure(LIMIT, label)
    ax.set_title(title, fontsize=12)
    ax.set_axis_off()
    return ax, figure.axes[1], drawn(figure).astype(int)


def colour_at(frame: np.ndarray, ax, xy) -> np.ndarray:
    x, y = ax.transData.transform(xy)
    return frame[len(frame) - 1 - int(y), int(x)]


def darkest(frame: np.ndarray, ax, xy) -> int:
    """Brightest channel of the darkest of the pixels around a point."""
    x, y = ax.transData.transform(xy)
    row, column = len(frame) - 1 - int(y), int(x)
    return int(frame[row - 2 : row + 3, column - 2 : column + 3].max(axis=2).min())


def colour_of(value: float) -> np.ndarray:
    return 255 * np.array(mpl.colormaps["RdBu_r"](0.5 + value / (2 * LIMIT))[:3])


def off(frame: np.ndarray, picture: np.ndarray, part: tuple[slice, slice]) -> float:
    """Mean difference of a part; a GIF has 256 colours, so it is not zero."""
    return float(np.abs(frame[part] - picture[part]).mean())


TITLE, BAR = (slice(0, 44), slice(0, 360)), (slice(60, 340), slice(360, 460))


def test_head_nose_ears_and_electrodes(info, positions, tmp_path):
    values = np.outer(VALUES, np.ones(32))
    path = animate_scalp(values, info, TIMES, tmp_path / "a.gif", label=LABEL, progress=False)
    ax, _, _ = empty()
    _cubic(ax, positions, LIMIT)
    drawn(ax.figure)  # now the axes have their place
    angle = np.deg2rad([10, 45, 135, 170, 225, 315])
    places = {
        "head": np.stack([np.cos(angle), np.sin(angle)], axis=1),
        "nose": [[0.0, 1.13]],
        "ears": [[1.07, 0.0], [-1.07, 0.0]],
        "electrodes": flat_positions(positions),
    }
    for frame, value in zip(frames(path), VALUES, strict=True):
        for kind, points in places.items():
            assert max(darkest(frame, ax, xy) for xy in points) < 110, kind
        beside = flat_positions(positions)[[0, 1, 2]].mean(axis=0)  # no electrode is there
        assert np.abs(colour_at(frame, ax, beside) - colour_of(value)).max() < 20


def test_colour_bar_has_the_label_and_the_colours_of_the_scale(shown):
    _, bar, picture = empty()
    assert bar.get_ylim() == (-LIMIT, LIMIT)
    _, _, other_unit = empty(label="coefficient (mV)")
    for frame in shown:
        for value in (-4.8, -2.5, 0.3, 2.5, 4.8):
            assert np.abs(colour_at(frame, bar, (0.5, value)) - colour_of(value)).max() < 20
        assert off(frame, picture, BAR) < 0.4 * off(frame, other_unit, BAR)


def test_frames_have_one_scale(shown):
    """The median colour of the map is that of the value on the colour bar."""
    for frame, value in zip(shown, VALUES, strict=True):
        middle = np.median(frame[150:260, 120:240].reshape(-1, 3), axis=0)
        assert np.abs(middle - colour_of(value)).max() < 25


def test_every_frame_has_its_time(shown):
    pictures = [empty(f"x {text}")[2] for text in ("-100 ms", "0 ms", "170 ms")]
    differences = np.array([[off(f, picture, TITLE) for picture in pictures] for f in shown])
    assert (differences.argmin(axis=1) == [0, 1, 2]).all()
    others = differences[~np.eye(3, dtype=bool)].reshape(3, 2)
    assert (differences.diagonal() < 0.8 * others.min(axis=1)).all()


@pytest.mark.parametrize(("fps", "duration"), [(4, 250), (10, 100), (30, 30), (50, 20)])
def test_frames_per_second_of_a_gif(tmp_path, fps, duration):
    """Hundredths of a second, so 30 frames per second are 33."""
    pictures = [np.full((20, 30, 3), level, np.uint8) for level in (10, 120, 240)]
    write_movie(pictures, 3, tmp_path / "a.gif", fps, progress=False)
    image = Image.open(tmp_path / "a.gif")
    assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 3, 0)
    assert image.info["duration"] == duration


@pytest.mark.parametrize("fps", [5, 30])
def test_frames_per_second_of_an_mp4(tmp_path, fps):
    """And frames of an odd size, in their order."""
    levels = (10, 120, 240)
    pictures = [np.full((61, 83, 3), level, np.uint8) for level in levels]
    write_movie(pictures, 3, tmp_path / "a.mp4", fps, progress=False)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    about = next(reader)
    assert (about["fps"], about["codec"]) == (fps, "h264")
    width, height = about["size"]
    assert (width, height) == (82, 60)
    read = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert read == pytest.approx(levels, abs=8)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))[0] == 3


def slow_frames(n: int = 4):
    for level in np.linspace(0, 255, n):
        time.sleep(0.15)
        yield np.full((20, 30, 3), level, np.uint8)


@contextlib.contextmanager
def terminal():
    """Stderr is a terminal of 80 columns; gives a function that reads what it was sent."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(ours, False)

    def sent() -> str:
        try:
            return os.read(ours, 100_000).decode()
        except BlockingIOError:
            return ""

    with os.fdopen(theirs, "w") as stream, contextlib.redirect_stderr(stream):
        yield sent
    os.close(ours)


def test_progress_on_a_terminal(tmp_path):
    with terminal() as sent:
        write_movie(slow_frames(), 4, tmp_path / "a.gif", 10)
        said = sent()
    assert "a.gif:" in said
    assert "0/4" in said
    assert "2/4" in said
    assert "|" in said


def test_no_progress_when_it_is_not_wanted_or_no_terminal(tmp_path):
    with terminal() as sent:
        write_movie(slow_frames(2), 2, tmp_path / "a.gif", 10, progress=False)
        assert sent() == ""
    with (tmp_path / "log").open("w") as log, contextlib.redirect_stderr(log):
        write_movie(slow_frames(2), 2, tmp_path / "a.gif", 10)
    assert (tmp_path / "log").read_text() == ""
