"""Source locations."""

from dataclasses import dataclass
from typing import ClassVar

from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs.declaration import Array, Axes, HeadInput


@dataclass(frozen=True)
class SourcePositions(HeadInput):
    """Source locations ``(S, 3)``, m, head frame. Distances are cheap to make from them."""

    axes: ClassVar[Axes] = ("sources", 3)

    def compute(self, head: HeadModel) -> Array:
        """Return the source locations of the head."""
        return head.source_pos
