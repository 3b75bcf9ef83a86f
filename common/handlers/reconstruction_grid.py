"""A picture of images beside what an autoencoder makes of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..pictures import heat_colors, image_grid
from .evaluation_picture import SpreadPicture

_LARGEST_ERROR = 0.25  # drawn white; of the range [0, 1]


class ReconstructionGrid(SpreadPicture):
    """Writes a picture of some images of each evaluation, and a TensorBoard image.

    Three images for each: itself, its reconstruction, and the absolute error from black (none) over red and yellow to
    white (a quarter of the intensity range, or more).

    For an evaluator whose output has the image as ``label`` and ``pred``, both (B, 1, X, Y) in [0, 1], and whose batch
    has ``index``.

    Args:
        output_dir: folder of the pictures.
        total: number of images in the evaluated set, numbered from 0 by ``index``.
        log_dir: TensorBoard folder; ``None``: no TensorBoard image.
        name: file name; ``{epoch}`` is the epoch after which a training validates.
        number: how many images to show, spread evenly over the set.
        scale: enlargement of each image.
    """

    def __init__(
        self,
        output_dir: str | Path,
        total: int,
        log_dir: str | Path | None = None,
        name: str = "reconstructions_{epoch:06d}.png",
        number: int = 12,
        scale: int = 2,
    ) -> None:
        super().__init__(output_dir, log_dir, name, "reconstructions", total, number)
        self.scale = scale

    def images_of(self, output: Mapping[str, Tensor]) -> Tensor:
        """Image and reconstruction, ``(B, 2, 1, X, Y)``."""
        return torch.stack([output["label"].float(), output["pred"].float()], 1)

    def draw(self, images: Tensor) -> np.ndarray:
        """Three of three in a row."""
        images = images.clamp(0, 1)
        error = heat_colors((images[:, 0] - images[:, 1]).abs() / _LARGEST_ERROR)  # (N, 3, X, Y)
        three = torch.cat([images.expand(-1, -1, 3, -1, -1), error[:, None]], 1)  # (N, 3 pictures, 3, X, Y)
        return image_grid(three.flatten(0, 1), columns=9, scale=self.scale)
