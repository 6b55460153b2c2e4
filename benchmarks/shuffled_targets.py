"""Training on shuffled targets: a network that cannot learn source locations.

``python train.py loss=focal loss._target_=benchmarks.shuffled_targets.ShuffledTargets``. An
explanation that stays the same for such a network does not show what the network has learned.

Source: Adebayo et al. 2018, arXiv:1810.03292 (randomization of data).
"""

from dataclasses import replace

from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate
from deepesi.losses.base import WeightedSum


class ShuffledTargets(WeightedSum):
    """The same objective, but every recording of a batch has the target of the one before it.

    Arguments as in `deepesi.losses.base.WeightedSum`. Set the weight of ``reprojection``, which
    needs no target, to 0.
    """

    def forward(self, estimate: Estimate, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective and its terms, as the base class does."""
        scene = replace(batch.scene, peaks=batch.scene.peaks.roll(1, 0))
        return super().forward(
            estimate, replace(batch, sources=batch.sources.roll(1, 0), scene=scene)
        )
