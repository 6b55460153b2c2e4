"""Depth of the first true source of every example, and its angle to the scalp."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.data_gen.generator import Parts

Array = NDArray[np.float64]


class FirstSources(NamedTuple):
    """Where the first true sources of a batch lie, on the true cortex.

    Attributes:
        depth: Below the scalp ``(B,)``, mm.
        angle: Between the normals of cortex and scalp ``(B,)``, degrees: 0 is radial, 90
            tangential; NaN where the cortex has no normal or the head no mesh of the scalp.

    """

    depth: Array
    angle: Array


def first_sources(parts: Parts) -> FirstSources:
    """Depth and angle of the first true source of every example of a batch."""
    template, anatomy = parts.setup.true_head.template, parts.anatomy
    first = parts.batch.scene.peaks[:, 0].cpu().numpy()
    positions, normals = template.source_pos, template.source_normals
    if anatomy is not None:
        positions = anatomy.positions.cpu().double().numpy()
        normals = anatomy.normals.cpu().double().numpy()
    depth, angle = template.depth_and_angle(positions[first], normals[first])
    return FirstSources(1e3 * depth, angle)
