"""Whether to trust an estimate, by four rules, and what to be careful about.

Rules ask whether a recording looks like those of strangers, and whether strangers can be localized
under its set-up. What is unusual for one stranger in a hundred is a reason not to trust.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

Array = NDArray[np.float64]

#: p value below which a recording is unlike strangers, and like noise above it.
UNUSUAL = 0.01
#: Fewest strangers: the smallest p value is 1 / (number + 1).
FEWEST = 100
#: Median expected error, mm, above which not even the lobe is known: lobes are 60 to 80 mm across.
LARGEST_ERROR = 30.0
#: Gain of another method, mm, that is worth a hint.
WORTH = 2.0


@dataclass(frozen=True)
class Error:
    """Expected localization error of one method under a set-up, mm."""

    median_mm: float
    p90_mm: float

    @classmethod
    def of(cls, errors: Array) -> "Error":
        """Median and 90th percentile of errors ``(N,)``, mm."""
        median, high = np.quantile(errors, [0.5, 0.9])
        return cls(round(float(median), 1), round(float(high), 1))

    def __str__(self) -> str:
        return f"{self.median_mm:.0f} mm (median), {self.p90_mm:.0f} mm (90 %)"


@dataclass(frozen=True)
class Compared:
    """A quantity of the recording beside that of strangers.

    Attributes:
        value: Value of the recording.
        strangers_median: Median of strangers.
        strangers_p90: 90th percentile of strangers.
        p: Share of strangers with a value at least as large, with the recording itself.

    """

    value: float
    strangers_median: float
    strangers_p90: float
    p: float

    @classmethod
    def of(cls, value: float, strangers: Array) -> "Compared":
        """Compare a value with those of strangers ``(N,)``; large values are unusual."""
        median, high = np.quantile(strangers, [0.5, 0.9])
        p = (1 + int((strangers >= value).sum())) / (1 + len(strangers))
        return cls(*(float(f"{number:.4g}") for number in (value, median, high, p)))


@dataclass(frozen=True)
class Evidence:
    """Quantities that the rules compare.

    Attributes:
        p_noise: Probability that noise alone has a sample as strong in the window.
        misfit: Share of the power that the best one, two and three sources leave.
        agreement: Largest distance between the strongest sources of the methods, mm.
        expected: Expected error by method; the model is the first.

    """

    p_noise: float
    misfit: tuple[Compared, ...]
    agreement: Compared
    expected: dict[str, Error]

    @property
    def p_misfit(self) -> float:
        """Largest p value of the misfits of one, two and three sources."""
        return max(compared.p for compared in self.misfit)


def noise_probability(power: float, rank: int, n_samples: int) -> float:
    """Probability that the largest of `n_samples` samples of noise has this whitened power.

    Samples count as independent. Those of filtered recordings are not, so the probability is then
    too large.
    """
    one = float(chi2.sf(rank * power, rank))
    several = float(-np.expm1(n_samples * np.log1p(-min(one, 1 - 1e-12))))
    return float(f"{several:.4g}")


def reasons(evidence: Evidence) -> list[str]:
    """Reasons not to trust the estimate, as sentences; none if it can be trusted."""
    sentences = []
    model = next(iter(evidence.expected.values()))
    if evidence.p_noise > UNUSUAL:
        sentences.append(
            "The peak may be noise: noise alone has a sample as strong in "
            f"{100 * evidence.p_noise:.2g} % of such recordings."
        )
    if evidence.p_misfit < UNUSUAL:
        three = evidence.misfit[-1]
        sentences.append(
            "One to three sources do not explain the recording as they do in other people: "
            f"{len(evidence.misfit)} leave {100 * three.value:.0f} % of its power, in strangers "
            f"{100 * three.strangers_median:.0f} % (p = {evidence.p_misfit:.2g}). Many areas may "
            "be active at once, channels may be bad or exchanged, or the noise covariance is not "
            "that of the recording."
        )
    if model.median_mm > LARGEST_ERROR:
        sentences.append(
            f"Under this set-up the expected error is {model}: more than {LARGEST_ERROR:.0f} mm, "
            "so not even the lobe is known."
        )
    if evidence.agreement.p < UNUSUAL:
        names = ", ".join(evidence.expected)
        sentences.append(
            f"The methods disagree: the strongest sources of {names} lie up to "
            f"{evidence.agreement.value:.0f} mm apart, in 90 % of strangers up to "
            f"{evidence.agreement.strangers_p90:.0f} mm (p = {evidence.agreement.p:.2g})."
        )
    return sentences


def hints(evidence: Evidence) -> list[str]:
    """What to be careful about, or to use instead, as sentences."""
    sentences, apart = [], evidence.agreement
    if apart.value > apart.strangers_p90 and apart.p >= UNUSUAL:
        sentences.append(
            f"The methods are up to {apart.value:.0f} mm apart, in 90 % of strangers up to "
            f"{apart.strangers_p90:.0f} mm: look at each of them."
        )
    model, *others = evidence.expected.items()
    best = min(others, key=lambda item: item[1].median_mm)
    if best[1].median_mm <= model[1].median_mm - WORTH:
        sentences.append(
            f"Under this set-up another method is expected nearer to the source than {model[0]}: "
            f"{best[0]}, {best[1]}, instead of {model[1]}."
        )
    return sentences


@dataclass(frozen=True)
class Gain:
    """Expected error of a model under a better set-up, mm.

    Attributes:
        set_up: What is better.
        median_mm: Median error there.
        gain_mm: Median error of the same strangers under the present set-up, less that.

    """

    set_up: str
    median_mm: float
    gain_mm: float


def gains(errors: Array, better: dict[str, Array]) -> list[Gain]:
    """Gain of the model under every better set-up, the largest first.

    Args:
        errors: Errors of the model ``(N,)``, mm.
        better: Errors of the first of these strangers under better set-ups, mm, by name.

    """
    gained = []
    for name, values in better.items():
        before, after = float(np.median(errors[: len(values)])), float(np.median(values))
        gained.append(Gain(name, round(after, 1), round(before - after, 1)))
    return sorted(gained, key=lambda gain: -gain.gain_mm)
