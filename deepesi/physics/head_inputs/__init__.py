"""Arrays that a model or a loss needs from a head; one file per kind of array."""

from deepesi.physics.head_inputs.declaration import HeadInput, prepare
from deepesi.physics.head_inputs.graphs import (
    FixedOrientations,
    MeshEdges,
    MeshNeighbours,
    SensorEdgeFeatures,
    SensorGraph,
    SensorPositions,
    SourceNormals,
)
from deepesi.physics.head_inputs.images import TopographicMatrix
from deepesi.physics.head_inputs.linear import (
    Gain,
    HatMatrix,
    LinearInverse,
    PosteriorRoot,
    PosteriorStd,
    PriorStd,
)
from deepesi.physics.head_inputs.orientation import OrientationRoot, OwnNormals
from deepesi.physics.head_inputs.patches import (
    LooseMoments,
    LooseTopographies,
    MemberShares,
    NormalMoments,
    NormalTopographies,
    PatchMembers,
    PatchMoments,
    PatchPairs,
    PatchShares,
    PatchTopographies,
)
from deepesi.physics.head_inputs.positions import SourcePositions
from deepesi.physics.head_inputs.preconditioners import PatchSensitivities, Preconditioners
from deepesi.physics.head_inputs.scales import NoiseLevel, NormalUnit, Rank, SourceUnit, Whitener
from deepesi.physics.head_inputs.sensors import SensorEncodings
from deepesi.physics.head_inputs.skull import NormalSkullPowers, SkullFilters, SkullPowers
from deepesi.physics.head_inputs.voxels import VoxelCorners, VoxelWeights

__all__ = [
    "FixedOrientations",
    "Gain",
    "HatMatrix",
    "HeadInput",
    "LinearInverse",
    "LooseMoments",
    "LooseTopographies",
    "MemberShares",
    "MeshEdges",
    "MeshNeighbours",
    "NoiseLevel",
    "NormalMoments",
    "NormalSkullPowers",
    "NormalTopographies",
    "NormalUnit",
    "OrientationRoot",
    "OwnNormals",
    "PatchMembers",
    "PatchMoments",
    "PatchPairs",
    "PatchSensitivities",
    "PatchShares",
    "PatchTopographies",
    "PosteriorRoot",
    "PosteriorStd",
    "Preconditioners",
    "PriorStd",
    "Rank",
    "SensorEdgeFeatures",
    "SensorEncodings",
    "SensorGraph",
    "SensorPositions",
    "SkullFilters",
    "SkullPowers",
    "SourceNormals",
    "SourcePositions",
    "SourceUnit",
    "TopographicMatrix",
    "VoxelCorners",
    "VoxelWeights",
    "Whitener",
    "prepare",
]
