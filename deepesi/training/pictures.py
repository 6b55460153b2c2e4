"""ValidationPictures: figures of a few fixed validation examples, in Weights & Biases."""

import io
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from deepesi.core.arrays import as_array
from deepesi.core.batch import Batch
from deepesi.core.quantities import magnitude
from deepesi.physics.template import DisplayMesh
from deepesi.viz.estimate import Comparison, comparison_figure
from deepesi.viz.page import png


def comparison(
    batch: Batch, mean: Tensor, index: int, mesh: DisplayMesh | None, title: str
) -> Comparison:
    """Arrays of one example of a batch and its estimate ``(B, D, T)``, A m."""
    head, n_orient = batch.head, batch.head.space.n_orient
    one, rows = slice(index, index + 1), head.sensors.map_rows
    sensors = head.sensors[rows]
    peaks = batch.scene.peaks[index].cpu().numpy()
    return Comparison(
        recorded=as_array(batch.data[index])[rows],
        explained=head.project(as_array(mean[index]))[rows],
        target_potential=head.project(as_array(batch.sources[index]))[rows],
        target=as_array(magnitude(batch.sources[one], n_orient)[0]),
        estimated=as_array(magnitude(mean[one].float(), n_orient)[0]),
        peaks=peaks[peaks >= 0],
        sensor_pos=sensors.positions,
        ch_names=sensors.names,
        source_pos=head.source_pos,
        mesh=mesh,
        title=title,
        kind=sensors.kinds[0],
    )


class ValidationPictures(Callback):
    """Figures of target, estimate and potentials after each validation.

    Examples are taken from the validation batches in turn, because each batch has another
    recording set-up.

    Args:
        logger: Logger that receives the figures.
        n_examples: Number of examples.
        mesh: Cortex mesh to draw on. None: three projections.

    Raises:
        ValueError: `n_examples` is negative.

    """

    def __init__(self, logger: WandbLogger, n_examples: int, mesh: DisplayMesh | None) -> None:
        if n_examples < 0:
            raise ValueError(f"train: trainer.pictures must be 0 (none) or more, got {n_examples}.")
        self.logger, self.n_examples, self.mesh = logger, n_examples, mesh
        self._drawn: list[bytes] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the examples of this batch."""
        if not trainer.is_global_zero or not isinstance(batch, Batch):
            return  # recordings without targets cannot be compared
        (n_batches,) = trainer.num_val_batches
        for number in range(batch_idx, self.n_examples, int(n_batches)):
            index = number // int(n_batches)
            if index < len(batch.data):
                snr_db, step = float(batch.scene.snr_db[index]), trainer.global_step
                title = f"validation example {number + 1}, step {step}, {snr_db:.1f} dB"
                with torch.no_grad():
                    example = comparison(batch, outputs["mean"], index, self.mesh, title)
                self._drawn.append(png(comparison_figure(example)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log all figures of this step together."""
        from PIL import Image

        if self._drawn:
            images = [Image.open(io.BytesIO(content)) for content in self._drawn]
            self.logger.log_image("validation/examples", images)
            self._drawn = []
