"""A picture of segmented slices after each validation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..pictures import image_grid, radiological
from .evaluation_picture import SpreadPicture
from .label_overlay import label_overlay


class SegmentationGrid(SpreadPicture):
    """Writes a picture of some slices of each evaluation, and a TensorBoard image.

    Each slice is shown three times in a row: the image, with its reference in colors, with the prediction in colors.

    For an evaluator whose output has ``image`` in [0, 1], ``label`` and ``pred``, class indices, each (B, 1, X, Y), and
    whose batch has ``index``.

    Args:
        output_dir: folder of the pictures.
        total: number of slices in the evaluated set, numbered from 0 by ``index``.
        log_dir: TensorBoard folder; ``None``: no TensorBoard image.
        name: file name; ``{epoch}`` is the epoch after which a training validates.
        number: how many slices to show, spread evenly over the set.
        columns: slices per row.
        scale: enlargement of each image.
        axial: slices of volumes in RAS, shown as radiologists look at them; otherwise axis X runs to the right and axis
            Y downwards.
    """

    def __init__(
        self,
        output_dir: str | Path,
        total: int,
        log_dir: str | Path | None = None,
        name: str = "segmentations_{epoch:06d}.png",
        number: int = 8,
        columns: int = 2,
        scale: int = 1,
        axial: bool = False,
    ) -> None:
        super().__init__(output_dir, log_dir, name, "segmentations", total, number)
        if columns < 1:
            raise ValueError(f"SegmentationGrid: columns={columns} must be at least 1.")
        self.columns = columns
        self.scale = scale
        self.axial = axial

    def images_of(self, output: Mapping[str, Tensor]) -> Tensor:
        """Image, reference and prediction, ``(B, 3, 1, X, Y)``."""
        return torch.stack([output[key].float() for key in ("image", "label", "pred")], dim=1)

    def draw(self, images: Tensor) -> np.ndarray:
        """Three pictures a slice, ``columns`` slices a row."""
        image, label, pred = images.unbind(1)  # (N, 1, X, Y) each
        row = [image.clamp(0, 1).expand(-1, 3, -1, -1), label_overlay(image, label), label_overlay(image, pred)]
        panels = torch.stack(row, dim=1).flatten(0, 1)  # (3 N, 3, X, Y)
        return image_grid(radiological(panels) if self.axial else panels, columns=3 * self.columns, scale=self.scale)
