"""A card beside an exported file: what it is, how it was trained, how good it is, how to use it."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deepesi.evaluation.benchmark import Row
from deepesi.evaluation.table import RULE, layout, markdown_table
from deepesi.physics.sensors import KINDS, title_of
from deepesi.utils.files import atomic


def write_card(
    path: Path,
    file: str,
    name: str,
    contract: Mapping[str, Any],
    n_weights: int,
    export: Mapping[str, float],
    training: str,
    results: str,
) -> None:
    """Write the card of an exported file.

    Args:
        path: ``.md`` file.
        file: Name of the exported file.
        name: Name of the model.
        contract: Contract of the file, plain.
        n_weights: Number of weights of the model.
        export: Measured on it, see `deepesi.export.to_onnx.Parity`.
        training: Text of `how_trained`.
        results: Text of `how_good`, or other Markdown.

    """
    terms = "\n".join(f"| {term} | {value} |" for term, value in _terms(contract))
    limits = "\n".join(f"- {limit}" for limit in _limits(contract))
    title = title_of(contract["data"]["kinds"])
    text = f"""# {name}

{title} source localization of deepesi {contract["versions"]["deepesi"]}, exported to ONNX (opset {export["opset"]}); {n_weights:,} weights.
Input of the graph: data `(batch, channels, times)`, {_numbers(contract)}, and the head inputs
that its metadata declare. Output: dipole moments in A m along the outward cortical normal or, for free orientation,
x, y and z of every source, `(batch, dipoles, times)`.

| contract | |
| --- | --- |
{terms}

## How it was trained
{training}

## How good it is
{results}

ONNX Runtime against torch: largest difference {export["max_difference"]:.1e} of the largest estimate, on five simulated
recordings of 7 samples and {export["n_channels"]} channels. One frame of these on one core: {export["latency_ms"]:.2f} ms.

## Limits
{limits}

## How to use it
No torch is needed.

```
deepesi apply {shlex.quote(file)} EVOKED-ave.fif --condition NAME --noise-cov COV.fif --out result
```

```python
from deepesi.runtime.inverse import Inverse

inverse = Inverse.load({json.dumps(file, ensure_ascii=False)}).for_recording(evoked, noise_cov)
estimate = inverse.apply(evoked)  # .stc, .std, .data
```
"""
    with atomic(path) as partial:
        partial.write_text(text)


def _numbers(contract: Mapping[str, Any]) -> str:
    """Kinds of the channels of a file, with the units and the reference of their numbers."""
    return "; ".join(
        f"{KINDS[kind].title} channels in {_unit(numbers)}"
        for kind, numbers in contract["data"]["kinds"].items()
    )


def _unit(numbers: Mapping[str, Any]) -> str:
    if "numbers_in" in numbers:
        return f"units of {numbers['numbers_in']:g} {numbers['unit']}"
    return f"{numbers['unit']}, {numbers['reference']} reference"


def how_trained(
    contract: Mapping[str, Any],
    n_weights: int,
    config: Mapping[str, Any] | None,
    command: str | None,
    notes: Sequence[str],
) -> str:
    """What is known of the training, as Markdown.

    Args:
        contract: Contract of the file, plain.
        n_weights: Number of weights of the model.
        config: Plain configuration of the run, if it is at hand.
        command: That began it, if it is known.
        notes: What of the configuration the heads could not do, in words.

    """
    if n_weights == 0:
        return "It has no weights, so nothing was trained."
    parts, known = [], {"model": contract["model"]}
    if config is not None:
        trainer, data = config["trainer"], config["data"]
        parts.append(
            f"Seed {config['seed']}, {trainer['max_steps']} steps of {data['batch_size']} simulated "
            "examples."
        )
        known |= {"head": config["head"], "data": data}
    if contract["config_sha256"] is not None:
        what = (
            "Its whole configuration has"
            if config
            else "Its members' configurations or its own have"
        )
        parts.append(f"{what} the SHA-256 `{contract['config_sha256']}`.")
    text = [" ".join(parts), *([] if command is None else [f"```\n{command}\n```"])]
    described = yaml.safe_dump(known, sort_keys=False, default_flow_style=None)
    text.append(f"SI units:\n\n```yaml\n{described}```")
    return "\n\n".join(part for part in [*text, "\n".join(notes)] if part)


def how_good(rows: Sequence[Row], scenario: Mapping[str, Any]) -> str:
    """The table of the benchmark of one scenario, and what it is of."""
    setups = scenario["setups"]
    heads = (
        "sources on the analyst's grid, along its normals (an inverse crime)"
        if setups.get("anatomy") is None and setups.get("own_anatomy", True)
        else "on heads that are not the analyst's"
    )
    return f"""Scenario `{scenario["name"]}`: {heads}. Seed {scenario["seed"]}, {scenario["n_examples"]} examples per SNR, other
