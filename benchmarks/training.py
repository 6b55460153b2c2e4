"""Speed of training: ``python -m benchmarks.training``.

Draws batches and takes training steps as in a run (forward, loss, backward, clipping, AdamW), with
every network in turn. Prints examples per second, the share of time for drawing of batches, the
time of a new set-up (head inputs included; a run needs one every
``data.pool_period / data.pool_size`` steps), and on a GPU its peak memory and utilisation (share of
the time in which it works).
"""

import argparse
import time
from typing import NamedTuple

import hydra
import torch

from benchmarks.ensemble import training_step
from benchmarks.processor import add_processor, chosen_processor, processor_name, wait
from deepesi.physics.template import load_template
from deepesi.training.run import build_model

MODELS = ("convdip", "gnn", "unrolled_ista", "piunet", "matched_filter")


class Speed(NamedTuple):
    """Measurements of one network.

    Attributes:
        rate: Examples per second.
        drawing: Share of the time spent drawing batches.
        setup: Time of a new set-up, s.
        memory: Largest GPU memory in use, GiB; None on a CPU.
        utilisation: Share of the time in which the GPU works; None on a CPU.

    """

    rate: float
    drawing: float
    setup: float
    memory: float | None
    utilisation: float | None


def measure(model_name: str, overrides: list[str], seconds: float, device: torch.device) -> Speed:
    """Measure one network."""
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose("train", [f"model={model_name}", *overrides])
    torch.manual_seed(config.seed)
    template = load_template(config.head.name)
    model, _ = build_model(config.model, template)
    model = model.to(device).train()
    loss = hydra.utils.instantiate(config.loss).to(device)
    if config.trainer.compile:
        model.compile(dynamic=True)
    draw = hydra.utils.instantiate(config.data, _convert_="all")
    recordings = draw(
        heads=template,
        declarations=[*model.head_inputs, *loss.head_inputs],
        device=config.data.device,
        pool_period=10**9,
    )
    step, n_setups = training_step(model, loss), recordings.pool.size
    start = time.perf_counter()
    for number in range(n_setups):
        recordings.pool.at(recordings.seed, recordings.split, 0, number)
    setup = (time.perf_counter() - start) / n_setups
    for number in range(3):  # the first steps are slow
        step(recordings.batch(number).to(device))
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    number, took_drawing, busy, start = 0, 0.0, list[int](), time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        batch = recordings.batch(number).to(device)
        wait(device)
        took_drawing += time.perf_counter() - start - elapsed
        step(batch)
        wait(device)
        number += 1
        if device.type == "cuda" and elapsed > seconds / 2:
            busy.append(torch.cuda.utilization(device))
    on_gpu = device.type == "cuda"
    return Speed(
        number * config.data.batch_size / elapsed,
        took_drawing / elapsed,
        setup,
        torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None,
        sum(busy) / len(busy) / 100 if busy else None,
    )


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="overrides of the training configuration, such as data.batch_size=64",
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seconds", type=float, default=20, help="steps per network (default 20)")
    add_processor(parser)
    arguments = parser.parse_args()
    device = chosen_processor(arguments)
    print("| network | examples/s | drawing | new set-up, s | GPU memory, GiB | GPU in use |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.models:
        speed = measure(name, arguments.overrides, arguments.seconds, device)
        memory = "" if speed.memory is None else f"{speed.memory:.2f}"
        use = "" if speed.utilisation is None else f"{speed.utilisation:.0%}"
        print(
            f"| {name} | {speed.rate:,.0f} | {speed.drawing:.1%} | {speed.setup:.2f} | {memory} "
            f"| {use} |",
            flush=True,
        )
    print(
        f"{' '.join(arguments.overrides)} on {processor_name(device)}, "
        f"{arguments.threads} thread(s), torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
