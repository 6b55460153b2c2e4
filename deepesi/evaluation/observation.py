"""Estimates of models on simulated recordings, collected for calibration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.calibration.conformal import (
    estimated_snr_db,
    reach_kernel,
    source_scores,
    target_scores,
)
from deepesi.calibration.intervals import StandardizedErrors, standardized_errors
from deepesi.calibration.sbc import ranks
from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel, PosteriorModel
from deepesi.core.quantities import magnitude
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.keys import key_entropy
from deepesi.evaluation.scenario import Scenario
from deepesi.metrics.calibration import GROUPS, groups
from deepesi.metrics.example import Geometry
from deepesi.metrics.scoring_rules import log_score, moments_crps, moments_energy_score
from deepesi.physics.cohort import Cohort
from deepesi.physics.noise import rank_of, whitener
from deepesi.physics.similarity import residual_variance
from deepesi.physics.template import Template

Array = NDArray[np.float64]

#: Number of samples used from a window, evenly spaced.
MAX_SAMPLES = 4
#: Largest number of recordings per set-up.
MAX_BATCH = 128


class Observations(NamedTuple):
    """Estimates and targets of a model on the recordings of a split."""

    standardized_errors: list[
        StandardizedErrors
    ]  # one per recording; empty without standard deviations
    scores: Array  # scores of all sources (N, S)
    target_scores: Array  # scores of the target (N,)
    estimated_db: Array  # SNR estimated from the recording (N,)
    snr_db: Array  # true SNR (N,)
    areas: list[Array]  # areas of the sources (S,), m², per recording
    unexplained: Array  # share of the power of the recording that the estimate leaves (N,)
    proper_scores: Array  # NaN where the model has none (N, PROPER_SCORES)
    ranks: NDArray[np.int64] | None = None  # ranks of the target among N_DRAWS samples (N, RANKED)
    # Of the samples, then of the target, times the norm of the whitened lead field.
    quantities: Array | None = None  # (N, N_DRAWS + 1, RANKED)


#: Scores of dipole moments (nA m), and of the density of what was simulated (nats).
PROPER_SCORES = ("crps", "energy_score", "log_score")
#: Number of posterior samples per recording, for scores and ranks.
N_DRAWS = 99
#: Ranked quantities of a posterior sample, at the first time point: moment of the dipole that is
#: strongest in the estimate, norm of the map, and distance of the map from that of another
#: recording. Ranks of the distance are those of expected coverage (TARP).
RANKED = ("peak", "norm", "distance")


#: Draws the batches at an SNR, each with its number of recordings to use.
Draw = Callable[[float], Iterator[tuple[Batch, int]]]


def batches_to_test(
    scenario: Scenario, cohort: Cohort, snr_db: float, models: Sequence[InverseModel]
) -> Iterator[tuple[Batch, int]]:
    """The test batches of a scenario, with a share and a seed for every test head.

    Args:
        scenario: The test set.
        cohort: The heads.
        snr_db: SNR, dB.
        models: Models whose head inputs are prepared.

    """
    heads = scenario.true_heads(cohort)
    for number, (head, remaining) in enumerate(_shares(heads, scenario.n_examples)):
        own = replace(scenario, n_examples=max(remaining, 2), seed=scenario.seed + number, heads=())
        for batch in own.batches(replace(cohort, test=(head,)), snr_db, models):
            yield batch, min(len(batch.data), remaining)
            remaining -= min(len(batch.data), remaining)


def batches_to_fit(
    scenario: Scenario, cohort: Cohort, snr_db: float, models: Sequence[InverseModel], n: int
) -> Iterator[tuple[Batch, int]]:
    """The same for `n` recordings of split ``"validation"``, on `heads_to_fit`.

    As many of them share a set-up, and an anatomy, as in the test set.
    """
    return batches_at(streams_to_fit(scenario, cohort, models, n), snr_db)


#: Recordings of every head, with how many of them to use.
Streams = Sequence[tuple[SimulatedRecordings, int]]


def streams_to_fit(
    scenario: Scenario, cohort: Cohort, models: Sequence[InverseModel], n: int
) -> Streams:
    """The recordings of `batches_to_fit`; they serve every SNR with the same set-ups."""
    return [
        (
            SimulatedRecordings(
                head,
                scenario.sources,
                scenario.setups,
                [d for model in models for d in model.head_inputs],
                nominal_head=cohort.template,
                tissues=scenario.tissues,
                artifacts=scenario.artifacts,
                batch_size=min(share, scenario.batch_size, MAX_BATCH),
                n_times=scenario.n_times,
                sfreq=scenario.sfreq,
                seed=scenario.seed + number,
                split="validation",
                pool_size=1,
                pool_period=1,
            ),
            share,
        )
        for number, (head, share) in enumerate(_shares(heads_to_fit(scenario, cohort), n))
    ]


def batches_at(streams: Streams, snr_db: float) -> Iterator[tuple[Batch, int]]:
    """Batches at one SNR, each with its number of recordings to use."""
    for recordings, share in streams:
        at_snr, size = recordings.at_snr(snr_db), recordings.batch_size
        for step, first in enumerate(range(0, share, size)):
            yield at_snr.batch(step), min(size, share - first)


def heads_to_fit(scenario: Scenario, cohort: Cohort) -> Sequence[Template]:
    """The validation heads of the scenario, if it names some, else of the run.

    A run with one warped test head has none; then the head of the analyst is used.
    """
    return scenario.heads_to_validate(cohort) or cohort.of("validation") or (cohort.template,)


def _shares(heads: Sequence[Template], n: int) -> list[tuple[Template, int]]:
    """Every head with its share of `n` recordings, without heads of share zero."""
    ends = [n * number // len(heads) for number in range(len(heads) + 1)]
    shares = [(head, ends[i + 1] - ends[i]) for i, head in enumerate(heads)]
    return [(head, share) for head, share in shares if share]


def observe(
    models: Mapping[str, InverseModel],
    draw: Draw,
    snr_db: Sequence[float],
    covers: str,
    on_progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Observations]:
    """Apply every model to the recordings at every SNR.

    Args:
        models: Models by name.
        draw: Draws batches at an SNR.
        snr_db: SNRs, dB.
        covers: Target sources, as in `target_scores`.
        on_progress: Called with a line for each SNR.

    """
    parts: dict[str, list[Observations]] = {name: [] for name in models}
    known: dict[bytes, tuple[Geometry, Array]] = {}
    for level in snr_db:
        on_progress(f"{level:g} dB")
        for batch, keep in draw(level):
            key = batch.head.source_pos.tobytes()
            if key not in known:
                known[key] = Geometry(batch.head), reach_kernel(batch.head.source_pos)
            for name, model in models.items():
                parts[name].append(_look(model, batch, *known[key], keep, covers))
    return {name: _joined(observed) for name, observed in parts.items()}


def _look(
    model: InverseModel, batch: Batch, geometry: Geometry, kernel: Array, keep: int, covers: str
) -> Observations:
    with torch.no_grad():
        estimate = model.eval()(batch.data, batch.inputs)
    n_orient = batch.head.space.n_orient
    maps = magnitude(estimate.mean, n_orient)[:keep].double().numpy()
    if not np.isfinite(maps).all() or not _finite(estimate.std) or not _finite(estimate.samples):
        raise FloatingPointError(
            f"calibrate: {type(model).__name__} gave NaN or infinite dipole moments or "
            "standard deviations. Its training diverged or its file is damaged."
        )
    scores = source_scores(maps, kernel)
    peaks, moments = batch.scene.peaks[:keep].numpy(), batch.scene.moments[:keep].numpy()
    cov, recordings = batch.head.noise_cov, batch.data[:keep].double().numpy()
    white = whitener(cov) @ recordings
    snr_db = estimated_snr_db(white, rank_of(cov))
    leadfield = whitener(cov) @ batch.head.leadfield
    explained = leadfield @ estimate.mean[:keep].double().numpy()
    # Set-ups have noise of many levels; this makes moments of all of them comparable.
    per_noise = float(np.linalg.norm(leadfield))
    observed = (
        []
        if estimate.std is None and estimate.samples is None
        else _standardized_errors(estimate, batch, geometry)
    )
    checked = [_checked(model, estimate, batch, number, per_noise) for number in range(keep)]
    return Observations(
        observed[:keep],
        scores,
        target_scores(scores, peaks, moments, covers),
        snr_db,
        batch.scene.snr_db[:keep].double().numpy(),
        [geometry.areas] * keep,
        np.array([residual_variance(*pair) for pair in zip(explained, white, strict=True)]),
        *map(np.stack, zip(*checked, strict=True)),
    )


def _checked(
    model: InverseModel, estimate: Estimate, batch: Batch, number: int, per_noise: float
) -> tuple[NDArray[Any], ...]:
    """Proper scores of a recording; of a posterior model also ranks and quantities.

    Quantities are multiplied by `per_noise`, the norm of the whitened lead field.
    """
    target, mean = batch.sources[number].double().numpy(), estimate.mean[number].double().numpy()
    std = None if estimate.std is None else estimate.std[number].double().numpy()
    if not isinstance(model, PosteriorModel):
        samples = None if estimate.samples is None else estimate.samples[:, number].double().numpy()
        return (_proper_scores(mean, std, samples, target),)
    # The last entries distinguish the seed from the key of the batch.
    rng = np.random.default_rng([*key_entropy(*batch.scene.key), 3, number])
    example, seed = batch.example(number), int(rng.integers(2**31))
    with torch.no_grad():
        drawn = model.draw(example.data, example.inputs, N_DRAWS, seed)
        nats = float(log_score(model, example)[0]) if model.has_density else float("nan")
    samples = drawn[:, 0].double().numpy()
    # A batch of one has no other recording; then the reference is zero.
    others = torch.cat([batch.sources[:number], batch.sources[number + 1 :]])[:1, :, 0]
    quantities = per_noise * _quantities(
        np.concatenate([samples, target[None]])[..., 0],
        int(np.abs(mean[:, 0]).argmax()),
        others.sum(0).double().numpy(),
    )
    scores = _proper_scores(mean, std, samples, target, nats)
    return scores, ranks(quantities[:-1], quantities[-1], rng), quantities


def _proper_scores(
    mean: Array, std: Array | None, samples: Array | None, target: Array, nats: float = np.nan
) -> Array:
    """`PROPER_SCORES` of one recording; `nats` is the log score."""
    crps = moments_crps(mean, std, samples, target)
    return np.array([crps, moments_energy_score(samples, target), nats])


def _quantities(maps: Array, peak: int, other: Array) -> Array:
    """`RANKED` quantities of maps ``(N, D)``, with the dipole `peak` and the map `other`."""
    norms = np.linalg.norm(maps, axis=1), np.linalg.norm(maps - other, axis=1)
    return np.stack([maps[:, peak], *norms], axis=1)


def _standardized_errors(
    estimate: Estimate, batch: Batch, geometry: Geometry
) -> list[StandardizedErrors]:
    n_times, n_orient = batch.data.shape[2], geometry.n_orient
    picked = np.unique(np.linspace(0, n_times - 1, min(n_times, MAX_SAMPLES)).round().astype(int))
    mean, target = (
        values[..., picked].double().numpy() for values in (estimate.mean, batch.sources)
    )
    std, samples = (
        None if values is None else values[..., picked].double().numpy()
        for values in (estimate.std, estimate.samples)
    )
    errors = []
    for i, true in enumerate(magnitude(batch.sources, n_orient).numpy()):
        masks = groups(true, geometry.distances_mm)
        group = np.select([masks[name] for name in GROUPS], [0, 1, 2])
        group = np.repeat(group, n_orient)[:, None].repeat(len(picked), axis=1)
        own = None if samples is None else samples[:, i]
        own_std = None if std is None else std[i]
        errors.append(standardized_errors(mean[i], own_std, target[i], group, own))
    return errors


def _joined(parts: Sequence[Observations]) -> Observations:
    return Observations(
        standardized_errors=[c for part in parts for c in part.standardized_errors],
        scores=np.concatenate([part.scores for part in parts]),
        target_scores=np.concatenate([part.target_scores for part in parts]),
        estimated_db=np.concatenate([part.estimated_db for part in parts]),
        snr_db=np.concatenate([part.snr_db for part in parts]),
        areas=[a for part in parts for a in part.areas],
        unexplained=np.concatenate([part.unexplained for part in parts]),
        proper_scores=np.concatenate([part.proper_scores for part in parts]),
        ranks=None if parts[0].ranks is None else np.concatenate([p.ranks for p in parts]),
        quantities=None
        if parts[0].quantities is None
        else np.concatenate([p.quantities for p in parts]),
    )


def _finite(values: torch.Tensor | None) -> bool:
    return values is None or bool(torch.isfinite(values).all())
