"""Graphs: who neighbours whom among sources and among electrodes."""

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Axes, HeadInput


@dataclass(frozen=True)
class MeshEdges(HeadInput):
    """Edges of the source mesh ``(E, 2)``, each once: the pairs a Laplacian smooths over."""

    axes: ClassVar[Axes] = ("edges", 2)

    def compute(self, head: HeadModel) -> NDArray[Any]:
        """See `deepesi.physics.head.SourceSpace`."""
        return head.space.edges
