"""``deepesi demo``: a page that runs an exported network in the browser."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.sensors import KINDS
from deepesi.physics.simulated import simulated_raw
from deepesi.physics.template import DisplayMesh, Template
from deepesi.runtime.corrections import OFFSET, OFFSET_ALL, OFFSET_RAW
from deepesi.runtime.inverse import Inverse, PreparedInverse
from deepesi.runtime.opening import check_window, correct_recording, open_recording
from deepesi.runtime.packaged import model_path
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.recordings import recording_rows
from deepesi.runtime.setup import SetupOptions
from deepesi.runtime.writing.animated import check_shown
from deepesi.utils.files import check_file_out
from deepesi.viz.demo import MAX_SAMPLES, Demo, Example, read_runtime, write_demo
from deepesi.viz.viewer import View

Array = NDArray[np.float64]

#: Simulated responses: name, MNI position, mm, and time of the peak, s.
RESPONSES = (
    ("left auditory cortex", (-52, -22, 8), 0.1),
    ("right visual cortex", (14, -90, 2), 0.12),
    ("left hand area", (-38, -24, 56), 0.16),
)
#: Montage, sampling rate (Hz), start and end (s) and peak SNR (dB, power ratio) of these.
MONTAGE, SFREQ, SPAN, SNR_DB = "biosemi64", 250.0, (-0.1, 0.4), 12.0
#: Extent of a simulated source and of its time course, standard deviations, m and s.
EXTENT, DURATION = 0.01, 0.025


def write_recording_demo(
    model: Path,
    recording: Path,
    out: Path,
    reading: ReadingOptions,
    setup: SetupOptions,
    window: Sequence[float],
    runtime: Path | None,
) -> Generator[str, None, None]:
    """Write a page that runs a model on an average, and report each step.

    Args:
        model: Exported file, or the name of a packaged one.
        recording: Path of the recording.
        out: ``.html`` file.
        reading: Options for reading the recording, as in `deepesi.runtime.apply.apply`.
        setup: Noise covariance and head.
        window: Start and end of the search for the peak, s.
        runtime: Unpacked npm package ``onnxruntime-web``.

    Raises:
        ValueError: No runtime, no average, more than 2,000 samples, channels that are no EEG, a
            model that cannot run in the page, a head without a cortex, or as in
            `deepesi.runtime.apply.apply`.

    """
    check_file_out(out, ".html")
    web = read_runtime(runtime)
    opened = yield from open_recording(model, recording, reading, setup)
    check_shown(opened.data, opened.inverse, window)
    check_window(window, opened.data.times)
    check_model(opened.model)
    ready = yield from correct_recording(opened, reading)
    average: Any = ready.recording
    data = average.data[recording_rows(average, opened.inverse.ch_names)]
    example = Example(f"{average.comment or recording.name}", average.times, data)
    nave = opened.inverse.nave
    demo = demo_of(model_path(model), opened.inverse, [example], window, nave)
    facts = {"network": str(model), "set-up": opened.inverse.origin}
    write_demo(out, f"{recording.name} in the browser", facts, demo, web)
    yield _wrote(out)


def write_simulated_demo(
    model: Path, out: Path, setup: SetupOptions, montage: str | None, runtime: Path | None
) -> Generator[str, None, None]:
    """Write a page that runs a model on simulated responses; args as in `write_recording_demo`.

    Raises:
        ValueError: No runtime, a model that cannot run in the page, or a head without MNI positions
            or a cortex to draw on.

    """
    check_file_out(out, ".html")
    web = read_runtime(runtime)
    inverse = Inverse.load(model, head=setup.head)
    check_model(inverse)
    head = inverse.template.montage_head(montage or MONTAGE)
    origin = f"simulated recordings, {montage or MONTAGE} on {head.space.name}, white noise of 1 µV"
    prepared = inverse.prepare_for(head, 1.0, origin)
    examples = simulated_examples(inverse.template, head, prepared)
    demo = demo_of(model_path(model), prepared, examples, (0.0, np.inf), None)
    write_demo(
        out, "EEG inverse in the browser", {"network": str(model), "set-up": origin}, demo, web
    )
    yield _wrote(out)


def check_model(inverse: Inverse) -> None:
    """Refuse a model that cannot run in the page.

    Raises:
        ValueError: It draws posterior samples.

    """
    if inverse.contract.noise is not None:
        raise ValueError(
            "the page runs exported networks that give a mean, and perhaps a standard deviation; "
            "this one draws posterior samples. Use 'deepesi apply' for it."
        )


def demo_of(
    file: Path,
    inverse: PreparedInverse,
    examples: Sequence[Example],
    window: Sequence[float],
    nave: float | None,
) -> Demo:
    """Content of the page from a prepared file and recordings; `nave` as in `Demo`.

    Raises:
        ValueError: Channels that are no EEG, too many samples, or no cortex to draw on.

    """
    template, mesh = _cortex(inverse)
    inverse.sensors.check_eeg_only("the page")
    n_samples = max(len(example.times) for example in examples)
    if n_samples > MAX_SAMPLES:
        raise ValueError(
            f"the page takes at most {MAX_SAMPLES} samples, the recording has {n_samples}. "
            "Crop it (evoked.crop), or use 'deepesi apply --html'."
        )
    reference = inverse.sensors.reference(np.eye(len(inverse.ch_names)))
    contract, first = inverse.model.contract, examples[0]
    zeros = np.zeros((inverse.space.n_sources, len(first.times)))
    view = View(
        first.times,
        {"estimate": zeros},
        mesh,
        inverse.sensors.reference(first.data),
        inverse.sensors.positions,
        0,
        {"estimate": zeros} if "std" in contract.kinds else {},
        mni=template.source_mni,
    )
    return Demo(
        file.read_bytes(),
        inverse.feeds,
        {output.kind: output.name for output in contract.outputs},
        inverse.model.longest,
        inverse.space.n_orient,
        inverse.ch_names,
        KINDS["eeg"].amplitude,
        inverse.rank,
        nave,
        (OFFSET, OFFSET_ALL, OFFSET_RAW),
        reference,
        inverse.whitener @ reference,
        window,
        examples,
        view,
    )


def _cortex(inverse: PreparedInverse) -> tuple[Template, DisplayMesh]:
    template = inverse.template
    if template is None or template.display is None:
        raise ValueError(
            f"the page needs a cortex to draw on, which the source space {inverse.space.name} does "
            "not have. Use a packaged head."
        )
    return template, template.display


def simulated_examples(
    template: Template, head: HeadModel, inverse: PreparedInverse
) -> list[Example]:
    """Responses of one cortical patch each, with noise of the covariance that was prepared for."""
    if not np.isfinite(template.source_mni).all():
        raise ValueError(
            f"the simulated responses need a head in MNI space, which {template.name} is not. Give "
            "a recording, or leave --head out."
        )
    times = np.arange(round(SPAN[0] * SFREQ), round(SPAN[1] * SFREQ) + 1) / SFREQ
    examples = []
    for seed, (name, mni, peak) in enumerate(RESPONSES):
        patch = _patch(template, head, inverse, np.array(mni))
        time_course = np.exp(-(((times - peak) / DURATION) ** 2) / 2)
        raw = simulated_raw(head, np.outer(patch, time_course), SFREQ, seed)
        text = f"simulated: {name}, MNI {mni} mm, {1e3 * peak:.0f} ms"
        examples.append(Example(text, times, raw.get_data()))
    return examples


def _patch(template: Template, head: HeadModel, inverse: PreparedInverse, mni: Array) -> Array:
    """Moments ``(D,)`` of a Gaussian patch along the normals, of the set SNR."""
    centre = template.source_pos[np.linalg.norm(template.source_mni - mni, axis=1).argmin()]
    distance = np.linalg.norm(template.source_pos - centre, axis=1)
    moments = np.exp(-((distance / EXTENT) ** 2) / 2) * template.is_cortex
    if head.space.n_orient == 3:
        moments = (moments[:, None] * template.source_normals).ravel()
    power = float(inverse.power(head.project(moments[:, None]))[0])
    return np.asarray(moments * np.sqrt(10 ** (SNR_DB / 10) / power))


def _wrote(out: Path) -> str:
    return f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB, open it in a browser"
