"""Movies from frames: GIF by Pillow, MP4 by the ffmpeg of imageio-ffmpeg."""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.utils.files import atomic
from deepesi.utils.optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels ``(height, width, 3)``, 0 to 255.
Frame = NDArray[np.uint8]
#: Browsers slow a GIF down that shows more frames per second.
FASTEST_GIF = 50.0


def check_movie(path: Path, fps: float) -> None:
    """Refuse a movie that cannot be written, before any frame is drawn.

    Args:
        path: ``.gif`` or ``.mp4`` file.
        fps: Frames per second.

    Raises:
        ValueError: Another suffix, or a rate that the format cannot hold.
        ModuleNotFoundError: MP4 without imageio-ffmpeg.

    """
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"movie {path}: expected a name that ends in .gif or .mp4.")
    fastest = FASTEST_GIF if path.suffix == ".gif" else 120.0
    if not 0 < fps <= fastest:
        raise ValueError(
            f"movie {path}: {fps:g} frames per second, expected more than 0 and at most "
            f"{fastest:g} for {path.suffix}."
        )
    if path.suffix == ".mp4":
        require("imageio_ffmpeg", "movies", "write MP4 (a .gif needs nothing more)")


def check_times(times: NDArray[np.float64], n_times: int, who: str) -> None:
    """Refuse times ``(T,)`` that are no movie of `n_times` frames.

    Raises:
        ValueError: Another number of times, or fewer than two.

    """
    if times.shape != (n_times,):
        raise ValueError(
            f"{who}: values of {n_times} samples and times of shape {times.shape}. Give one time, "
            "in s, for every sample."
        )
    if n_times < 2:
        raise ValueError(
            f"{who}: {n_times} sample is a picture, not a movie; expected two or more. Draw one "
            "sample with mne.viz.plot_topomap or stc.plot."
        )


def write_movie(
    frames: Iterable[Frame], n_frames: int, path: Path, fps: float, progress: bool = True
) -> None:
    """Write frames to a file, one in memory at a time; the file appears when it is complete.

    Args:
        frames: Frames of one size.
        n_frames: Number of frames, for the progress bar.
        path: ``.gif`` or ``.mp4`` file, as in `check_movie`.
        fps: Frames per second. A GIF counts hundredths of a second, so it rounds.
        progress: Show a progress bar on a terminal.

    """
    from tqdm import tqdm

    bar = tqdm(
        frames,
        desc=path.name,
        total=n_frames,
        leave=False,
        dynamic_ncols=True,
        disable=None if progress else True,
    )
    with atomic(path) as partial:
        (_write_gif if path.suffix == ".gif" else _write_mp4)(bar, partial, fps)


def _write_gif(frames: Iterable[Frame], path: Path, fps: float) -> None:
    from PIL import Image

    def images() -> Iterator[Image.Image]:
        for frame in frames:
            # Every frame has colours of its own; dithering would flicker.
            yield Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE)

    every = images()
    duration = 10 * round(100 / fps)  # ms
    next(every).save(path, save_all=True, append_images=every, duration=duration, loop=0)


def _write_mp4(frames: Iterable[Frame], path: Path, fps: float) -> None:
    import imageio_ffmpeg

    writer = None
    for frame in frames:
        height, width = (n - n % 2 for n in frame.shape[:2])  # the codec wants even numbers
        if writer is None:
            writer = imageio_ffmpeg.write_frames(
                str(path), (width, height), fps=fps, macro_block_size=2, quality=7
            )
            writer.send(None)
        writer.send(np.ascontiguousarray(frame[:height, :width]))
    assert writer is not None  # at least two frames
    writer.close()


def drawn(figure: "Figure") -> Frame:
    """Pixels of a figure, as drawn now."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()


def time_text(time: float) -> str:
    """Time stamp of a frame; `time` is in s."""
    return f"{1e3 * time:.0f} ms"


class GifInPage:
    """A GIF file that a notebook or a page of the gallery plays.

    Args:
        path: The file.

    """

    def __init__(self, path: Path) -> None:
        self.data = base64.b64encode(path.read_bytes()).decode()

    def _repr_html_(self) -> str:
        return f'<img alt="movie" width="320" src="data:image/gif;base64,{self.data}">'
