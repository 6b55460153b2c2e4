"""Applies networks of any orientation to heads made for it."""

from dataclasses import replace

import numpy as np
import torch

from deepesi.core.contracts import as_tensors
from deepesi.physics.head_inputs import prepare


def apply(model, data, head):
    with torch.no_grad():
        return model(data, as_tensors(prepare(model.head_inputs, head)))


def free(head, turn=None):
    """The head with three orientations per source, along axes that may be turned."""
    columns = np.random.default_rng(0).normal(size=(head.n_channels, head.space.n_sources, 3))
    columns -= columns.mean(axis=0)
    if turn is not None:
        columns = columns @ turn
    return replace(
        head,
        leadfield=np.abs(head.leadfield).max() * columns.reshape(head.n_channels, -1),
        space=replace(head.space, n_orient=3),
    )
