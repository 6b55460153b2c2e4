"""``deepesi validate``: methods on real recordings with roughly known sources, without torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import mne
import numpy as np

from deepesi import __version__
from deepesi.physics.channel_check import unexplained_text
from deepesi.physics.io.head_mri import read_head_mri
from deepesi.runtime.methods import SAMPLES, Exported, Method
from deepesi.runtime.packaged import model_path
from deepesi.validation.eeglab import HIGH_PASS, REJECT, eeglab_cases
from deepesi.validation.report import mni_text, verdict, write_report
from deepesi.validation.run import Result, excluded, run, unexplained, write_csv
from deepesi.validation.sample import sample_cases

#: Names of data sets, and their readers.
RECORDINGS = {"sample": sample_cases, "eeglab": eeglab_cases}
NOTES = {
    "sample": "EEG channels of the averages of the data set, single-trial noise covariance of the "
    "data set divided by the number of trials; own head: the subject's forward solution, fixed "
    "orientation; MNI305 positions by the subject's linear Talairach transform",
    "eeglab": f"epochs around 'square', high-pass {HIGH_PASS:g} Hz, those above "
    f"{1e6 * REJECT:.0f} µV peak-to-peak excluded, noise covariance of their baselines divided by "
    "the number of trials; electrodes of the 10-05 system",
}


def validate(
    recording: str, data: Path, methods: Sequence[Method], out: Path, trans: Path | None = None
) -> Iterator[str]:
    """Run all methods, print results, write ``validation.csv`` and ``report.html``.

    Args:
        recording: A key of `RECORDINGS`.
        data: Folder of the data set.
        methods: Methods, as from `deepesi.runtime.methods.find_methods`.
        out: Folder to write to.
        trans: ``-trans.fif`` that places the electrodes on the packaged head.

    Raises:
        FileNotFoundError: A file of the data is missing.
        ValueError: A method that does not fit; nothing is written.

    """
    head_mri = None if trans is None else read_head_mri(trans)
    cases = RECORDINGS[recording](data)
    missing = excluded(cases, methods)
    results, odd, placed = list[Result](), dict[str, None](), dict[str, None]()
    for result in run(cases, methods, head_mri):
        if not any(r.case is result.case for r in results):  # once per recording
            text = f"{result.case.condition}: {result.case_head.placement}"
            placed[text] = None
            yield f"{text} on the template head"
            for name in unexplained(result):
                text = f"{result.case.condition}: {unexplained_text(name)}"
                odd[text] = None
                yield text
        results.append(result)
        where = f"{result.case.condition}, {result.case_head.name} head, {result.method}"
        s = result.statistics
        yield (
            f"{where}: {s['latency']:.0f} ms, MNI {mni_text(s)} mm, {s['peak_distance']:.0f} mm "
            f"to target: {verdict(result)}"
        )
    yield from (f"{m.method}: not run on the {m.head} head: {m.reason}" for m in missing)
    read = [
        f"{m.name}: {model_path(m.path).absolute()}" for m in methods if isinstance(m, Exported)
    ]
    facts = {
        "recording": f"{recording}, {len(cases)} conditions; {NOTES[recording]}",
        "heads": ", ".join(
            dict.fromkeys(f"{r.case_head.name}: {r.case_head.head.space.name}" for r in results)
        ),
        "regularization": "linear inverses: lambda2 = 1 / SNR, estimated from the whitened power "
        "of the whole average, in steps of 2.5 dB",
        "windows": "linear inverses: the whole average; networks: the longest they were trained "
        "on; solvers: "
        f"{SAMPLES} samples; baseline and response alike, each window half over the one before",
        "electrodes on the template head": "\n".join(placed),
        **({"channels": "\n".join(odd)} if odd else {}),
        **({"read from": "\n".join(read)} if read else {}),
        "versions": f"deepesi {__version__}, MNE-Python {mne.__version__}, NumPy {np.__version__}",
    }
    write_csv(results, out / "validation.csv")
    yield f"wrote {out / 'validation.csv'}"
    write_report(results, missing, facts, out / "report.html")
    yield f"wrote {out / 'report.html'}"
