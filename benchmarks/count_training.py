"""Trains the number of sources alone: ``python -m benchmarks.count_training RUN``.

What every further patch adds to the evidence is computed once, on recordings like those of the
training of ``experiment=champagne`` (all numbers of sources, no curriculum). The small network that
makes probabilities of it then takes thousands of steps in seconds. All other weights stay, but the
sharpness of the estimate follows the probabilities. Written is a network, ``OUT/model``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import hydra
import torch
from torch import Tensor

from deepesi.cli.loading import load_heads
from deepesi.composition import compose
from deepesi.evaluation.parallel import one_thread
from deepesi.models.layers.source_counts import SourceCounts, count_loss
from deepesi.models.unrolled_champagne import UnrolledChampagne
from deepesi.training.weights import read_network, save_network

#: Settings of the recordings.
SETTINGS = ("experiment=champagne", "data.curriculum=null")
#: Share of the recordings that tells how good the probabilities are.
HELD_OUT = 0.2
#: Recordings of one step of the training.
SIZE = 256
Example = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def features(model: UnrolledChampagne, words: Sequence[str], n_batches: int) -> list[Example]:
    """What `SourceCounts` gets for every recording, and its true number of sources."""
    config = compose("train", [*SETTINGS, *words])
    cohort = load_heads(config.head)
    recordings = hydra.utils.instantiate(config.data, _convert_="all")(
        heads=cohort.of("train"),
        nominal_head=cohort.template,
        declarations=model.head_inputs,
        seed=1 + config.seed,  # not the recordings of the training itself
        split="train",
    )
    got: list[tuple[Tensor, ...]] = []
    handle = model.source_counts.register_forward_pre_hook(lambda _, given: got.append(given))
    found: list[Example] = []
    for step in range(n_batches):
        batch = recordings.batch(step)
        with torch.no_grad():
            model(batch.data, batch.inputs)
        gains, n_patches, power, n_times = got.pop()
        true = (batch.scene.peaks >= 0).sum(1)
        found += [(gains[i], n_patches, power[i], n_times[i], true[i]) for i in range(len(true))]
    handle.remove()
    return found


def loss_of(counts: SourceCounts, examples: Sequence[Example]) -> Tensor:
    """Mean log score of examples, which may have other numbers of channels and samples."""
    gains, n_patches, power, n_times, true = map(torch.stack, zip(*examples, strict=True))
    return count_loss(counts(gains, n_patches[0], power, n_times), true)


def train(counts: SourceCounts, examples: Sequence[Example], n_steps: int) -> tuple[float, float]:
    """Train in place; log scores of the held-out examples before and after, nats."""
    n_held = int(HELD_OUT * len(examples))
    held, rest = examples[:n_held], examples[n_held:]
    with torch.no_grad():
        before = float(loss_of(counts, held))
    optimizer = torch.optim.Adam(counts.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    rng = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        chosen = torch.randint(len(rest), (min(SIZE, len(rest)),), generator=rng)
        optimizer.zero_grad()
        loss_of(counts, [rest[i] for i in chosen.tolist()]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return before, float(loss_of(counts, held))


def main(words: Sequence[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run of experiment=champagne")
    parser.add_argument("--batches", type=int, default=150, help="batches of recordings")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--set", nargs="*", default=[], help="other settings of the training")
    parser.add_argument("--out", type=Path, default=Path("count_training"))
    options = parser.parse_args(words)
    model, identity = read_network(options.run)
    if not isinstance(model, UnrolledChampagne):
        raise ValueError(
            f"count_training: {options.run} is a {type(model).__name__}, which counts no sources. "
            "Give a run of experiment=champagne."
        )
    with one_thread():
        examples = features(model, options.set, options.batches)
        before, after = train(model.source_counts, examples, options.steps)
    print(f"log score of {int(HELD_OUT * len(examples))} recordings: {before:.3f} -> {after:.3f}")
    (options.out / "model").mkdir(parents=True, exist_ok=True)
    save_network(model, identity, options.out / "model")


if __name__ == "__main__":
    main()
