"""What the localization of the examples of a report depends on, as HTML."""

from html import escape

from deepesi.evaluation.figures import explanation_panels
from deepesi.evaluation.gallery import WorkedExample
from deepesi.viz.page import html_table, tiles

EXPLAINED = (
    "What the localization depends on: the share of the power within 20 mm of the strongest source "
    "is explained. Saliency, of networks: its change per standard deviation of the noise of an "
    "electrode. Occlusion, of exported files and classical methods, which have no gradients here: "
    "how much of it is missing without the electrode. Occlusion failed the randomization check: it "
    "depends little on the model."
)
CHECKED = (
    "Forward check: the potential of the estimate through the nominal lead field, beside the "
    "recording, whitened, at the strongest sample."
)
#: Pixels of scalp maps with a scale.
WIDTH = 235


def explanations(worked: WorkedExample) -> str:
    """HTML of what the localization depends on, with forward checks; empty without any."""
    if not worked.explanations:
        return ""
    slow = [name for name, found in worked.explanations.items() if found.by_sensor is None]
    text = f" Left out, as it would take too long: {escape(', '.join(slow))}." if slow else ""
    return (
        f"<p>{EXPLAINED}{text}</p>{tiles(explanation_panels(worked), WIDTH)}"
        f"<p>{CHECKED}</p>{_forward_checks(worked)}"
    )


def _forward_checks(worked: WorkedExample) -> str:
    header = (
        "method",
        "explained power (%)",
        "after the best scaling (%)",
        "channels that do not fit",
    )
    names, lines = worked.batch.head.sensors.names, []
    for method, (_, _, check) in worked.explanations.items():
        shares = (f"{100 * share:.0f}" for share in (check.share, check.scaled_share))
        misfits = ", ".join(names[row] for row in check.misfits) or "none"
        lines.append([(text, False) for text in (method, *shares, misfits)])
    return html_table(header, lines, (), header[-1:])
