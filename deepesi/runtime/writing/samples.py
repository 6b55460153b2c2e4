"""Posterior samples of the strongest sample in time of an average: files, lines and a figure."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.calibration.sample_sources import NEAR, SampleSources, sources_of
from deepesi.physics.graph import source_areas
from deepesi.physics.head import magnitudes
from deepesi.runtime.estimates import Localization, source_estimate
from deepesi.runtime.inverse import PreparedInverse
from deepesi.runtime.writing.estimate import Peak, location, write_estimate
from deepesi.utils.files import atomic

if TYPE_CHECKING:
    from deepesi.runtime.recording_type import Recording

#: Bytes per value of a sample: copies of it, its magnitude, and its comparison with the neighbours
#: on the mesh, of which a source has six.
BYTES = 120
#: Level of the joint set.
LEVEL = 0.9


@dataclass(frozen=True)
class Draws:
    """Number and seed of the posterior samples to draw.

    Attributes:
        n: Number of samples.
        seed: Random seed; the same seed gives the same samples.

    Raises:
        ValueError: Fewer than one sample.

    """

    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(
                f"--samples {self.n}: expected 1 or more; 200 are enough for a probability of "
                "5 %. Leave it out for no samples."
            )


def check_draws(draws: Draws, recording: "Recording", inverse: PreparedInverse) -> None:
    """Refuse samples that cannot be drawn, before the estimate is computed.

    Raises:
        ValueError: The recording is no average, or the model draws no samples.
        MemoryError: There are more than memory holds.

    """
    import mne

    if not isinstance(recording, mne.Evoked):
        raise ValueError(
            "--samples draws at the strongest sample of an average, and this recording holds "
            "epochs or raw data. Give --event NAME to average it."
        )
    inverse.check_samples(draws.n, 1, BYTES)


def write_samples(
    draws: Draws,
    result: Localization,
    peak: Peak,
    inverse: PreparedInverse,
    out: Path,
    progress: bool = True,
) -> Iterator[str]:
    """Draw at the peak of an average, and write ``OUT-samples.npz``, a map and pictures.

    ``OUT-samples.npz`` holds ``samples (N, D)`` (float32, A m, row ``n_orient * s + o``),
    ``time`` (s), ``seed``, ``positions (S, 3)`` (m, head frame), ``probability (S,)`` of a source
    within 10 mm, ``n_sources`` (probability of 0, 1, 2, ... sources; empty if they cannot be
    counted), ``joint_set (S,)`` and its ``level``. ``OUT-probability`` is the map as a source
    estimate of MNE-Python, ``OUT-samples.png`` a figure. Two or more samples on a packaged head
    are also animated, one after the other, in ``OUT-samples.gif``.

    Args:
        draws: Number and seed.
        result: Estimate of the average.
        peak: Its strongest sample in time.
        inverse: The prepared model.
        out: Prefix of the files.
        progress: Show a progress bar on a terminal while the animation is written.

    """
    space = inverse.space
    samples = inverse.sample(result.data[:, [peak.sample]], draws.n, draws.seed)[..., 0]
    shown = magnitudes(samples.T.astype(np.float64), space.n_orient).T
    sources = sources_of(shown, inverse.positions, space.edges, LEVEL)
    yield from _lines(sources, inverse)
    path, counts = out.with_name(f"{out.name}-samples.npz"), sources.count_probabilities
    with atomic(path) as partial:
        np.savez_compressed(
            partial,
            allow_pickle=False,
            samples=samples.astype(np.float32),
            time=np.array(peak.time),
            seed=np.array(draws.seed),
            positions=inverse.positions,
            probability=sources.probability,
            n_sources=np.empty(0) if counts is None else counts,
            joint_set=sources.joint_set,
            level=np.array(sources.level),
        )
    yield f"wrote {path}"
    yield from _write_map(sources, peak, inverse, out)
    yield from _write_pictures(shown, sources, peak, inverse, out, progress)


def _lines(sources: SampleSources, inverse: PreparedInverse) -> Iterator[str]:
    n = len(sources.peaks)
    if sources.count_probabilities is None:
        yield f"{n} samples; every source is active in them, so active sources cannot be counted"
    else:
        likely = [
            f"{i}: {100 * p:.0f} %" for i, p in enumerate(sources.count_probabilities) if p >= 0.005
        ]
        yield f"{n} samples; number of sources {', '.join(likely)}"
    best = int(sources.probability.argmax())
    yield (
        f"most likely: {100 * sources.probability[best]:.0f} % for a source within "
        f"{1e3 * NEAR:g} mm of {location(best, inverse)}"
    )
    text = f"{100 * sources.level:g} % set of all sources together: {int(sources.joint_set.sum())}"
    if len(inverse.space.vertices) == 2:
        areas = source_areas(inverse.positions, inverse.space.edges)
        text += f" locations, {1e4 * areas[sources.joint_set].sum():.1f} cm²"
    else:
        text += " locations"
    yield text


def _write_map(
    sources: SampleSources, peak: Peak, inverse: PreparedInverse, out: Path
) -> Iterator[str]:
    stc = source_estimate(sources.probability[:, None], inverse.space.fixed, peak.time, 1.0)
    for path in write_estimate(stc, out.with_name(f"{out.name}-probability")):
        yield f"wrote {path}"


def _write_pictures(
    shown: NDArray[np.float64],
    sources: SampleSources,
    peak: Peak,
    inverse: PreparedInverse,
    out: Path,
    progress: bool,
) -> Iterator[str]:
    """The figure, and on a known cortex an animation."""
    from matplotlib.figure import Figure

    from deepesi.viz.recording import save_figure
    from deepesi.viz.samples import animate_samples, draw_posterior

    mesh = inverse.cortex
    figure = Figure(figsize=(12, 7), layout="constrained")
    title = f"{len(shown)} samples of the posterior at {1e3 * peak.time:.0f} ms"
    figure.suptitle(title, fontsize=13)
    found = sources.probability, sources.count_probabilities
    draw_posterior(
        figure,
        shown,
        *found,
        NEAR,
        inverse.positions,
        mesh,
        joint_set=sources.joint_set,
        level=sources.level,
    )
    picture = out.with_name(f"{out.name}-samples.png")
    save_figure(figure, picture)
    yield f"wrote {picture}"
    if mesh is not None and len(shown) > 1:
        animation = out.with_name(f"{out.name}-samples.gif")
        animate_samples(shown, inverse.positions, mesh, animation, progress=progress)
        yield f"wrote {animation}"
