"""A scenario in words: how its recordings are simulated."""

import math
from collections.abc import Sequence
from itertools import pairwise

from deepesi.data_gen.artifacts import Artifact
from deepesi.data_gen.caps import CapRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.data_gen.waveforms import Mixture, TimeCourse
from deepesi.evaluation.scenario import Scenario
from deepesi.physics.cohort import Cohort

SHAPES = {
    "point": "single points",
    "flat": "flat patches",
    "gaussian": "Gaussian patches",
    "diffused": "patches diffused along the cortex",
    "field": "smooth random fields",
    "irregular": "irregular patches",
    "split": "patches split over a sulcus",
}
EXTENTS = {"geodesic": "along the cortex", "euclidean": "in straight distance"}
PLACEMENTS = {
    "vertices": "every vertex as likely",
    "area": "every area of cortex as likely",
    "depth": "every depth as likely",
}
TIME_COURSES = {
    "Gabor": "evoked waves",
    "Biphasic": "biphasic waves",
    "Burst": "bursts of oscillations",
    "PowerLaw": "scale-free activity",
    "SpikeWave": "spike-and-wave complexes",
    "JansenRit": "cortical columns of Jansen & Rit",
}
ARTIFACTS = {
    "Blinks": "blinks",
    "Saccades": "saccades",
    "Muscle": "muscle activity",
    "ElectrodePops": "electrode pops",
    "BadElectrode": "a bad electrode",
}
NOISES = {
    "coloured": "noise shared by neighbouring channels",
    "brain": "background activity of the cortex",
    "line": "mains interference",
    "drift": "drifts of electrodes",
}

#: Knowledge of the analyst of the cap.
KNOWN = {"names": "their names", "template": "a standard montage", "digitized": "digitization"}


def spread(limits: Sequence[float], factor: float = 1.0, unit: str = "") -> str:
    """A range in words, once where both ends are the same: ``3 to 30 mS/m``."""
    low, high = (f"{factor * value:.4g}" for value in limits)
    return f"{low if low == high else f'{low} to {high}'}{f' {unit}' if unit else ''}"


def describe_sources(sources: PatchSources, n_times: int) -> str:
    """How many, of what shape, where, and how they move."""
    low, high = sources.n_sources
    parts = [f"{spread((low, high))} source{'s' * (high > 1)} in every recording"]
    extended = [shape for shape in sources.shapes if shape != "point"]
    shapes = " or ".join(SHAPES[shape] for shape in sources.shapes)
    parts.append(f"{shapes} of {spread(sources.radius, 1e3, 'mm')} radius" if extended else shapes)
    if list(sources.extent) != ["geodesic"]:
        parts[-1] += f" {' or '.join(EXTENTS[extent] for extent in sources.extent)}"
    parts.append(PLACEMENTS[sources.placement])
    if sources.depth is not None:
        parts.append(f"{spread(sources.depth, 1e3, 'mm')} below the scalp")
    if high > 1:
        parts.append(f"centres at least {1e3 * sources.min_distance:g} mm apart")
        if any(sources.correlation):
            parts.append(
                f"time courses with {spread(sources.correlation)} of their amplitude in common"
            )
    if n_times > 1:
        parts.append(describe_time_course(sources.kind))
    return "; ".join(parts)


def describe_time_course(time_course: TimeCourse) -> str:
    """The kind of time course."""
    if isinstance(time_course, Mixture):
        return " or ".join(describe_time_course(kind) for kind in time_course.kinds)
    name = type(time_course).__name__
    return TIME_COURSES.get(name, name)


def describe_head(tissues: TissueRanges) -> str:
    """The tissues that recordings are rendered with."""
    return (
        f"skull {spread(tissues.skull_conductivity, 1e3, 'mS/m')} and "
        f"{spread(tissues.skull_thickness, 1e3, 'mm')} thick, scalp "
        f"{spread(tissues.scalp_conductivity, 1, 'S/m')}, brain "
        f"{spread(tissues.brain_conductivity, 1, 'S/m')}"
    )


def describe_cortex(setups: SetupRanges) -> str:
    """How sources and normals of the true cortex differ from those of its source grid."""
    anatomy = setups.anatomy
    if anatomy is None or not anatomy.differs:
        on_grid = "sources on the grid, along its normals"
        return f"{on_grid} (an inverse crime)" if setups.own_anatomy else on_grid
    between = "sources between the points of the grid, " if anatomy.off_grid else ""
    share = f" in {100 * anatomy.share:g} % of the set-ups" if anatomy.share < 1 else ""
    return (
        f"somebody else's cortex{share}: {between}displaced by "
        f"{spread(anatomy.displacement, 1e3, 'mm')} on average, normals turned with "
        f"concentrations of {spread(anatomy.turn)} (smooth) and {spread(anatomy.roughness)} (each)"
    )


