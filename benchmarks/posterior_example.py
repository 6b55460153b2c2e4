"""Samples of one recording for a picture: ``python -m benchmarks.posterior_example RUN``.

Of 20 test recordings with two sources (``scenario=several``, 5 dB) it is the one whose energy
score is the median: not the best one. Written is a CSV with the moments of the target and of 200
draws, in nA m, where they are not zero; ``docs/pictures.py`` draws them.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.posteriors import at_all_snrs, drawn, keep
from deepesi.cli.calibrate import heads_of, load_models, one_scenario
from deepesi.composition import compose
from deepesi.core.quantities import magnitude
from deepesi.evaluation.parallel import one_thread
from deepesi.metrics.scoring_rules import moments_energy_score

SETTINGS = (
    "baselines=[]",
    "scenario=several",
    "scenario.sources.n_sources=[2,2]",
    "scenario.snr_db=[5]",
    "scenario.n_examples=20",
)
N_DRAWS = 200
TARGET = "target"


def main() -> None:
    """Draw, choose the recording, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="run of experiment=posterior")
    parser.add_argument("--out", type=Path, default=Path("posterior_example.csv"))
    arguments = parser.parse_args()
    config = compose("calibrate", [f"models=[{arguments.model}]", *SETTINGS])
    cohort, scenario = heads_of(config.head), one_scenario(config.scenario)
    (model,) = load_models(config, cohort)[0].values()
    rows, scores = [], []
    with one_thread():
        for batch, n in at_all_snrs(scenario, cohort, [model]):
            estimate = drawn(model, batch.part(slice(n)), N_DRAWS)
            if estimate.samples is None:
                raise ValueError(
                    f"posterior_example: {arguments.model} draws no samples. Give a run of "
                    "experiment=posterior."
                )
            n_orient = batch.head.space.n_orient
            for number in range(n):
                target, own = batch.sources[number], estimate.samples[:, number]
                scores.append(moments_energy_score(own.double().numpy(), target.double().numpy()))
                maps = [target, *own]
                rows.append([1e9 * magnitude(one[None], n_orient)[0].numpy() for one in maps])
    middle = int(np.argsort(scores)[len(scores) // 2])
    print(f"recording {middle} of {len(scores)}, energy score {scores[middle]:.1f} nA m")
    names = (TARGET, *range(N_DRAWS))
    lines = (
        (name, source, f"{values[source]:.3g}")
        for name, values in zip(names, rows[middle], strict=True)
        for source in np.flatnonzero(values)
    )
    keep(arguments.out, ("draw", "source", "moment (nA m)"), lines, scenario.seed)


if __name__ == "__main__":
    main()
