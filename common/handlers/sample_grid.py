"""A picture of samples after each validation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ..pictures import image_grid
from .evaluation_picture import EvaluationPicture


class SampleGrid(EvaluationPicture):
    """Writes a picture of the first samples of each evaluation, and a TensorBoard image.

    For an evaluator whose output has ``pred`` (B, C, X, Y) in [0, 1] and whose batch has ``index``.

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
        super().__init__(output_dir, log_dir, name, tag="samples")
        self.number = number
        self.columns = columns
        self.scale = scale

    def wanted(self, index: Tensor) -> Tensor:
        """The samples numbered below ``number``."""
        return index < self.number

    def images_of(self, output: Mapping[str, Tensor]) -> Tensor:
        """The samples themselves."""
        return output["pred"]

    def draw(self, images: Tensor) -> np.ndarray:
        """Tile them, row after row."""
        return image_grid(images, self.columns, scale=self.scale)
