"""``deepesi export``: exports a checkpoint, run or baseline to an ONNX file with a card."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.core.contracts import InverseModel
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.card import how_trained, write_card
from deepesi.export.quantize import Precision
from deepesi.export.to_onnx import Parity, check_parity, export_onnx
from deepesi.physics.cohort import SPLITS, Cohort
from deepesi.physics.head_inputs import OwnNormals
from deepesi.physics.linear_inverse import METHODS
from deepesi.physics.template import Template, free_orientation, load_template
from deepesi.runtime.contract import (
    CALIBRATION_FILE,
    CALIBRATION_TABLES,
    Calibration,
    Contract,
    as_tuples,
)
from deepesi.training.overrides import typed
from deepesi.training.weights import check_space, read_network
from deepesi.utils.files import atomic, check_file_out


def export_path(
    model: str, out: Path, head: str | Template, montage: str, precision: Precision = "float32"
) -> Path:
    """Export a model, write its card and return the written file.

    Args:
        model: A checkpoint, a run directory, ``fitted/N`` of ``deepesi calibrate`` (the contract
            then contains the calibration), or one of `exportable_baselines`.
        out: ``.onnx`` file; its card is a ``.md`` with the same name.
        head: Packaged head or ``.npz``, or the head itself.
        montage: Montage to trace with; the file works with any.
        precision: Precision of the weights, as in `deepesi.export.quantize.Precision`.

    Raises:
        ValueError: ``out`` is no ``.onnx``; file and model differ, as in `check_parity`.

    """
    check_file_out(out, ".onnx")
    template = head if isinstance(head, Template) else load_template(head)
    baselines = exportable_baselines()
    run, identity, calibration = None, dict[str, Any](), None
    network: InverseModel
    if model.lower() in baselines:
        name, network, parameters = baselines[model.lower()]
        kind = f"{type(network).__module__}.{type(network).__qualname__}"
        identity = {"model": {"_target_": kind, **parameters}}
    else:
        run = Path(model)
        network, identity = read_network(run)
        template = _as_trained(template, identity)
        check_space(run, network, identity, template.space)
        name, calibration = type(network).__name__, _calibration(run)
    contract, parity = export_checked(
        network, template, montage, out, identity, PatchSources(), calibration, precision
    )
    config, results = (None, None) if run is None else _record(run, identity)
    results = results or f"Not measured yet: `deepesi evaluate {typed('models', [out.name])}`."
    results += "" if run is None else _calibration_tables(run)
    describe(
        out.with_suffix(".md"), out.name, name, network, contract, parity, identity, config, results
    )
    return out


def _as_trained(template: Template, identity: Mapping[str, Any]) -> Template:
    """The head with free orientation, if the network was trained so on its sources."""
    free = replace(template.space, n_orient=3)
    if template.space.n_orient == 1 and identity["space_fingerprint"] == free.fingerprint:
        return free_orientation(template)
    return template


def exportable_baselines() -> dict[str, tuple[str, InverseModel, dict[str, str]]]:
    """Baselines that can be exported, by name: title, model and parameters."""
    found: dict[str, tuple[str, InverseModel, dict[str, str]]] = {
        method.lower(): (method, MinimumNorm(method), {"method": method}) for method in METHODS
    }
    return found | {"bayesian_minimum_norm": ("BayesianMinimumNorm", BayesianMinimumNorm(), {})}


def describe(
    card: Path,
    file: str,
    name: str,
    network: InverseModel,
    contract: Contract,
    parity: Parity,
    identity: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    results: str,
) -> None:
    """Write the card of an exported file.

    Args:
        card: ``.md`` file.
        file: Name of the exported file.
        name: Name of the model.
        network: The model.
        contract: Contract of the file.
        parity: Result of `export_checked`.
        identity: Metadata of the weights.
        config: Plain configuration of its training, if available.
        results: Results of its evaluation, Markdown.

    """
    n_weights, terms = sum(p.numel() for p in network.parameters()), json.loads(contract.to_json())
    command, limits = identity.get("command"), identity.get("limits", [])
    training = how_trained(terms, n_weights, config, command, limits)
    write_card(card, file, name, terms, n_weights, parity._asdict(), training, results)


def export_checked(
    model: InverseModel,
    template: Template,
    montage: str,
    path: Path,
    identity: Mapping[str, Any],
    sources: PatchSources,
    calibration: Calibration | None = None,
    precision: Precision = "float32",
) -> tuple[Contract, Parity]:
    """Export and compare the file with the model; nothing is written if they differ.

    Args:
        model: Any inverse model.
        template: Head to trace and to compare on.
        montage: Montage to trace with.
        path: ``.onnx`` file to write.
        identity: Metadata of the weights.
        sources: Sources of the comparison, at another batch size, duration and montage.
        calibration: Calibration from ``deepesi calibrate``.
        precision: Precision of the weights.

    Raises:
        ValueError: As in `export_onnx` and `check_parity`; nothing is written.

    """
    probe = SimulatedRecordings(
        template,
        sources,
        SetupRanges(montages=["biosemi32"]),
        model.head_inputs,
        batch_size=5,
        n_times=max(7, model.window_needs.shortest + 6),
        split=next(split for split in SPLITS if Cohort.single(template).of(split)),
        pool_size=1,
        pool_period=1,
    )
    head = template.montage_head(montage)
    with atomic(path) as partial:
        contract = export_onnx(
            model, head, partial, identity, template.fingerprint, calibration, precision
        )
        batch = probe.batch(0)
        if OwnNormals() in contract.head_inputs:  # computed in another way on a template's cortex
            head = replace(batch.head, own_normals=not batch.head.own_normals)
            check_parity(model, partial, replace(batch, head=head), n_timed=1)
        return contract, check_parity(model, partial, batch)


def _record(run: Path, identity: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """Configuration of the training, and Markdown of the benchmark, in a run directory.

    None if missing, or from another training than the weights.
    """
    folder = run.parent if run.name == "model" else run
    config, benchmark = folder / "config.yaml", folder / "benchmark.md"
    if not config.is_file():
        return None, None
    known = identity.get("config_sha256")
    is_its_own = known == hashlib.sha256(config.read_bytes()).hexdigest()
    content = yaml.safe_load(config.read_text())
    # 'deepesi evaluate' writes an ensemble or a mixture with its benchmark, without training.
    by_cortex = content.get("by_cortex") or {}
    is_joined = any([content.get("ensemble"), content.get("mc_dropout"), *by_cortex.values()])
    results = None
    if benchmark.is_file() and (is_its_own or is_joined):
        text = benchmark.read_text().removeprefix("# Benchmark\n\n")
        results = text.replace("\n## ", "\n### ").rstrip()
    return content if is_its_own else None, results


def _calibration(path: Path) -> Calibration | None:
    """Calibration that ``deepesi calibrate`` wrote for a network, in ``fitted/N``."""
    file = path / CALIBRATION_FILE
    if not file.is_file():
        return None
    return Calibration(**as_tuples(json.loads(file.read_text())))


def _calibration_tables(path: Path) -> str:
    """Tables of ``deepesi calibrate`` for a network, as a part of the card."""
    file = path / CALIBRATION_TABLES
    if not file.is_file():
        return ""
    return f"\n\n### How well it is calibrated\n\n{file.read_text().rstrip()}"
