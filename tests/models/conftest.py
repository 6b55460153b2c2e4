"""Toy heads that several networks are tested on."""

from dataclasses import replace

import numpy as np
import pytest

from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.template import Template


@pytest.fixture(scope="module")
def head(toy: Template) -> HeadModel:
    return toy.montage_head("biosemi16")


@pytest.fixture(scope="module")
def free_head(head: HeadModel) -> HeadModel:
    """Twenty-eight sources of three orientations, with the topographies of 84 sources."""
    edges = head.space.edges[(head.space.edges < 28).all(axis=1)]
    return replace(
        head,
        source_pos=head.source_pos[:28],
        source_normals=head.source_normals[:28],
        space=SourceSpace("free", (np.arange(28),), edges, n_orient=3),
    )
