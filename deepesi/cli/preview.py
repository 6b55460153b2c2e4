"""``deepesi preview``: figures of simulated recordings, to check them before training."""

import html
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from deepesi import __version__
from deepesi.cli.loading import load_heads
from deepesi.core.arrays import as_array
from deepesi.core.batch import Scene
from deepesi.data_gen.curriculum import Curriculum
from deepesi.data_gen.generator import Parts, SimulatedRecordings
from deepesi.data_gen.setups import RecordingSetup, SetupRanges
from deepesi.data_gen.sources import WITH_EXTENT
from deepesi.evaluation.compare import console
from deepesi.physics.head import magnitudes
from deepesi.viz.page import picture, png, write_page
from deepesi.viz.preview import Example, example_figure
from deepesi.viz.recording import save_figure
from deepesi.viz.summary import Draw, curriculum_figure, summary_figure

Array = NDArray[np.float64]

#: Number of examples drawn at a time, under one set-up.
BATCH_SIZE = 32
#: Label of the largest value of channels of several kinds.
LARGEST_OF_ALL = "largest value (µV, 50 fT, 10 fT/cm)"


def example_of(
    parts: Parts, index: int, recordings: SimulatedRecordings, ranges: SetupRanges
) -> Example:
    """One example of a batch as arrays, with a description of its parameters."""
    scene, head = parts.batch.scene, parts.batch.head
    template = parts.setup.true_head.template
    rows = head.sensors.map_rows
    sensors, clean = head.sensors[rows], as_array(parts.clean[index])
    sources = as_array(parts.batch.sources[index])
    moments = sources.reshape(len(head.source_pos), head.space.n_orient, -1)
    peaks = scene.peaks[index].cpu().numpy()
    peaks = peaks[peaks >= 0]
    return Example(
        recorded=as_array(parts.batch.data[index])[rows],
        clean=clean[rows],
        noise=as_array(parts.noise[index])[rows],
        artifacts=sum((as_array(a[index]) for a in parts.artifacts), np.zeros_like(clean))[rows],
        magnitudes=magnitudes(sources, head.space.n_orient).max(axis=1),
        peaks=peaks,
        time_courses=np.stack([_along_strongest(moments[peak]) for peak in peaks]),
        times=np.arange(clean.shape[1]) / recordings.sfreq,
        sensor_pos=sensors.positions,
        ch_names=sensors.names,
        source_pos=head.source_pos,
        mesh=template.display,
        title=f"Example {scene.key[-1] + 1}",
        facts=_facts(parts, index, recordings, ranges)
        | {"nominal head": _mismatch(head.project(sources), clean)},
        kind=sensors.kinds[0],
    )


def _along_strongest(moment: Array) -> Array:
    """Time course ``(T,)`` of a moment ``(n_orient, T)``; a free one along its main direction."""
    if len(moment) == 1:
        return moment[0]
    strongest = moment[:, np.linalg.norm(moment, axis=0).argmax()]
    return np.asarray(strongest @ moment / np.linalg.norm(strongest))


def _facts(
    parts: Parts, index: int, recordings: SimulatedRecordings, ranges: SetupRanges
) -> dict[str, str]:
    """Simulation parameters as texts, by name."""
    scene, head = parts.batch.scene, parts.batch.head
    setup, space = parts.setup, head.space
    template = setup.true_head.template
    kinds = [type(artifact).__name__ for artifact in recordings.artifacts]
    there = [k for k, has in zip(kinds, scene.artifacts[index].tolist(), strict=True) if has]
    orientation = {1: "fixed", 3: "free"}[space.n_orient]
    level, known_level = (
        head.sensors.text_by_kind(np.sqrt(np.diag(cov)) * head.sensors.head_units, _rms)
        for cov in (setup.noise.cov, head.noise_cov)
    )
    known = "from {}-{} samples".format(*ranges.baseline) if ranges.baseline else "known"
    skull, thickness, scalp, brain = scene.tissues[index].tolist()
    tissues = {
        "skull": f"{1e3 * skull:.3g} mS/m, {1e3 * thickness:.3g} mm thick",
        "scalp, brain": f"{scalp:.2f}, {brain:.2f} S/m",
    }
    return {
        "head": f"{scene.head_name}: {space.n_sources} sources, {orientation} orientation",
        "montage": f"{setup.montage}, {head.n_channels} channels recorded",
        "SNR": f"{float(scene.snr_db[index]):.1f} dB, sources over noise",
        **(tissues if template.family.varies else {"tissues": "those of the forward solution"}),
        "sources": _source_lines(parts, index, recordings.sources.shapes),
        **_true_cortex(parts, index),
        "artifacts": ", ".join(there) or "none",
        "noise": f"{level} RMS per channel",
        "assumed": f"{_assumed(setup, ranges)}\nnoise covariance {known}: {known_level}",
    }


