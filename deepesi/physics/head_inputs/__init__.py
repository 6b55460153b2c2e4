"""What a model or a loss may ask of a head; one file per kind of array."""

from deepesi.physics.head_inputs.declaration import HeadInput, prepare
from deepesi.physics.head_inputs.graphs import MeshEdges
from deepesi.physics.head_inputs.images import TopographicMatrix
from deepesi.physics.head_inputs.linear import Gain, LinearInverse
from deepesi.physics.head_inputs.scales import NoiseLevel, SourceUnit, Whitener

__all__ = [
    "Gain",
    "HeadInput",
    "LinearInverse",
    "MeshEdges",
    "NoiseLevel",
    "SourceUnit",
    "TopographicMatrix",
    "Whitener",
    "prepare",
]
