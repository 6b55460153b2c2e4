"""Computing time of an ensemble, compared with one network: ``python -m benchmarks.ensemble``.

Times a training step (forward, loss, backward, clipping, AdamW; without drawing of batches) and an
inference, for one network, for M members one after the other and for M stacked members. The three
alternate and medians are compared, so that other load on the machine affects all of them equally.
On a CPU, processor time (all threads together) is measured.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import hydra
import torch
from torch.optim import AdamW

from benchmarks.processor import add_processor, chosen_processor, processor_name, wait
from deepesi.core.batch import Batch
from deepesi.core.contracts import InverseModel
from deepesi.losses.base import WeightedSum
from deepesi.physics.template import load_template
from deepesi.training.run import build_model
from deepesi.uncertainty.ensemble import StackedEnsemble


def training_step(model: InverseModel, loss: WeightedSum) -> Callable[[Batch], None]:
    """One training step, as in `InverseTraining`."""
    optimizer = AdamW(model.parameters(), lr=1e-4)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        rng = torch.Generator(batch.data.device)
        model.training_loss(batch, loss, rng)["loss"].sum().backward()
        model.clip_gradients(1.0)
        optimizer.step()

    return step


def inference(model: InverseModel, batch: Batch) -> Callable[[], None]:
    """One estimate; with the standard deviation for an ensemble."""

    def infer() -> None:
        with torch.inference_mode():
            model(batch.data, batch.inputs)

    return infer


def in_turns(
    work: dict[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median time of each, ms; the first round is not counted."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, call in work.items():
            wait(device)
            start = clock()
            call()
            wait(device)
            times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def measure(
    head: str,
    overrides: list[str],
    n_members: int,
    batch_size: int,
    repeats: int,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Times in ms by kind of work and arrangement of the members."""
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose(
            "train",
            [
                "model=ensemble",
                f"model.n_members={n_members}",
                f"data.batch_size={batch_size}",
                "data.setups.montages=[biosemi64]",
                *overrides,
            ],
        )
    torch.manual_seed(config.seed)
    template = load_template(head)
    stacked, _ = build_model(config.model, template)
    assert isinstance(stacked, StackedEnsemble)
    loss = hydra.utils.instantiate(config.loss).to(device)
    declarations = [*stacked.head_inputs, *loss.head_inputs]
    draw = hydra.utils.instantiate(config.data, _convert_="all")
    recordings = draw(heads=template, declarations=declarations, batch_size=batch_size)
    batch = recordings.batch(0).to(device)
    apart = stacked.unstacked()
    one = stacked.unstacked().members[0]
    assert isinstance(one, InverseModel)
    models: dict[str, InverseModel] = {
        "one network": one.to(device),
        f"{n_members} one after the other": apart.to(device),
        f"{n_members} stacked": stacked.to(device),
    }
    steps = {name: partial(training_step(model, loss), batch) for name, model in models.items()}
    found = {"training step": in_turns(steps, repeats, device)}
    estimates = {name: inference(model.eval(), batch) for name, model in models.items()}
    return found | {"inference": in_turns(estimates, repeats, device)}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="overrides of the training configuration, such as model@model.member=gnn",
    )
    parser.add_argument("--head", default="fsaverage-ico3")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    add_processor(parser)
    arguments = parser.parse_args()
    device = chosen_processor(arguments)
    found = measure(
        arguments.head,
        arguments.overrides,
        arguments.members,
        arguments.batch_size,
        arguments.repeats,
        device,
    )
    print("| members | training step, ms | of one | inference, ms | of one |")
    print("| --- | --- | --- | --- | --- |")
    steps, estimates = found["training step"], found["inference"]
    for name in steps:
        ratios = [times[name] / times["one network"] for times in (steps, estimates)]
        print(
            f"| {name} | {steps[name]:.1f} | {ratios[0]:.1f} | "
            f"{estimates[name]:.1f} | {ratios[1]:.1f} |"
        )
    print(
        f"{arguments.head}, 64 channels, batches of {arguments.batch_size}, "
        f"on {processor_name(device)}, {arguments.threads} thread(s), torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