def _rms(values: Array) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _source_lines(parts: Parts, index: int, shapes: Sequence[str]) -> str:
    """Moment, shape and radius of every source."""
    patches, scene = parts.patches, parts.batch.scene
    lines = list[str]()
    for number in (scene.peaks[index] >= 0).nonzero()[:, 0].tolist():
        shape, moment = shapes[int(patches.shapes[index, number])], scene.moments[index, number]
        text = f"{len(lines) + 1}: {1e9 * moment:.4g} nAm, {shape}"
        if shape not in ("point", "field"):
            text += f", radius {1e3 * scene.extents[index, number]:.0f} mm"
        if shape in WITH_EXTENT and patches.euclidean[index, number]:
            text += " (Euclidean)"
        lines.append(text)
    return "\n".join(lines)


def _true_cortex(parts: Parts, index: int) -> dict[str, str]:
    """Distance and turn of the true sources from the source grid, for other people's anatomies."""
    if parts.anatomy is None:
        return {}
    distance, turn = parts.anatomy.differences(parts.setup.true_head.template)
    peaks = [peak for peak in parts.batch.scene.peaks[index].tolist() if peak >= 0]
    lines = [
        f"{number}: {1e3 * distance[peak]:.0f} mm from the grid, "
        f"normal turned by {np.degrees(turn[peak]):.0f}°"
        for number, peak in enumerate(peaks, 1)
    ]
    return {"true cortex": "\n".join(lines)}


def _assumed(setup: RecordingSetup, ranges: SetupRanges) -> str:
    """The tissues of the nominal head."""
    if not setup.true_head.template.family.varies:
        return "the true lead field"
    assumed = setup.assumed
    own = ranges.own_anatomy and setup.anatomy is None
    return (
        f"{'individual' if own else 'the template as'} anatomy\n"
        f"skull {1e3 * assumed.skull_conductivity:.3g} mS/m, "
        f"{1e3 * assumed.skull_thickness:.3g} mm thick\n"
        f"scalp {assumed.scalp_conductivity:.3g}, brain {assumed.brain_conductivity:.3g} S/m"
    )


def _mismatch(nominal: Array, clean: Array) -> str:
    sizes = np.linalg.norm(nominal), np.linalg.norm(clean)
    correlation = float((nominal * clean).sum() / (sizes[0] * sizes[1]))
    ratio = sizes[0] / sizes[1]
    return f"same sources, {ratio:.2f} times the true signal,\ncorrelation {correlation:.3f}"


