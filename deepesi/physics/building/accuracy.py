"""Accuracy of lead fields against OpenMEEG: ``python -m deepesi.physics.building.accuracy``.

Each draw has random conductivities, skull thickness, montage and electrodes displaced by 5 mm
(mean), and is solved with MNE and OpenMEEG. RDM and |lnMAG| of every source; about 45 s per draw.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from deepesi.physics.building.bem import solve
from deepesi.physics.building.warps import read_member
from deepesi.physics.family import BRAIN_CONDUCTIVITY, Tissues
from deepesi.physics.scalp import displace, project_to_mesh
from deepesi.physics.sensors import average_reference
from deepesi.physics.similarity import ln_magnitude, rdm
from deepesi.physics.template import Template, load_template
from deepesi.utils.files import atomic

MONTAGES = (
    "biosemi16",
    "biosemi32",
    "biosemi64",
    "biosemi128",
    "GSN-HydroCel-65_1.0",
    "GSN-HydroCel-128",
    "GSN-HydroCel-256",
    "easycap-M1",
    "easycap-M10",
)
PERCENTILES = (50, 95, 100)


def draw_tissues(template: Template, rng: np.random.Generator) -> Tissues:
    """Draw tissues uniformly over the range of a head, with a brain of 0.33-0.47 S/m."""
    low, high = template.family.bounds.T
    point = rng.uniform(low, high)
    brain = float(rng.uniform(0.33, 0.47))
    ratio = brain / BRAIN_CONDUCTIVITY
    return Tissues(
        float(np.exp(point[0]) * ratio), float(point[1]), float(np.exp(point[2]) * ratio), brain
    )


def compare(template: Template, rng: np.random.Generator) -> dict[str, Any]:
    """One random draw: parameters, and percentiles of RDM and |lnMAG| over sources."""
    family = template.family
    mesh = family.scalp_pos, family.scalp_faces
    tissues, montage = draw_tissues(template, rng), str(rng.choice(MONTAGES))
    _, electrodes = template.montage(montage)
    moved = displace(electrodes.positions, *mesh, 0.005, 1, rng).positions[0, 0]
    anatomy = read_member(template.warp_seed, template.name.split("-")[1])
    expected = average_reference(solve(anatomy, moved, tissues))
    leadfields = family.leadfield(tissues, project_to_mesh(moved, *mesh)), expected
    return {
        "montage": montage,
        **vars(tissues),
        "rdm": np.percentile(rdm(*leadfields), PERCENTILES).tolist(),
        "lnmag": np.percentile(np.abs(ln_magnitude(*leadfields)), PERCENTILES).tolist(),
    }


def main() -> None:
    """Compare, print a Markdown row per draw, and write all draws as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", default="fsaverage-ico3")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("accuracy.json"))
    arguments = parser.parse_args()
    template, rows = load_template(arguments.head), []
    print("| montage | skull mS/m | mm | scalp S/m | brain S/m | RDM 50/95/100 % | lnMAG |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number in range(arguments.draws):
        row = compare(template, np.random.default_rng([arguments.seed, number]))
        rows.append(row)
        shown = (" / ".join(f"{x:.4f}" for x in row[k]) for k in ("rdm", "lnmag"))
        print(
            f"| {row['montage']} | {1e3 * row['skull_conductivity']:.2f} | "
            f"{1e3 * row['skull_thickness']:.2f} | {row['scalp_conductivity']:.2f} | "
            f"{row['brain_conductivity']:.2f} | {' | '.join(shown)} |",
            flush=True,
        )
    worst = {
        k: np.max([row[k] for row in rows], axis=0).round(4).tolist() for k in ("rdm", "lnmag")
    }
    print(f"worst draw at the 50th, 95th, 100th percentile over sources: {worst}")
    with atomic(arguments.out) as partial:
        partial.write_text(json.dumps({"head": arguments.head, "draws": rows}, indent=1))


if __name__ == "__main__":
    main()
