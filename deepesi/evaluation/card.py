"""``card.md``: what a model is, how it was trained, how good it is, how to use it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepesi import __version__
from deepesi.evaluation.benchmark import Row
from deepesi.evaluation.table import layout
from deepesi.physics.files import atomic


def write_card(
    path: Path,
    name: str,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    export: Mapping[str, float],
) -> None:
    """Write the model card.

    Args:
        path: ``.md`` file.
        name: Of the model.
        config: Plain configuration of the run.
        rows: Of the benchmark.
        export: Measured on the exported file: ``opset``, ``deviation``, ``latency_ms``.

    """
    header, lines = layout(rows)
    table = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    table += [
        "| " + " | ".join(f"**{t}**" if best else t for t, best in line) + " |" for line in lines
    ]
    data, trainer, scenario = config["data"], config["trainer"], config["scenario"]
    text = f"""# {name}

EEG source localization network of deepesi {__version__}, exported to ONNX (opset {export["opset"]}).
Input: average-referenced EEG in volts, `(batch, channels, times)`, and the head inputs its metadata
declares. Output: dipole moments in A m along the outward cortical normal, `(batch, dipoles, times)`.

## How it was trained
- Seed {config["seed"]}, {trainer["max_steps"]} steps of {data["batch_size"]} simulated examples.
- Montages {", ".join(data["setups"]["montages"])}; SNR {data["snr_db"][0]} to {data["snr_db"][1]} dB.
- Patches: {data["sources"]["n_sources"][0]}-{data["sources"]["n_sources"][1]}, radius \
{1e3 * data["sources"]["radius"][0]:g}-{1e3 * data["sources"]["radius"][1]:g} mm.
- Tissues (S/m, m): {_listed(data["tissues"])}.
- Electrodes displaced by {1e3 * data["setups"]["displacement"]:g} mm on average, the cap shifted by \
{1e3 * data["setups"]["coregistration_shift"]:g} mm and turned by \
{data["setups"]["coregistration_rotation"]:g} degrees.
- Noise (relative power of each kind): {_listed(data["setups"]["noise"])}.
- Covariance: {_baseline(data["setups"])}. Artifacts: {_artifacts(data["artifacts"])}.

## How good it is
Scenario `{scenario["name"]}`, seed {scenario["seed"]}, {scenario["n_examples"]} examples per SNR, other
lead fields than in training. Mean [95 % bootstrap interval].

{chr(10).join(table)}

ONNX Runtime against torch: largest deviation {export["deviation"]:.1e} of the largest estimate. One frame
on one core: {export["latency_ms"]:.2f} ms.

## Limits
- Trained and tested on simulations. No claim about patients; not a medical device. What is not
  listed above was not in the training data.
- It claims no uncertainty, and amplitudes are shrunk towards zero where the source is uncertain: read
  positions and relative strengths, not absolute moments.

## How to use it
```
deepesi apply model.onnx EVOKED-ave.fif --condition NAME --noise-cov COV.fif --out result
```
"""
    with atomic(path) as partial:
        partial.write_text(text)


def _listed(values: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in values.items()
        if not name.startswith("_") and value is not None
    )


def _baseline(setups: Mapping[str, Any]) -> str:
    if setups.get("baseline") is None:
        return "known exactly"
    low, high = setups["baseline"]
    return f"estimated from {low}-{high} samples"


def _artifacts(artifacts: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(a["_target_"].rsplit(".", 1)[-1] for a in artifacts) or "none"
