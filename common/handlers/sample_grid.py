"""A picture of samples after each validation."""

from pathlib import Path
from typing import cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..parallel import gather, process_rank
from ..pictures import image_grid, save_png


class SampleGrid:
    """Writes a picture of the first samples of each evaluation, and a TensorBoard image.

    Args:
        output_dir: folder of the pictures.
        log_dir: TensorBoard folder; ``None``: no TensorBoard image.
        name: file name; ``{epoch}`` is the epoch after which a training validates.
        number: how many images to show.
        columns: images per row.
        scale: enlargement of each image.
    """

    def __init__(
        self,
        output_dir: str | Path,
        log_dir: str | Path | None = None,
        name: str = "samples_{epoch:06d}.png",
        number: int = 64,
        columns: int = 8,
        scale: int = 2,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.log_dir = log_dir
        self.name = name
        self.number = number
        self.columns = columns
        self.scale = scale
        self._index: list[Tensor] = []
        self._images: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose output has ``pred`` (B, C, X, Y) in [0, 1] and whose batch has ``index``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.clear)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.collect)  # before batches are taken apart
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def clear(self) -> None:
        """Forget the images of the last evaluation."""
        self._index, self._images = [], []

    def collect(self, engine: Engine) -> None:
        """Keep the samples numbered below ``number``."""
        output, batch = cast(dict, engine.state.output), cast(dict, engine.state.batch)
        images = output["pred"].detach().float()
        index = torch.as_tensor(batch["index"], device=images.device)
        self._index.append(index[index < self.number])
        self._images.append(images[index < self.number])

    def write(self, engine: Engine) -> None:
        """Write the picture on rank 0, from the samples of all processes in the order of their numbers."""
        index = gather(torch.cat(self._index))
        images = gather(torch.cat(self._images))
        if process_rank() != 0 or not len(index):
            return
        picture = image_grid(images[index.argsort()], self.columns, scale=self.scale)
        save_png(picture, self.output_dir / self.name.format(epoch=engine.state.epoch))
        if self.log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(str(self.log_dir)) as writer:
                writer.add_image("samples", picture, engine.state.epoch, dataformats="HWC")
