"""What the pictures of an evaluation have in common: collect chosen images, gather them, write one PNG."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..parallel import gather, process_rank
from ..pictures import evenly_spaced, save_png


class EvaluationPicture(ABC):
    """Writes a picture of some images of each evaluation, and a TensorBoard image of it.

    Subclasses say which images they want, what to keep of the engine's output for them, and how to draw it.

    Args:
        output_dir: folder of the pictures.
        log_dir: TensorBoard folder; ``None``: no TensorBoard image.
        name: file name; ``{epoch}`` is the epoch after which a training validates.
        tag: name of the TensorBoard image.
    """

    def __init__(self, output_dir: str | Path, log_dir: str | Path | None, name: str, tag: str) -> None:
        self.output_dir = Path(output_dir)
        self.log_dir = log_dir
        self.name = name
        self.tag = tag
        self._index: list[Tensor] = []
        self._images: list[Tensor] = []

    @abstractmethod
    def wanted(self, index: Tensor) -> Tensor:
        """Which of the images numbered ``index`` (B,) to show, bool ``(B,)``."""

    @abstractmethod
    def images_of(self, output: Mapping[str, Tensor]) -> Tensor:
        """What is to be shown of a batch, ``(B, ...)``."""

    @abstractmethod
    def draw(self, images: Tensor) -> np.ndarray:
        """Picture (height, width, 3) in uint8 of all kept images in the order of their numbers."""

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose batch has the numbers of its images as ``index`` (B,)."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.clear)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.collect)  # before batches are taken apart
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def clear(self) -> None:
        """Forget the images of the last evaluation."""
        self._index, self._images = [], []

    def collect(self, engine: Engine) -> None:
        """Keep the wanted images of a batch."""
        output, batch = cast(dict, engine.state.output), cast(dict, engine.state.batch)
        images = self.images_of(output).detach().as_subclass(Tensor).float()
        index = torch.as_tensor(batch["index"], device=images.device)
        chosen = self.wanted(index)
        self._index.append(index[chosen])
        self._images.append(images[chosen])

    def write(self, engine: Engine) -> None:
        """Write the picture on rank 0, from the images of all processes in the order of their numbers."""
        index = gather(torch.cat(self._index))
        images = gather(torch.cat(self._images))
        if process_rank() != 0 or not len(index):
            return
        picture = self.draw(images[index.argsort()])
        save_png(picture, self.output_dir / self.name.format(epoch=engine.state.epoch))
        if self.log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(str(self.log_dir)) as writer:
                writer.add_image(self.tag, picture, engine.state.epoch, dataformats="HWC")


class SpreadPicture(EvaluationPicture):
    """An evaluation's picture of images that are spread evenly over the evaluated set.

    Args:
        output_dir, log_dir, name, tag: see :class:`EvaluationPicture`.
        total: number of images in the evaluated set, numbered from 0 by ``index``.
        number: how many of them to show.
    """

    def __init__(
        self, output_dir: str | Path, log_dir: str | Path | None, name: str, tag: str, total: int, number: int
    ) -> None:
        super().__init__(output_dir, log_dir, name, tag)
        if total < 1 or number < 1:
            raise ValueError(f"{type(self).__name__}: total={total} and number={number} must be at least 1.")
        self.chosen = torch.tensor(evenly_spaced(total, number))

    def wanted(self, index: Tensor) -> Tensor:
        """The images spread evenly over the set."""
        return torch.isin(index, self.chosen.to(index.device))
