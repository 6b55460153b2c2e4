"""Source spaces of MNE-Python."""

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from deepesi.physics.graph import mesh_edges
from deepesi.physics.head import SourceSpace


def source_space(src: Any, n_orient: int = 1) -> SourceSpace:
    """The source space of a forward solution, named ``subject-icoN`` where it is a full one.

    Neighbours are those of the mesh on a surface, and the nearest sources in a volume.
    """
    vertices = tuple(np.asarray(s["vertno"], dtype=np.int64) for s in src)
    edges, offset = [np.empty((0, 2), dtype=np.int64)], 0
    for part, numbers in zip(src, vertices, strict=True):
        if part["type"] == "surf":
            used = part["use_tris"] if part["nuse_tri"] else np.empty((0, 3), dtype=int)
            used = used[np.isin(used, numbers).all(axis=1)]
            pairs = mesh_edges(np.searchsorted(numbers, used))
        else:
            points = part["rr"][numbers]
            apart = cKDTree(points).query(points, k=2)[0][:, 1] if len(points) > 1 else [0.0]
            pairs = cKDTree(points).query_pairs(1.05 * np.median(apart), output_type="ndarray")
        edges.append(pairs.astype(np.int64) + offset)
        offset += len(numbers)
    subject = src[0].get("subject_his_id") or "unknown"
    kinds = "-".join(sorted({"surface" if s["type"] == "surf" else "volume" for s in src}))
    spacing = {642: "ico3", 2562: "ico4"}.get(len(vertices[0]), kinds)
    return SourceSpace(f"{subject}-{spacing}", vertices, np.concatenate(edges), n_orient)
