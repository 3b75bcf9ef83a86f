"""A picture of translated slices beside what they were made from and what they should be."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..pictures import heat_colors, image_grid, radiological
from .evaluation_picture import SpreadPicture

_KEYS = ("image", "pred", "label")
_LARGEST_ERROR = 0.5  # drawn white; of the range [0, 1]


class TranslationGrid(SpreadPicture):
    """Writes a picture of some slices of each evaluation, and a TensorBoard image.

    Each row shows one slice: source, prediction, target, and the absolute error of the prediction from black (none)
    over red and yellow to white (half of the intensity range, or more). The nose is up, the patient's left side at the
    right.

    For an evaluator whose output has the source as ``image``, ``pred``, and the target as ``label``, each (B, 1, X, Y)
    in [-1, 1], axial slices of volumes in RAS, and whose batch has ``index``.

    Args:
        output_dir: folder of the pictures.
        total: number of slices in the evaluated set, numbered from 0 by ``index``.
        log_dir: TensorBoard folder; ``None``: no TensorBoard image.
        name: file name; ``{epoch}`` is the epoch after which a training validates.
        number: how many slices to show, spread evenly over the set.
        scale: enlargement of each image.
    """

    def __init__(
        self,
        output_dir: str | Path,
        total: int,
        log_dir: str | Path | None = None,
        name: str = "translations_{epoch:06d}.png",
        number: int = 8,
        scale: int = 1,
    ) -> None:
        super().__init__(output_dir, log_dir, name, "translations", total, number)
        self.scale = scale

    def images_of(self, output: Mapping[str, Tensor]) -> Tensor:
        """Source, prediction and target in [0, 1], ``(B, 3, 1, X, Y)``."""
        return (torch.stack([output[key].float() for key in _KEYS], 1) + 1) / 2

    def draw(self, images: Tensor) -> np.ndarray:
        """One row a slice."""
        images = images.clamp(0, 1)
        _, pred, target = images.unbind(1)  # (N, 1, X, Y) each
        error = heat_colors((pred - target).abs() / _LARGEST_ERROR)  # (N, 3, X, Y)
        row = torch.cat([images.expand(-1, -1, 3, -1, -1), error[:, None]], 1)  # (N, 4, 3, X, Y)
        return image_grid(radiological(row.flatten(0, 1)), columns=row.shape[1], scale=self.scale)
