"""``deepesi explain``: why the estimate of one sample of a recording is what it is, as a page."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.interpret.any_model.counterfactual import (
    ChangedRecording,
    Counterfactual,
    counterfactual,
)
from deepesi.interpret.any_model.explanation import Attribution, Explanation, Inside
from deepesi.interpret.any_model.frames import Frame, Run, frame_at, run_of
from deepesi.interpret.any_model.occlusion import filled, moving_sensors, occluded, occlusion
from deepesi.interpret.any_model.page import write_explanation
from deepesi.interpret.any_model.target_names import check_target, named_target
from deepesi.interpret.any_model.targets import NEIGHBOURHOOD, Target, explained
from deepesi.physics.channel_check import unexplained_channels
from deepesi.physics.forward_check import forward_check
from deepesi.physics.head import HeadModel, magnitudes
from deepesi.physics.lobes import LOBE_SIZE, elsewhere, lobe_text
from deepesi.physics.noise import snr_db_of_power
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.noise_check import check_noise, quietest_average
from deepesi.runtime.nominal_head import nominal_head, nominal_head_of_forward
from deepesi.runtime.opening import Opened, check_window, correct_recording, open_recording
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.recording_checks import check_average
from deepesi.runtime.recordings import recording_rows
from deepesi.runtime.setup import Opener, SetupOptions
from deepesi.runtime.writing.estimate import in_window, location
from deepesi.runtime.writing.subject_anatomy import SubjectAnatomy, anatomy_of
from deepesi.utils.files import check_file_out
from deepesi.utils.nearest import nearest

if TYPE_CHECKING:
    import mne

    from deepesi.core.contracts import InverseModel

Array = NDArray[np.float64]

#: Methods of ``--methods``; the last runs on any file.
METHODS = ("saliency", "integrated_gradients", "deep_lift", "occlusion")
#: Number of noise recordings that integrated gradients and DeepLIFT compare with.
N_BASELINES = 8
#: Completeness error above which contributions are not shown.
INCOMPLETE = 0.1
#: Least distance by which the loss of a sensor moves the peak, m: half a neighbourhood.
MIN_MOVE = NEIGHBOURHOOD / 2

#: Opens the network of a model that was opened; None: it has no gradients.
NetworkOpener = Callable[[Path, Inverse], "InverseModel | None"]


@dataclass(frozen=True)
class ExplainOptions:
    """What is explained, and how.

    Attributes:
        at: Time of the sample, s; None: the strongest one in `window`.
        window: Start and end of the search for the strongest sample, s.
        target: Name of a target, as `check_target` allows.
        methods: Some of `METHODS`; None: all that the model has.
        spans: Spans of time of occlusion; 1: all samples that are input of the model.

    Raises:
        ValueError: An unknown target or method, or no span of time.

    """

    at: float | None = None
    window: Sequence[float] = (0.0, float("inf"))
    target: str = "localization"
    methods: Sequence[str] | None = None
    spans: int = 1

    def __post_init__(self) -> None:
        check_target(self.target)
        if self.spans < 1:
            raise ValueError(f"--spans {self.spans}: expected 1 or more spans of time.")
        for method in self.methods or ():
            if method not in METHODS:
                raise ValueError(f"--methods: unknown {method!r}. {nearest(method, METHODS)}")


class _Parts(NamedTuple):
    """The explained sample and the model."""

    frame: Frame
    run: Run
    head: HeadModel
    target: Target
    peak: int

    @property
    def noise_std(self) -> Array:
        return np.sqrt(self.head.noise_cov.diagonal())


def explain(
    model: Path,
    recording: Path,
    out: Path,
    reading: ReadingOptions,
    setup: SetupOptions,
    options: ExplainOptions,
    open_inverse: Opener,
    open_network: NetworkOpener,
) -> Generator[str, None, Explanation]:
    """Explain the estimate of one sample of an average, and report each step.

    Args:
        model: Model that `open_inverse` knows.
        recording: Path of the recording.
        out: ``.html`` file to write.
        reading: Options for reading the recording.
        setup: Noise covariance and head.
        options: What is explained, and how.
        open_inverse: Opens the model.
        open_network: Opens the network of the model, for gradients.

    Returns:
        The explanation, after all lines are consumed.

    Raises:
        ValueError: As in `deepesi.runtime.apply.apply`; or a method that the model does not have,
            no average, no such sample, parcel or source, or a target that is zero. Nothing is
            written.

    """
    check_file_out(out, ".html")
    opened = yield from open_recording(model, recording, reading, setup, open_inverse)
    network = open_network(model, opened.model)
    methods = _methods(model, network is not None, options)
    check_average(opened.data, "explain")
    head, anatomy = _head(opened), anatomy_of(opened.forward, setup.subjects_dir)
    mni = _mni(opened.inverse, anatomy)
    ready = yield from correct_recording(opened, reading)
    inverse, evoked = opened.inverse, ready.recording
    inverse.sensors.check_eeg_only("explain")
    data = inverse.sensors.reference(evoked.data[recording_rows(evoked, inverse.ch_names)])
    sample, power = _sample(evoked, inverse, data, options)
    frame, run = frame_at(data, sample, inverse.model.longest), run_of(inverse)
    moments = frame.moments(run, frame.data[None])[0]
    magnitude = magnitudes(moments, inverse.space.n_orient)
    peak = int(magnitude.argmax())
    if magnitude[peak] == 0:
        raise ValueError(
            f"explain: the estimate of {model.stem} is zero at {evoked.times[sample]:g} s, so "
            "there is nothing to explain. Give another time (--at), or another model."
        )
    where = location(peak, inverse, anatomy)
    yield f"{1e3 * evoked.times[sample]:.0f} ms, strongest source there: {where}"
    target, text = named_target(options.target, moments, peak, inverse, anatomy)
    value = float(target(moments[None])[0])
    if value == 0:
        raise ValueError(
            f"explain: the {text} is zero in the estimate of {model.stem}, so there is nothing to "
            "explain. Give another --target, another time (--at), or another model."
        )
    parts = _Parts(frame, run, head, target, peak)
    yield f"occlusion: the estimate without each of {len(data)} electrodes"
    fill = filled(frame.data, inverse.channel_precision)
    without = frame.moments(run, occluded(frame.data, fill, inverse.sensors))
    lost = moving_sensors(moments, without, inverse.positions, inverse.space.n_orient, MIN_MOVE)
    attributions, missing = {}, list(_unknown(opened, mni))
    missing += [_no_gradients(model)] if network is None else []
    for method in methods:
        if method == "occlusion" or network is None:
            attributions[method] = _occlusion(parts, moments, without, fill, options.spans)
            continue
        yield method.replace("_", " ")
        attribution = _by_gradients(method, parts, inverse, network)
        if isinstance(attribution, Attribution):
            attributions[method] = attribution
        else:
            missing.append(attribution)
            yield attribution
    yield "the least change that moves the peak"
    far = elsewhere(peak, inverse.positions, mni)
    change = _change(parts, inverse, far)
    numbers = sorted({peak, *(s.peak for s in lost), *([] if change is None else [change.after])})
    name = f"{recording.name}, {evoked.comment}".removesuffix(", ")
    explanation = Explanation(
        recording=name,
        model=model.stem,
        head=inverse.space.name,
        time=float(evoked.times[sample]),
        times=evoked.times[frame.first : frame.first + frame.data.shape[1]],
        snr_db=float(snr_db_of_power(np.array(power))),
        sensors=inverse.sensors,
        data=frame.data,
        magnitudes=magnitude,
        positions=inverse.positions,
        mesh=inverse.cortex,
        peak=peak,
        locations={number: location(number, inverse, anatomy) for number in numbers},
        lobes=_lobes(numbers, mni),
        elsewhere=far,
        target=target,
        target_text=text,
        value=value,
        attributions=attributions,
        missing=missing,
        check=forward_check(head.leadfield, inverse.whitener, moments, data[:, sample]),
        unexplained_channels=unexplained_channels(inverse.channel_precision, data, inverse.sensors),
        change=change,
        lost=lost,
        inside=Inside() if network is None else _inside(network, parts, inverse),
    )
    yield from _sentences(explanation)
    write_explanation(explanation, out)
    yield f"wrote {out}"
    return explanation


def _methods(model: Path, has_network: bool, options: ExplainOptions) -> Sequence[str]:
    """Methods to use, after a check that the model has them."""
    if options.methods is None:
        return METHODS if has_network else METHODS[-1:]
    lacking = [method for method in options.methods if method != METHODS[-1]]
    if lacking and not has_network:
        raise ValueError(
            f"explain: {model} has no gradients, which {', '.join(lacking)} need(s): an exported "
            "file or an iterative solver. They need torch and the network itself: give the "
            "directory of the run that the file was exported from. Or leave --methods out, or "
            "give --methods occlusion, which runs on any file."
        )
    return options.methods


def _no_gradients(model: Path) -> str:
    return (
        f"{model.name} has no gradients, so saliency, integrated gradients and DeepLIFT are left "
        "out. They need torch and the network itself: give the directory of the run that the file "
        "was exported from. Occlusion runs on any file."
    )


def _mni(inverse: PreparedInverse, anatomy: SubjectAnatomy | None) -> Array | None:
    """MNI positions of the sources ``(S, 3)``, mm, NaN where unknown; None: all are unknown."""
    template = inverse.template
    if anatomy is not None:
        return anatomy.mni
    if template is None or not np.isfinite(template.source_mni).any():
        return None
    return template.source_mni


def _unknown(opened: Opened, mni: Array | None) -> Iterator[str]:
    """What is not known of the head, and how to get it."""
    space, its = opened.inverse.space, "" if opened.forward else "its forward solution (--forward) "
    if mni is None:
        yield (
            f"Lobes are not known, because {space.name} has no MNI positions. To name them, give "
            f"{its and f'{its}and '}FreeSurfer's folder of its subject (--subjects-dir). Until "
            f"then, a source at least {1e3 * LOBE_SIZE:g} mm away counts as in another lobe."
        )
    if opened.inverse.cortex is None and len(space.vertices) == 2:
        yield (
            f"No cortex is drawn, because triangles between the sources of {space.name} are not "
            "known. To draw it, give a forward solution (--forward) on a source space of "
            "mne.setup_source_space with spacing ico or oct."
        )


def _head(opened: Opened) -> HeadModel:
    """The nominal head of the recording.

    Raises:
        ValueError: A prepared model of another head.

    """
    inverse = opened.inverse
    if opened.forward is not None:
        return nominal_head_of_forward(inverse, opened.data.info, opened.forward)
    template = opened.model.template
    of_forward = inverse.placement is None and inverse.origin.startswith("forward")
    if of_forward or template.space.fingerprint != inverse.space.fingerprint:
        raise ValueError(
            f"--prepared: it was prepared with another head ({inverse.origin}) than "
            f"{template.name}, and its lead field is not in the file. Give --noise-cov and "
            "--forward or --head in place of --prepared."
        )
    return nominal_head(inverse, template)


def _sample(
    evoked: "mne.Evoked", inverse: PreparedInverse, data: Array, options: ExplainOptions
) -> tuple[int, float]:
    """Number of the explained sample, and its whitened power."""
    times, power = evoked.times, inverse.power(data)
    seconds = len(times) / float(evoked.info["sfreq"])
    check_noise(power, quietest_average(inverse.rank, seconds), inverse.nave)
    if options.at is None:
        check_window(options.window, times)
        sample = int(np.where(in_window(times, options.window), power, -np.inf).argmax())
    else:
        sample = int(np.abs(times - options.at).argmin())
        if not abs(times[sample] - options.at) <= 1 / float(evoked.info["sfreq"]):
            raise ValueError(
                f"--at {options.at:g} s lies outside the recording ({times[0]:g} to "
                f"{times[-1]:g} s). Give it in s."
            )
    return sample, float(power[sample])


def _occlusion(
    parts: _Parts, moments: Array, without: Array, fill: Array, spans: int
) -> Attribution:
    target, data = parts.target, parts.frame.data
    by_sensor = target(moments[None]) - target(without)
    by_span = None
    if spans > 1:
        function = explained(parts.frame, parts.run, target)
        n_spans = min(spans, data.shape[1])
        by_span = target.factor * occlusion(function, data, fill, parts.head.sensors, n_spans)
    return Attribution(target.factor * by_sensor, by_span, target.unit)


def _by_gradients(
    method: str, parts: _Parts, inverse: PreparedInverse, network: "InverseModel"
) -> Attribution | str:
    """One method; or why it is left out, if its values are not finite or do not add up."""
    from deepesi.core.contracts import as_tensors
    from deepesi.interpret.networks import gradients

    factor, unit, data = parts.target.factor, parts.target.unit, parts.frame.data
    run = gradients.run_of_model(network, as_tensors(inverse.feeds))
    function = explained(parts.frame, run, parts.target)
    left_out = f"The method {method} is left out for {type(network).__name__}: "
    instead = ". Use occlusion (--methods occlusion), which works for any model."
    if method == "saliency":
        values = factor * gradients.saliency(function, data, parts.noise_std)
        if not np.isfinite(values).all():
            return f"{left_out}its derivatives are not finite{instead}"
        return Attribution(values.sum(1), values, f"{unit} per noise SD")
    baselines = gradients.noise_recordings(parts.head.noise_cov, data.shape[1], N_BASELINES)
    values = gradients.AGAINST_BASELINES[method](function, data, baselines)
    error = gradients.completeness(function, data, baselines, values)
    if not np.isfinite(values).all():
        return f"{left_out}its contributions are not finite{instead}"
    if error > INCOMPLETE:
        return (
            f"{left_out}its contributions do not add up to what they explain (completeness error "
            f"{100 * error:.3g} %, at most {100 * INCOMPLETE:g} % is shown){instead}"
        )
    note = f"Completeness error {100 * error:.1f} %"
    return Attribution(factor * values.sum(1), factor * values, unit, note)


def _lobes(sources: Sequence[int], mni: Array | None) -> dict[int, str]:
    """Lobes of those sources that have MNI positions."""
    if mni is None:
        return {}
    return {s: lobe_text(mni[s]) for s in sources if np.isfinite(mni[s]).all()}


def _change(
    parts: _Parts, inverse: PreparedInverse, far: NDArray[np.bool_]
) -> Counterfactual | None:
    changed = ChangedRecording(
        parts.frame, parts.run, inverse.sensors, parts.noise_std, inverse.space.n_orient
    )
    return counterfactual(changed, far)


def _inside(network: "InverseModel", parts: _Parts, inverse: PreparedInverse) -> Inside:
    """Evidence and attention inside the network, for the last window of the sample."""
    import torch

    from deepesi.core.contracts import as_tensors
    from deepesi.interpret.networks.inside import (
        attention_maps,
        evidence_maps,
        has_attention,
        has_steps,
    )

    frame, inputs = parts.frame, as_tensors(inverse.feeds)
    start = frame.starts[-1]
    window = torch.tensor(frame.data[None, :, start : start + frame.length], dtype=torch.float32)
    steps = evidence_maps(network, window, inputs) if has_steps(network) else []
    if not has_attention(network):
        return Inside(steps)
    attention = attention_maps(network, window, inputs)
    maps = [("Attention of the strongest source to the electrodes", attention.read[parts.peak])]
    if attention.sent is not None:
        title = "Attention of neighbours to an electrode (1: the same to all)"
        maps.insert(0, (title, attention.sent))
    return Inside(steps, maps)


def _sentences(result: Explanation) -> Generator[str, None, None]:
    check = result.check
    yield (
        f"the estimate explains {100 * check.share:.0f} % of the whitened power; channels that do "
        f"not fit: {result.names(check.misfits)}"
    )
    if result.change is None:
        yield "no change of the recording was found that moves the peak into another lobe"
    else:
        change, n = result.change, len(result.change.sensors)
        yield (
            f"a change of {change.size:.1f} noise SD over {n} electrode(s) moves the peak from "
            f"{result.location(change.before)} to {result.location(change.after)}"
        )
    lost = [s.sensor for s in result.lost]
    far = [s.sensor for s in result.lost if result.elsewhere[s.peak]]
    yield (
        f"electrodes whose loss moves the peak: {result.names(lost)}; into another lobe: "
        f"{result.names(far)}"
    )
