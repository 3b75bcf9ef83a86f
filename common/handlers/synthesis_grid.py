"""A picture of painted slices beside the label maps they were painted for and the real slices of these maps."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..pictures import image_grid
from .evaluation_picture import EvaluationPicture
from .label_overlay import label_overlay


class SynthesisGrid(EvaluationPicture):
    """Writes a picture of the first samples of each evaluation, and a TensorBoard image.

    Three images for each: the label map in colors, the image that was painted for it, and the real image it belongs to.

    For an evaluator whose output has the label map as ``image`` (class indices), ``pred``, and the real image as
    ``label`` ([0, 1]), each (B, 1, X, Y), and whose batch has ``index``.

    Args:
        output_dir: folder of the pictures.
        log_dir: TensorBoard folder; ``None``: no TensorBoard image.
        name: file name; ``{epoch}`` is the epoch after which a training validates.
        number: how many samples to show.
        scale: enlargement of each image.
    """

    def __init__(
        self,
        output_dir: str | Path,
        log_dir: str | Path | None = None,
        name: str = "samples_{epoch:06d}.png",
        number: int = 24,
        scale: int = 2,
    ) -> None:
        super().__init__(output_dir, log_dir, name, tag="samples")
        self.number = number
        self.scale = scale

    def wanted(self, index: Tensor) -> Tensor:
        """The samples numbered below ``number``."""
        return index < self.number

    def images_of(self, output: Mapping[str, Tensor]) -> Tensor:
        """Label map, painted and real image, ``(B, 3, 1, X, Y)``."""
        return torch.stack([output[key].float() for key in ("image", "pred", "label")], 1)

    def draw(self, images: Tensor) -> np.ndarray:
        """Four of three in a row."""
        labels, painted, real = images.unbind(1)  # (N, 1, X, Y) each
        grey = torch.stack([painted, real], 1).clamp(0, 1).expand(-1, -1, 3, -1, -1)
        colors = label_overlay(torch.zeros_like(labels), labels, opacity=0.8)  # (N, 3, X, Y)
        three = torch.cat([colors[:, None], grey], 1)  # (N, 3 pictures, 3, X, Y)
        return image_grid(three.flatten(0, 1), columns=12, scale=self.scale)
