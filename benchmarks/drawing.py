"""Speed of the simulation, compared with MNE-Python: ``python -m benchmarks.drawing``.

64 channels with all perturbations: tissues, co-registration, displacement, five kinds of noise,
estimated covariance, five kinds of artifacts. MNE simulates 2 dipoles and noise of one covariance
with one fixed lead field of the same size (`simulate_sparse_stc` and `simulate_evoked`).
"""

import argparse
import json
import platform
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.processor import add_processor, chosen_processor, processor_name, wait
from deepesi.data_gen.artifacts import BadElectrode, Blinks, ElectrodePops, Muscle, Saccades
from deepesi.data_gen.generator import SimulatedRecordings, render
from deepesi.data_gen.keys import torch_generator
from deepesi.data_gen.noise import NoiseRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import SHAPES, PatchSources
from deepesi.data_gen.waveforms import Biphasic, Burst, Gabor, Mixture, PowerLaw
from deepesi.physics.montage import eeg_info
from deepesi.physics.template import Template, load_template
from deepesi.utils.files import atomic

SFREQ = 250.0


def make_recordings(
    template: Template, n_times: int, batch_size: int, device: torch.device
) -> SimulatedRecordings:
    """Return the generator whose speed is measured."""
    noise = NoiseRanges(
        white=(0.02, 1.0),
        coloured=(0.02, 1.0),
        brain=(0.02, 1.0),
        line=(0.001, 0.1),
        drift=(0.01, 0.3),
        variance_change=(0.0, 0.3),
    )
    setups = SetupRanges(
        noise=noise, coregistration_shift=0.0035, coregistration_rotation=3.0, baseline=(200, 2000)
    )
    sources = PatchSources(
        radius=(0.005, 0.03),
        shapes=SHAPES,
        placement="depth",
        moment=(5e-9, 1e-7),
        correlation=(0.0, 0.9),
        time_course=Mixture([Gabor(), Biphasic(), Burst(), PowerLaw()]),
    )
    artifacts = [Blinks(), Saccades(), Muscle(), ElectrodePops(), BadElectrode()]
    return SimulatedRecordings(
        template,
        sources,
        setups,
        [],
        artifacts=artifacts,
        batch_size=batch_size,
        n_times=n_times,
        sfreq=SFREQ,
        pool_size=1,
        pool_period=10**9,
        device=device,
    )


def per_second(
    work: Callable[[int], Any], count: int, seconds: float, device: torch.device
) -> float:
    """Examples per second of a call that draws `count` examples, median of five runs."""

    def finish() -> None:
        wait(device)

    for step in range(2):
        work(step)
    rates = []
    for run in range(5):
        finish()
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 5:
            work(1000 * run + calls)
            calls += 1
        finish()
        rates.append(calls * count / (time.perf_counter() - start))
    return float(np.median(rates))


def stages(
    recordings: SimulatedRecordings, device: torch.device, repeats: int = 10
) -> dict[str, float]:
    """Share of each stage in the time for a batch."""
    key = (0, "train", 0, 0)
    setup = recordings.pool.at(*key)
    rng = torch_generator(*key, device=device)
    size, n_times = recordings.batch_size, recordings.length(0)
    widths = recordings.curriculum.widths(0)
    tissues = recordings.tissues.draw(size, rng)
    anatomy = recordings.pool.anatomy_at(*key)
    true_leadfield = setup.draw_leadfields(tissues, anatomy, rng)
    where = (setup.true_head, setup.true_head.normals)
    patches = recordings.sources.draw(*where, size, n_times, SFREQ, rng)
    calls: dict[str, Callable[[], Any]] = {
        "lead fields": lambda: setup.draw_leadfields(
            recordings.tissues.draw(size, rng), anatomy, rng
        ),
        "sources": lambda: recordings.sources.draw(*where, size, n_times, SFREQ, rng),
        "rendering": lambda: render(true_leadfield, patches),
        "noise": lambda: setup.noise.draw(size, n_times, SFREQ, rng),
        "artifacts": lambda: recordings.draw_artifacts(
            setup, true_leadfield, n_times, 1.0, widths, rng
        ),
    }
    spent = {}
    for name, call in calls.items():
        call()
        wait(device)
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        wait(device)
        spent[name] = time.perf_counter() - start
    total = sum(spent.values())
    return {name: round(value / total, 3) for name, value in spent.items()}


def mne_simulation(template: Template, n_times: int) -> Callable[[int], Any]:
    """Return a function that simulates one example with MNE-Python and this head."""
    import mne
    from mne.proj import make_eeg_average_ref_proj

    head = template.montage_head("biosemi64")
    info = eeg_info(head.sensors.names, head.sensors.positions)
    with info._unlock():
        info["sfreq"], info["projs"] = SFREQ, [make_eeg_average_ref_proj(info, verbose="error")]
    src = mne.setup_volume_source_space(
        pos={"rr": head.source_pos, "nn": head.source_normals}, verbose="error"
    )
    sphere = mne.make_sphere_model((0.0, 0.01, 0.045), 0.15, info=info, verbose="error")
    forward = mne.make_forward_solution(
        info, None, src, sphere, meg=False, mindist=0, verbose="error"
    )
    forward = mne.convert_forward_solution(forward, force_fixed=True, verbose="error")
    forward["sol"]["data"] = head.leadfield
    cov = mne.Covariance(head.noise_cov, list(head.sensors.names), [], [], nfree=1)
    times = np.arange(max(n_times, 2)) / SFREQ  # MNE simulates two samples at least

    warnings.filterwarnings("ignore", message="No average EEG reference")

    def simulate(step: int) -> Any:
        stc = mne.simulation.simulate_sparse_stc(
            forward["src"],
            n_dipoles=2,
            times=times,
            rng=step,
            data_fun=lambda t: 5e-8 * np.sin(20 * np.pi * t + 1),
        )
        return mne.simulation.simulate_evoked(
            forward, stc, info, cov, nave=1, rng=step, verbose="error"
        )

    return simulate


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", default="fsaverage-ico3")
    add_processor(parser, threads=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="per figure")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--batch-size", type=int, help="default: 256, or 65536 / T on a GPU")
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"))
    arguments = parser.parse_args()
    template, device = load_template(arguments.head), chosen_processor(arguments)
    rows = []
    print("| samples T | deepesi examples/s | MNE-Python examples/s | ratio | time per stage |")
    print("| --- | --- | --- | --- | --- |")
    for n_times in arguments.times:
        on_gpu = max(65536 // n_times, 256)
        size = arguments.batch_size or (256 if device.type == "cpu" else on_gpu)
        recordings = make_recordings(template, n_times, size, device)
        own_rate = per_second(recordings.batch, size, arguments.seconds, device)
        mne_rate = per_second(mne_simulation(template, n_times), 1, arguments.seconds, "cpu")
        shares = stages(recordings, device)
        rows.append(
            {
                "n_times": n_times,
                "batch_size": size,
                "deepesi": own_rate,
                "mne": mne_rate,
                "stages": shares,
            }
        )
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        ratio = own_rate / mne_rate
        print(f"| {n_times} | {own_rate:,.0f} | {mne_rate:,.0f} | {ratio:,.0f} | {listed} |")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {
        "head": arguments.head,
        "sources": template.space.n_sources,
        "channels": 64,
        "device": platform.machine() if device.type == "cpu" else processor_name(device),
        "threads": arguments.threads,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "peak_memory_mb": round(memory),
        "rows": rows,
    }
    print(f"{template.space.n_sources} sources, 64 channels; peak memory {memory:,.0f} MB")
    with atomic(arguments.out) as partial:
        partial.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