def draw_examples(
    recordings: SimulatedRecordings, ranges: SetupRanges, n_examples: int, n_summary: int
) -> tuple[list[Example], Draw]:
    """The first example of each batch, and the parameters of all examples of all batches."""
    examples, scenes, largest = list[Example](), list[Scene](), []
    cortices: list[tuple[Array, Array]] = []
    for step in range(max(n_examples, -(-n_summary // recordings.batch_size))):
        parts = recordings.parts(step)
        if step < n_examples:
            examples.append(example_of(parts, 0, recordings, ranges))
        scenes.append(parts.batch.scene)
        if parts.anatomy is not None:
            active = parts.setup.true_head.template.is_cortex
            distance, turn = parts.anatomy.differences(parts.setup.true_head.template)
            cortices.append((distance[active], turn[active]))
        largest.append(
            [as_array(data.abs().amax((1, 2))) for data in (parts.clean, parts.batch.data)]
        )
    has_source = np.concatenate([s.peaks.cpu().numpy() >= 0 for s in scenes])
    tissues = np.concatenate([as_array(s.tissues) for s in scenes])
    present = np.concatenate([s.artifacts.cpu().numpy() for s in scenes]).mean(axis=0)
    draw = Draw(
        snr_db=np.concatenate([as_array(s.snr_db) for s in scenes]),
        skull_conductivity=tissues[:, 0],
        skull_thickness=tissues[:, 1],
        moments=np.concatenate([as_array(s.moments) for s in scenes])[has_source],
        counts=has_source.sum(axis=1),
        shares={
            type(a).__name__: float(p) for a, p in zip(recordings.artifacts, present, strict=True)
        },
        largest=np.concatenate(largest, axis=1),
        displacement=np.concatenate([d for d, _ in cortices]) if cortices else None,
        turn=np.concatenate([t for _, t in cortices]) if cortices else None,
        **({} if ranges.coils is None else {"largest_label": LARGEST_OF_ALL}),
    )
    return examples, draw


def _curriculum_figure(curriculum: Curriculum) -> Figure:
    progress = np.linspace(0, 1, 201)
    widths = [curriculum.widths(round(p * curriculum.n_steps)) for p in progress]
    return curriculum_figure(
        progress, {name: np.array([w[name] for w in widths]) for name in widths[0]}
    )


def _shown(config: DictConfig) -> str:
    """The configuration without the trainer, as YAML."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict), "a configuration is a mapping"
    return OmegaConf.to_yaml({key: value for key, value in values.items() if key != "trainer"})


def run(config: DictConfig, command: str, run_dir: Path) -> None:
    """Draw examples, write figures and page, and print their paths."""
    if min(config.n_examples, config.n_summary) < 1:
        raise ValueError(
            f"preview: n_examples and n_summary must be 1 or more, got {config.n_examples} and "
            f"{config.n_summary}."
        )
    if "setups" not in config.data:
        raise ValueError(
            "preview: data=real is not simulated, so there is no source to draw. Choose other data."
        )
    cohort = load_heads(config.head)
    split = next(s for s in ("validation", "train", "test") if cohort.of(s))
    recordings = cast(
        SimulatedRecordings,
        hydra.utils.instantiate(config.data, _convert_="all")(
            heads=cohort.of(split),
            nominal_head=cohort.template,
            declarations=[],
            batch_size=BATCH_SIZE,
            seed=config.seed,
            split=split,
            pool_size=1,
            pool_period=1,
            curriculum=None,
        ),
    )
    ranges: SetupRanges = hydra.utils.instantiate(config.data.setups, _convert_="all")
    for note in recordings.limits:
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    with console.status("Drawing") as status:
        examples, draw = draw_examples(recordings, ranges, config.n_examples, config.n_summary)
        sections = {
            f"{len(draw.snr_db)} examples": picture(png(summary_figure(draw)), "summary"),
        }
        if config.data.get("curriculum") is not None:
            curriculum = hydra.utils.instantiate(config.data.curriculum, _convert_="all")
            sections["Curriculum: all examples here are drawn with the ranges fully open"] = (
                picture(png(_curriculum_figure(curriculum)), "curriculum")
            )
        for number, example in enumerate(examples, 1):
            status.update(f"Drawing example {number}")
            path = run_dir / f"example-{number}.png"
            save_figure(example_figure(example), path)
            text = "; ".join(f"{name}: {fact}" for name, fact in example.facts.items())
            sections[example.title] = picture(path.read_bytes(), text)
        sections["Configuration"] = f"<pre>{html.escape(_shown(config))}</pre>"
    facts = {
        "version": f"deepesi {__version__}",
        "command": command,
        "seed": f"{config.seed}, split {split!r}; every example has a set-up of its own",
    }
    page = run_dir / "preview.html"
    write_page(page, "Simulated recordings", facts, recordings.limits, sections)
    console.print(
        f"Results in {run_dir}: preview.html, example-*.png", markup=False, soft_wrap=True
    )


def main(config: DictConfig) -> None:
    """Hydra entry of ``deepesi preview``."""
    active = HydraConfig.get()
    command = shlex.join(["deepesi", "preview", *active.overrides.task])
    run(config, command, Path(active.runtime.output_dir))