def describe_cap(cap: CapRanges) -> str:
    """Knowledge of the analyst of the electrodes, and their errors."""
    pitch, sd = (math.degrees(value) for value in (cap.pitch, cap.pitch_sd))
    return (
        f"electrodes known by {' or '.join(KNOWN[level] for level in cap.knowledge)}; cap "
        f"pitched by {pitch:.3g} ± {sd:.3g} degrees, each electrode "
        f"{spread(cap.electrode_error, 1e3, 'mm')} off on average"
    )


def describe_nominal_head(setups: SetupRanges) -> str:
    """The nominal head that every method is given."""
    own = setups.own_anatomy and not (setups.anatomy is not None and setups.anatomy.differs)
    anatomy = "the recorded head's own anatomy" if own else "the template's anatomy"
    parts = [anatomy, describe_head(setups.nominal)]
    if setups.cap is not None:
        return "; ".join([*parts, describe_cap(setups.cap)])
    scale, off = setups.electrode_error, []
    for value, unit, what in (
        (1e3 * setups.displacement, "mm", "every electrode by itself"),
        (1e3 * setups.coregistration_shift, "mm", "all together"),
        (setups.coregistration_rotation, "degrees", "turned together"),
    ):
        if value and any(scale):
            off.append(f"{spread(scale, value, unit)} off on average, {what}")
    parts.append(f"electrodes {'; '.join(off)}" if off else "electrodes where they are")
    return "; ".join(parts)


def describe_recording(scenario: Scenario) -> str:
    """Channels, length, reference, noise and artifacts."""
    setups = scenario.setups
    parts = [" or ".join(setups.montages)]
    if any(setups.dropout):
        parts.append(f"{spread(setups.dropout, 100, '%')} of the channels missing")
    if setups.subset:
        parts.append(f"a random part of the channels only in {100 * setups.subset:g} %")
    if list(setups.references) != ["average"]:
        parts.append(f"recorded against {' or '.join(setups.references)}")
    one = scenario.n_times == 1
    parts.append(
        "one time point" if one else f"{scenario.n_times} samples at {scenario.sfreq:g} Hz"
    )
    parts.append(describe_noise(setups))
    parts += [describe_artifact(artifact) for artifact in scenario.artifacts]
    return "; ".join(parts)


def describe_noise(setups: SetupRanges) -> str:
    """Kinds of noise, and what is known of them."""
    kinds = [text for name, text in NOISES.items() if getattr(setups.noise, name) is not None]
    known = (
        "known covariance"
        if setups.baseline is None
        else f"a covariance estimated from {spread(setups.baseline)} samples"
    )
    return f"{', '.join(['white noise', *kinds])} of {known}"


def describe_artifact(artifact: Artifact) -> str:
    """One kind of artifact: how often and how strong."""
    name = type(artifact).__name__
    return (
        f"{ARTIFACTS.get(name, name)} in {100 * artifact.probability:g} % of the recordings, "
        f"{spread(artifact.relative_db, 1, 'dB')} over the noise"
    )


def describe_scenario(scenarios: Sequence[Scenario], cohort: Cohort) -> dict[str, str]:
    """Facts of one scenario, name to text; what its levels differ in, level by level.

    Args:
        scenarios: Test sets of the scenario, at least one, all of one name.
        cohort: The heads of the run.

    """
    first, several = scenarios[0], len(scenarios) > 1
    each = [_facts(scenario, cohort) for scenario in scenarios]
    facts = {
        "varies": first.axis
        if not several
        else f"{first.axis}: " + ", ".join(scenario.level for scenario in scenarios)
    }
    for name in each[0]:
        texts = [own[name] for own in each]
        alike = all(a == b for a, b in pairwise(texts))
        lines = [f"{s.level}: {text}" for s, text in zip(scenarios, texts, strict=True)]
        facts[name] = texts[0] if alike else "\n".join(lines)
    return facts


def _facts(scenario: Scenario, cohort: Cohort) -> dict[str, str]:
    heads = ", ".join(f"{h.name} ({h.fingerprint[:16]})" for h in scenario.true_heads(cohort))
    snrs = ", ".join(f"{snr:g}" for snr in scenario.snr_db)
    return {
        "examples": f"{scenario.n_examples} at each SNR ({snrs} dB), seed {scenario.seed}",
        "sources": describe_sources(scenario.sources, scenario.n_times),
        "recordings": describe_recording(scenario),
        "true heads": f"{heads}; {describe_head(scenario.tissues)}",
        "true cortex": describe_cortex(scenario.setups),
        "what methods assume": describe_nominal_head(scenario.setups),
    }
