"""A small benchmark of two scenarios on the toy head."""

from dataclasses import replace

import pytest

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.oracle import WithTrueLeadField
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.benchmark import REFERENCE, run_benchmark
from deepesi.evaluation.scenario import Scenario
from deepesi.physics.cohort import Cohort

LONG = "3 x UnrolledMatchedFilter 61 k (run outputs/matched_filter/2026-11-29_01-02-03)"


@pytest.fixture(scope="session")
def scenarios():
    snr = Scenario(
        name="toy",
        snr_db=[0, 20],
        n_examples=24,
        sources=PatchSources((1, 1), (0.03, 0.06)),
        setups=SetupRanges(montages=["biosemi16"]),
        batch_size=16,
    )
    swept = [
        replace(
            snr,
            name="montages",
            snr_db=[10],
            axis="channels of the cap",
            level=str(n),
            sources=PatchSources((2, 2), (0.03, 0.06)),
            setups=SetupRanges(montages=[f"biosemi{n}"]),
        )
        for n in (16, 32)
    ]
    return [snr, *swept]


@pytest.fixture(scope="session")
def models():
    bayes = BayesSinglePatch(smallest=0.03, largest=0.06, n_radii=2)
    methods = {"<MNE>": MinimumNorm("MNE"), REFERENCE: MinimumNorm("eLORETA")}
    return {LONG: MinimumNorm("sLORETA"), **methods, "oracle": WithTrueLeadField(bayes)}


@pytest.fixture(scope="session")
def benchmark(models, scenarios, toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    return run_benchmark(models, scenarios, Cohort.single(toy), folder)
