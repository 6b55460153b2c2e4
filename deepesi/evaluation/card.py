"""``card.md``: what a model is, how it was trained, how good it is, how to use it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deepesi import __version__
from deepesi.evaluation.benchmark import Row
from deepesi.evaluation.table import layout, markdown_table
from deepesi.physics.files import atomic


def write_card(
    path: Path,
    name: str,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    export: Mapping[str, float],
    limits: Sequence[str],
) -> None:
    """Write the model card.

    Args:
        path: ``.md`` file.
        name: Of the model.
        config: Plain configuration of the run.
        rows: Of the benchmark.
        export: Measured on the exported file: ``opset``, ``deviation``, ``latency_ms``.
        limits: What of the configuration the heads could not do, in words.

    """
    data, trainer, scenario = config["data"], config["trainer"], config["scenario"]
    text = f"""# {name}

EEG source localization network of deepesi {__version__}, exported to ONNX (opset {export["opset"]}).
Input: average-referenced EEG in volts, `(batch, channels, times)`, and the head inputs its metadata
declares. Output: dipole moments in A m along the outward cortical normal or, for free orientation,
x, y and z of every source, `(batch, dipoles, times)`.

## How it was trained
Seed {config["seed"]}, {trainer["max_steps"]} steps of {data["batch_size"]} simulated examples. SI units:

```yaml
{yaml.safe_dump({"head": config["head"], "data": data}, sort_keys=False, default_flow_style=None)}```
{"".join(f"{chr(10)}{line}" for line in limits)}

## How good it is
Scenario `{scenario["name"]}`, seed {scenario["seed"]}, {scenario["n_examples"]} examples per SNR, other
lead fields than in training. Mean [95 % bootstrap interval].

{markdown_table(layout(rows))}

ONNX Runtime against torch: largest deviation {export["deviation"]:.1e} of the largest estimate. One frame
on one core: {export["latency_ms"]:.2f} ms.

## Limits
- Trained and tested on simulations. No claim about patients; not a medical device.
- It claims no uncertainty, and amplitudes are shrunk towards zero where the source is uncertain: read
  positions and relative strengths, not absolute moments.

## How to use it
```
deepesi apply model.onnx EVOKED-ave.fif --condition NAME --noise-cov COV.fif --out result
```
"""
    with atomic(path) as partial:
        partial.write_text(text)
