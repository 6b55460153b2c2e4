"""Probabilities of the number of sources of an average: a line and a file."""

from collections.abc import Iterator
from pathlib import Path

from deepesi.runtime.estimates import Localization
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.runtime.writing.estimate import Peak
from deepesi.utils.rows import write_rows

#: Smallest probability that is reported.
LEAST = 0.005


def write_source_counts(
    result: Localization, peak: Peak, inverse: PreparedInverse, out: Path
) -> Iterator[str]:
    """Report how many sources the peak of an average has, and write ``OUT-source-counts.csv``.

    The columns are ``n_sources`` (1, 2, ...) and ``probability``. Models that count no sources
    write nothing.
    """
    if "source_counts" not in inverse.model.contract.kinds:
        return
    probabilities = inverse.source_counts(result.data[:, [peak.sample]]).tolist()
    likely = [f"{k}: {100 * p:.0f} %" for k, p in enumerate(probabilities, 1) if p >= LEAST]
    yield f"number of sources at {1e3 * peak.time:.0f} ms: {', '.join(likely)}"
    path = out.with_name(f"{out.name}-source-counts.csv")
    write_rows(path, ("n_sources", "probability"), enumerate(probabilities, 1))
    yield f"wrote {path}"
