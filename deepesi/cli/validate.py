"""``deepesi validate``: methods on real recordings with roughly known sources, without torch."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mne
import numpy as np

from deepesi import __version__
from deepesi.physics.channel_check import unexplained_text
from deepesi.physics.io.head_mri import read_head_mri
from deepesi.physics.io.selection import channels_to_localize
from deepesi.physics.sensors import KINDS
from deepesi.runtime.methods import SAMPLES, Exported, Method
from deepesi.runtime.packaged import model_path
from deepesi.validation.case import Case
from deepesi.validation.eeglab import HIGH_PASS, REJECT, eeglab_cases
from deepesi.validation.expectation_file import read_expectations
from deepesi.validation.own_recordings import own_cases
from deepesi.validation.report import mni_text, target_text, verdict, write_report
from deepesi.validation.response_pages import write_response_pages
from deepesi.validation.run import Result, excluded, run, unexplained, write_csv
from deepesi.validation.sample import sample_cases
from deepesi.validation.successes import write_tally

#: Names of data sets, and their readers.
RECORDINGS = {"sample": sample_cases, "eeglab": eeglab_cases}
NOTES = {
    "sample": "picked channels (EEG by default) of the averages of the data set, single-trial "
    "noise covariance of the data set divided by the number of trials; own head: the subject's "
    "forward solution, fixed orientation; MNI305 positions by the subject's linear Talairach "
    "transform",
    "eeglab": f"epochs around 'square', high-pass {HIGH_PASS:g} Hz, those above "
    f"{1e6 * REJECT:.0f} µV peak-to-peak excluded, noise covariance of their baselines divided by "
    "the number of trials; electrodes of the 10-05 system",
}


@dataclass(frozen=True)
class Recordings:
    """Responses to run.

    Attributes:
        cases: The responses.
        facts: Descriptions for the report, texts by name.

    """

    cases: Sequence[Case]
    facts: Mapping[str, str]


def find_recordings(
    recording: str,
    data: Path | None,
    expect: Path | None,
    trans: Path | None,
    picks: Sequence[str] | None = None,
) -> Recordings:
    """The responses of a data set or, with a file of expectations, of a user's own recordings.

    Args:
        recording: A key of `RECORDINGS`; a recording or a folder of recordings with `expect`.
        data: Folder of the data set.
        expect: ``expectation.yaml``, as in `read_expectations`.
        trans: ``-trans.fif`` that places the sensors of a data set on the packaged head.
        picks: Kinds of sensors of a data set, as in `Case`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: Options that contradict each other, an unknown data set, or as in
            `read_expectations` and `own_cases`.

    """
    if expect is not None:
        if data is not None or trans is not None or picks is not None:
            raise ValueError(
                "--expect is for your own recordings: leave --data out, and give a transform of a "
                "recording and its kinds of sensors in the file (trans: FILE, picks: [meg])."
            )
        return _own(Path(recording), expect)
    if recording not in RECORDINGS:
        raise ValueError(
            f"{recording}: no data set of that name (choose from {', '.join(RECORDINGS)}). For "
            "recordings of your own, give what is expected of them: --expect expectation.yaml."
        )
    if data is None:
        raise ValueError(f"{recording}: --data is missing, the folder of the data set.")
    head_mri = None if trans is None else read_head_mri(trans)
    read = RECORDINGS[recording](data, None if picks is None else tuple(picks))
    cases = [replace(case, trans=head_mri) for case in read]
    text = f"{recording}, {len(cases)} conditions; {NOTES[recording]}"
    return Recordings(cases, {"recording": text})


def _own(path: Path, expect: Path) -> Recordings:
    lines: list[str] = []
    cases = own_cases(path, read_expectations(expect), lines.append)
    channels = dict.fromkeys(map(_channels, cases))
    text = (
        f"{path.absolute()}: responses {len(cases)}, recordings "
        f"{len({case.recording for case in cases})}, channels "
        f"{'; '.join(channels)}; expectations of {expect.absolute()}"
    )
    facts = {"recording": text} | ({"notes": "\n".join(lines)} if lines else {})
    return Recordings(cases, facts)


def _channels(case: Case) -> str:
    """Number of channels of every kind in use, in words."""
    kinds = Counter(channels_to_localize(case.evoked.info, None, case.picks).values())
    return ", ".join(f"{number} {KINDS[kind].title}" for kind, number in kinds.items())


def validate(recordings: Recordings, methods: Sequence[Method], out: Path) -> Iterator[str]:
    """Run all methods, print results, write ``validation.csv``, ``tally.csv``, ``report.html``.

    Also writes ``responses/``: an interactive page of every response on a packaged head.

    Args:
        recordings: The responses.
        methods: Methods, as from `deepesi.runtime.methods.find_methods`.
        out: Folder to write to.

    Raises:
        ValueError: A method that does not fit; nothing is written.

    """
    cases = recordings.cases
    missing = excluded(cases, methods)
    results, odd, placed = list[Result](), dict[str, None](), dict[str, None]()
    yield from recordings.facts.get("notes", "").splitlines()
    for result in run(cases, methods):
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
            f"{where}: {s['latency']:.0f} ms, MNI {mni_text(s)} mm{target_text(s)}: "
            f"{verdict(result)}"
        )
    yield from (f"{m.method}: not run on the {m.head} head: {m.reason}" for m in missing)
    read = [
        f"{m.name}: {model_path(m.path).absolute()}" for m in methods if isinstance(m, Exported)
    ]
    facts = {
        **recordings.facts,
        "heads": ", ".join(
            dict.fromkeys(f"{r.case_head.name}: {r.case_head.head.space.name}" for r in results)
        ),
        "regularization": "linear inverses: lambda2 = 1 / SNR, estimated from the whitened power "
        "of the whole average, in steps of 2.5 dB",
        "windows": "linear inverses: the whole average; networks: the longest of their training; "
        f"solvers: {SAMPLES} samples; the same for baseline and response; each window overlaps "
        "half of the one before",
        "sensors on the template head": "\n".join(placed),
        **({"channels": "\n".join(odd)} if odd else {}),
        **({"read from": "\n".join(read)} if read else {}),
        "versions": f"deepesi {__version__}, MNE-Python {mne.__version__}, NumPy {np.__version__}",
    }
    write_csv(results, out / "validation.csv")
    yield f"wrote {out / 'validation.csv'}"
    write_tally(results, out / "tally.csv")
    yield f"wrote {out / 'tally.csv'}"
    pages = write_response_pages(results, out / "responses")
    yield from (f"wrote {page}" for page in pages.values())
    if all("eeg" not in r.case_head.head.sensors.modalities for r in results):
        yield "no pages of responses: they show potentials, and only MEG is picked"
    write_report(results, missing, facts, out / "report.html", pages)
    yield f"wrote {out / 'report.html'}"
