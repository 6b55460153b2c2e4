"""Output of ``deepesi apply``: source estimates in MNE's formats, a picture, a line."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import SourceSpace
from deepesi.physics.io.channels import sensor_array
from deepesi.runtime.estimates import Localization, check_parts, magnitudes_of
from deepesi.runtime.inverse import PreparedInverse
from deepesi.runtime.prediction_sets import PredictionSet
from deepesi.runtime.writing.subject_anatomy import SubjectAnatomy
from deepesi.runtime.writing.zarr_group import check_zarr, is_zarr
from deepesi.utils.files import check_folder_out

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]
#: Writes the next piece of a recording and reports the files.
Writer: TypeAlias = Callable[[Localization], Iterable[str]]


def check_writable(space: SourceSpace, out: Path) -> None:
    """Refuse estimates that cannot be written, before any computation.

    Raises:
        ValueError: The source space has neither two hemispheres nor one volume.
        ModuleNotFoundError: zarr without its package.
        FileExistsError: ``out`` exists and is no zarr group.

    """
    check_parts(space)
    if is_zarr(out):
        check_zarr(out)


def check_prefix(out: Path) -> None:
    """Refuse an invalid prefix of the files to write, before anything is read.

    Raises:
        ValueError: A folder, a file name with a suffix of the written files, or its folder does
            not exist.

    """
    check_folder_out(out.parent)
    if out.is_dir() and not is_zarr(out):
        raise ValueError(
            f"--out {out} is a folder; give the beginning of the files' names, "
            f"--out {out / 'result'} for example, or one .zarr."
        )
    if out.suffix in (".stc", ".png", ".h5", ".label"):
        plain = re.sub(r"-(lh|rh|vl|stc)$", "", out.stem)
        raise ValueError(
            f"--out {out}: give the beginning of the files' names, --out "
            f"{out.with_name(plain or 'result')}; what follows it (-lh.stc, -rh.stc, .png) is "
            "added."
        )


def write_estimate(stc: "mne.source_estimate._BaseSourceEstimate", out: Path) -> list[Path]:
    """Write a source estimate, each file whole or not at all, and return the files.

    ``OUT-lh.stc`` and ``OUT-rh.stc`` for a surface, ``OUT-vl.stc`` for a volume; of moments of free
    orientation these are the magnitudes, and ``OUT-stc.h5`` has the moments.
    `mne.read_source_estimate` reads them all.
    """
    import mne

    moments = isinstance(stc, mne.VectorSourceEstimate | mne.VolVectorSourceEstimate)
    scalar = stc.magnitude() if moments else stc
    on_surface = isinstance(scalar, mne.SourceEstimate)
    suffixes = ["-lh.stc", "-rh.stc"] if on_surface else ["-vl.stc"]
    if moments:
        suffixes.append("-stc.h5")
    paths = [out.with_name(out.name + suffix) for suffix in suffixes]
    out.parent.mkdir(parents=True, exist_ok=True)
    stem = out.with_name(f".{out.name}.partial")  # MNE adds its own suffixes
    partials = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    with _replacing(partials, paths):
        scalar.save(stem, ftype="stc", overwrite=True, verbose="error")
        if moments:
            stc.save(stem, ftype="h5", overwrite=True, verbose="error")
    return paths


@contextmanager
def _replacing(partials: Sequence[Path], paths: Sequence[Path]) -> Iterator[None]:
    """Temporary files; they are moved to their paths if the block succeeds, else deleted."""
    try:
        yield
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def write_result(result: Localization, out: Path) -> Iterator[str]:
    """Write an estimate and, where there is one, its standard deviation as ``OUT-std``."""
    for suffix, stc in (("", result.stc), ("-std", result.std)):
        if stc is not None:
            for path in write_estimate(stc, out.with_name(out.name + suffix)):
                yield f"wrote {path}"


@contextmanager
def file_writer(out: Path, numbered: bool) -> Iterator[Writer]:
    """Writes every piece to its own files, with its number; a single piece without."""

    def write(result: Localization) -> Iterator[str]:
        name = f"{out.name}-{result.number:04d}" if numbered else out.name
        return write_result(result, out.with_name(name))

    yield write


@dataclass(frozen=True)
class Peak:
    """Source and time of the peak of an estimate.

    Attributes:
        sample: Number of the sample of the largest whitened power.
        time: Time of this sample, s.
        power: Whitened power of this sample, 1 for noise.
        location: Description of the strongest source of this sample.
        mni: MNI position of this source, mm; None if the space has none.
        prediction_set: Prediction set of the source; None if the file has no calibration.

    """

    sample: int
    time: float
    power: float
    location: str
    mni: tuple[float, float, float] | None
    prediction_set: PredictionSet | None

    def __str__(self) -> str:
        text = (
            f"strongest at {1e3 * self.time:.0f} ms, whitened power {self.power:.1f} "
            f"times the noise; strongest source there: {self.location}"
        )
        return text if self.prediction_set is None else f"{text}; {self.prediction_set}"


def write_prediction_set(peak: Peak, space: SourceSpace, out: Path) -> Iterator[str]:
    """Write the peak's prediction set: ``OUT-prediction-set-lh.label`` and ``-rh.label``.

    A hemisphere without such sources has no file, and neither has a volume, which has no vertices.
    """
    if peak.prediction_set is None or len(space.vertices) != 2:
        return
    import mne

    subject, first = space.name.rsplit("-", 1)[0], 0
    for side, vertices in zip(("lh", "rh"), space.vertices, strict=True):
        inside = peak.prediction_set.sources[first : first + len(vertices)]
        first += len(vertices)
        path = out.with_name(f"{out.name}-prediction-set-{side}.label")
        if not inside.any():
            path.unlink(missing_ok=True)  # from an earlier run
            continue
        label = mne.Label(
            vertices[inside], hemi=side, subject=subject, comment=f"{peak.prediction_set}, deepesi"
        )
        partial = out.with_name(
            f".{out.name}-prediction-set.partial-{side}.label"
        )  # MNE-Python expects the side at the end
        with _replacing([partial], [path]):
            mne.write_label(partial, label, verbose="error")
        yield f"wrote {path}"


def in_window(times: Array, window: Sequence[float]) -> NDArray[np.bool_]:
    """Whether times ``(T,)`` lie in a window (s), apart from rounding, as saved files have it."""
    nearly = 1e-9 + 0.01 * (times[-1] - times[0]) / max(len(times) - 1, 1)
    return np.asarray((times >= window[0] - nearly) & (times <= window[1] + nearly))


def find_peak(
    result: Localization,
    inverse: PreparedInverse,
    window: Sequence[float],
    anatomy: SubjectAnatomy | None = None,
) -> Peak | None:
    """The peak in a window (s) of a localized piece; None if the piece lies outside it."""
    times = result.stc.times
    inside = in_window(times, window)
    if not inside.any():
        return None
    power = inverse.power(result.data)
    sample = int(np.where(inside, power, -math.inf).argmax())
    strength = magnitudes_of(result.stc)[:, sample]
    source = int(strength.argmax())
    where, mni = location(source, inverse, anatomy), mni_of(source, inverse, anatomy)
    mean = np.asarray(result.stc.data)[..., sample]
    prediction_set = inverse.prediction_set(mean, result.data[:, sample])
    return Peak(sample, float(times[sample]), float(power[sample]), where, mni, prediction_set)


def location(source: int, inverse: PreparedInverse, anatomy: SubjectAnatomy | None = None) -> str:
    """Description of a source: hemisphere, vertex, position and parcel.

    The position is in MNI space where that is known, as on a packaged head or with `anatomy`; else
    in the MNE head frame of the subject.
    """
    space = inverse.space
    text = f"vertex {np.concatenate(space.vertices)[source]}"
    if len(space.vertices) == 2:
        hemisphere = "left" if source < len(space.vertices[0]) else "right"
        text = f"{hemisphere} hemisphere, {text}"
    mni = mni_of(source, inverse, anatomy)
    if mni is not None:
        text += ", MNI ({:.0f}, {:.0f}, {:.0f}) mm".format(*mni)
    else:
        x, y, z = 1e3 * inverse.positions[source]
        text += f", at ({x:.0f}, {y:.0f}, {z:.0f}) mm in the head frame"
    if anatomy is not None and anatomy.parcels:
        text += f", parcel {anatomy.parcels[source] or 'none'}"
    return text


def mni_of(
    source: int, inverse: PreparedInverse, anatomy: SubjectAnatomy | None = None
) -> tuple[float, float, float] | None:
    """MNI position of a source, mm, where the head or the subject's anatomy has one."""
    template = inverse.template
    if anatomy is not None:
        known = anatomy.mni
    elif template is not None:
        known = template.source_mni
    else:
        return None
    if not np.isfinite(known[source]).all():
        return None
    x, y, z = known[source].tolist()
    return x, y, z


def write_picture(
    result: Localization, peak: Peak, inverse: PreparedInverse, evoked: "mne.Evoked", out: Path
) -> str:
    """Write ``OUT.png``: butterfly, scalp map and cortex at the peak."""
    from deepesi.viz.recording import recording_figure, save_figure

    sensors = sensor_array(evoked.info, inverse.ch_names)  # where they were recorded
    figure = recording_figure(
        result.data,
        evoked.times,
        sensors.positions,
        inverse.ch_names,
        sensors.kinds,
        magnitudes_of(result.stc)[:, peak.sample],
        peak.sample,
        inverse.cortex,
        f"{evoked.comment}, {evoked.nave:g} trials",
        peak.location,
    )
    picture = out.with_name(f"{out.name}.png")
    save_figure(figure, picture)
    return f"wrote {picture}"