lead fields than in training. {RULE}

{markdown_table(layout(rows))}"""


def _terms(contract: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Entry and value of the contract, in words."""
    trained, calibration = contract["trained"], contract["calibration"]
    if trained is not None:
        yield "channels", _range(trained["n_channels"])
        yield "samples of a window", _range(trained["n_times"])
        yield "sampling rate", f"{trained['sfreq']:g} Hz; recordings were not filtered"
        if trained["band_hz"] is not None:
            yield "90 % of the power of time courses", f"{_range(trained['band_hz'])} Hz"
        snr_db = trained["snr_db"]
        yield "SNR", "that of the sources drawn" if snr_db is None else f"{_range(snr_db)} dB"
    if contract["montages"]:
        yield "montages", ", ".join(contract["montages"])
    space = contract["space_name"]
    if space is None:
        yield "source space", "follows that of the head it is given"
    else:
        sizes = " + ".join(str(len(part)) for part in contract["vertices"])
        yield "source space", f"{space}, {sizes} sources (`{contract['space_fingerprint']}`)"
    if contract["anatomy"] is not None:
        yield "head", f"`{contract['anatomy']}`"
    orientations = {None: "follow the head", 1: "fixed, along the normal", 3: "free"}
    yield "orientations", orientations[contract["n_orient"]]
    kinds = {output["kind"] for output in contract["outputs"]}
    yield "standard deviations", "yes" if "std" in kinds else "no"
    yield "posterior samples", "yes" if "samples" in kinds else "no"
    yield "number of sources", "yes" if "source_counts" in kinds else "no"
    if calibration is not None:
        yield (
            "prediction sets",
            (
                f"hold the target ({calibration['covers']}) with a probability of "
                f"{100 * calibration['level']:g} %, on recordings like those they were fitted on: "
                f"{calibration['fitted_on']}{_before(contract['precision'])}"
            ),
        )
        if calibration["temperature"] is not None:
            yield "temperature", f"{calibration['temperature']:.3g}, in its standard deviations"
    yield "asks of a head", ", ".join(dict.fromkeys(d["type"] for d in contract["head_inputs"]))
    yield "written with", ", ".join(f"{name} {v}" for name, v in contract["versions"].items())
    yield "licence", contract["licence"]


def _before(precision: str) -> str:
    return "" if precision == "float32" else f"; fitted before its weights became {precision}"


def _range(limits: Sequence[float]) -> str:
    low, high = limits
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _limits(contract: Mapping[str, Any]) -> Iterator[str]:
    """Limits of the file, and the recordings that it refuses."""
    if contract["trained"] is not None:
        yield "Trained and tested on simulations. No statement about patients; not a medical device."
        yield (
            "Recordings outside of the channels, the sampling rate, the band and the SNR above are "
            "also estimated, with a message."
        )
    else:
        yield "No statement about patients; not a medical device."
    if len(contract["outputs"]) == 1 and contract["calibration"] is None:
        yield "It gives no uncertainty."
    yield (
        "Amplitudes are shrunk towards zero where the source is uncertain: read positions and "
        "relative strengths, not absolute moments."
    )
    if contract["space_name"] is not None:
        yield f"It belongs to the source space {contract['space_name']}; any other is refused."
    elif contract["n_orient"] is not None:
        kind = {1: "fixed", 3: "free"}[contract["n_orient"]]
        yield f"It belongs to sources of {kind} orientation; others are refused."
    yield (
        "Recordings of other kinds of channels, without positions or in other units, with "
        "projected, constant or doubled channels or NaN, of another number of trials or quieter "
        "than their own noise covariance are refused, and so are covariances of other channels or "
        "units."
    )
