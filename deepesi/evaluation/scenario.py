"""Scenario: a seeded test set, and the one of a sweep along an axis."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from deepesi.baselines.tuned import Tuned
from deepesi.core.batch import Batch
from deepesi.core.contracts import InverseModel, Oracle
from deepesi.data_gen.artifacts import Artifact
from deepesi.data_gen.generator import SimulatedRecordings, check_support
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template, load_template


@dataclass(frozen=True)
class Scenario:
    """A test set: what is drawn.

    The draws come from the split ``"test"``, which no training or validation stream uses, so the
    lead fields, sensor displacements, sources and noise are others than any seen in training.

    Args:
        name: Name of the scenario.
        snr_db: SNRs, dB; the same sources, lead fields and noise (but for its size) at each.
        n_examples: Examples per SNR.
        batch_size: Most examples of one batch, which is drawn under one set-up.
        sources: What sources are drawn.
        setups: What set-ups are drawn from.
        tissues: What true tissues are drawn from.
        artifacts: Kinds of artifacts.
        n_times: Samples per example.
        sfreq: Sampling rate, Hz.
        seed: Seed of the scenario.
        heads: Names of the true heads; by default the test heads of the run. The analyst has the
            template, unless ``setups.own_anatomy``.
        validation_heads: Names of heads like the true ones, to fit and to tune on; by default the
            validation heads of the run.
        axis: What the scenario varies, in words.
        level: Where on its axis this test set lies; empty where only the SNR varies.

    Raises:
        ValueError: No SNR, fewer than 2 examples or batches of none.

    """

    name: str
    snr_db: Sequence[float]
    n_examples: int
    sources: PatchSources
    setups: SetupRanges
    tissues: TissueRanges = field(default_factory=TissueRanges)
    artifacts: Sequence[Artifact] = ()
    batch_size: int = 256
    n_times: int = 1
    sfreq: float = 250.0
    seed: int = 0
    heads: Sequence[str] = ()
    validation_heads: Sequence[str] = ()
    axis: str = "SNR (dB)"
    level: str = ""

    def __post_init__(self) -> None:
        if not self.snr_db or self.n_examples < 2 or self.batch_size < 1:
            raise ValueError(
                f"Scenario {self.name}: needs at least one SNR, 2 examples and batches of 1, got "
                f"snr_db={list(self.snr_db)}, n_examples={self.n_examples}, "
                f"batch_size={self.batch_size}."
            )

    @property
    def sizes(self) -> list[int]:
        """Examples of every batch of an SNR."""
        full, rest = divmod(self.n_examples, self.batch_size)
        return [self.batch_size] * full + [rest] * (rest > 0)

    @property
    def n_sources(self) -> str:
        """Number of sources in words: ``"1"``, ``"2-3"``."""
        low, high = self.sources.n_sources
        return str(low) if low == high else f"{low}-{high}"

    def true_heads(self, cohort: Cohort) -> tuple[Template, ...]:
        """The heads the recordings come from.

        Raises:
            ValueError: A head of this scenario has another source space than the run.

        """
        return self._named(self.heads, cohort) if self.heads else cohort.of("test")

    def check(self, cohort: Cohort) -> None:
        """Check before any computation that the true heads have what is drawn.

        Raises:
            ValueError: A head lacks magnetic fields or other anatomies, or is of another source
                space; artifacts are drawn beside MEG.

        """
        for head in self.true_heads(cohort):
            check_support(head, self.setups, self.artifacts)

    def heads_to_validate(self, cohort: Cohort) -> tuple[Template, ...]:
        """The validation heads that this scenario names.

        Raises:
            ValueError: A head has another source space than the run, or is of the test.

        """
        heads = self._named(self.validation_heads, cohort)
        tested = {head.fingerprint for head in self.true_heads(cohort)} if heads else set()
        shared = [head.name for head in heads if head.fingerprint in tested]
        if shared:
            raise ValueError(
                f"Scenario {self.name}: its heads {shared} are to be tested on and to be tuned on. "
                "Name others in scenario.validation_heads=[...]."
            )
        return heads

    def _named(self, names: Sequence[str], cohort: Cohort) -> tuple[Template, ...]:
        heads = tuple(load_template(name) for name in names)
        space = cohort.template.space
        for head in heads:
            if head.space.fingerprint != space.fingerprint:
                raise ValueError(
                    f"Scenario {self.name}: its head {head.name!r} has the source space "
                    f"{head.space.name} ({head.space.fingerprint}), the run has {space.name} "
                    f"({space.fingerprint}). Give heads of that space (scenario.heads=[...]; "
                    "'deepesi head build' makes them), or the head the scenario is for "
                    f"(head.name={re.sub(r'^warp[0-9]+-', 'fsaverage-', head.name)})."
                )
        return heads

    def recordings(
        self, cohort: Cohort, models: Sequence[InverseModel | Oracle | Tuned]
    ) -> SimulatedRecordings:
        """The stream of its batches, with the inputs these models declare."""
        return SimulatedRecordings(
            self.true_heads(cohort),
            self.sources,
            self.setups,
            [d for model in models for d in model.head_inputs],
            nominal_head=cohort.template,
            tissues=self.tissues,
            artifacts=self.artifacts,
            batch_size=min(self.batch_size, self.n_examples),
            n_times=self.n_times,
            sfreq=self.sfreq,
            seed=self.seed,
            split="test",
            pool_size=1,
            pool_period=1,
        )

    def batches(
        self, cohort: Cohort, snr_db: float, models: Sequence[InverseModel | Oracle | Tuned]
    ) -> Iterator[Batch]:
        """The test batches at one SNR; of the last only the first `sizes` examples count."""
        recordings = self.recordings(cohort, models).at_snr(snr_db)
        for step in range(len(self.sizes)):
            yield recordings.batch(step)
