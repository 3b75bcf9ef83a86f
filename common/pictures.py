"""PNG pictures of image batches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .atomic import atomic_path


def image_grid(images: Tensor, columns: int = 8, gap: int = 2, scale: int = 1) -> np.ndarray:
    """Tile a batch into one picture, as a person looks at it.

    Args:
        images: (B, C, X, Y) in [0, 1] with C = 1 or 3; axis X runs to the right in the picture.
        columns: images per row.
        gap: pixels between images (mid grey).
        scale: whole-number enlargement, without interpolation.

    Returns:
        uint8 array (height, width, 3).
    """
    batch, channels, width, height = images.shape
    if channels not in (1, 3):
        raise ValueError(f"image_grid: images have {channels} channels; grey (1) or RGB (3) can be drawn.")
    levels = images.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = levels.permute(0, 3, 2, 1).expand(-1, -1, -1, 3).numpy()  # (B, Y, X, 3)
    rows = -(-batch // columns)
    canvas = np.full((rows * (height + gap) + gap, min(columns, batch) * (width + gap) + gap, 3), 96, np.uint8)
    for number, picture in enumerate(pixels):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return canvas.repeat(scale, axis=0).repeat(scale, axis=1)


def heat_colors(values: Tensor) -> Tensor:
    """Colors (B, 3, X, Y) in [0, 1] of values (B, 1, X, Y): black at 0, then red, then yellow, white at 1 and beyond.

    Brightness rises all the way, so that the picture is right in grey, too.
    """
    start = torch.tensor([0.0, 1.0, 2.0], device=values.device).reshape(3, 1, 1)  # red, green and blue set in in turn
    return (3 * values - start).clamp(0, 1)


def radiological(images: Tensor) -> Tensor:
    """Axial slices (..., X, Y) of volumes in RAS turned as radiologists look at them when `image_grid` draws them.

    The nose is up and the patient's left side at the right.
    """
    return images.flip(-2, -1)


def save_png(picture: np.ndarray, path: str | Path) -> None:
    """Write a uint8 picture (height, width, 3) as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def evenly_spaced(count: int, number: int) -> Sequence[int]:
    """``number`` indices spread evenly over ``count`` items (all of them if there are fewer)."""
    return np.linspace(0, count - 1, min(number, count)).round().astype(int).tolist()
