"""Crops of image batches that are already in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor


def center_crop(images: Tensor, size: Sequence[int]) -> Tensor:
    """(..., X, Y) -> the central (..., *size)."""
    start = [(have - need) // 2 for have, need in zip(images.shape[-2:], size, strict=True)]
    if min(start) < 0:
        raise ValueError(f"center_crop: images of {tuple(images.shape[-2:])} pixels hold no {tuple(size)}.")
    return images[..., start[0] : start[0] + size[0], start[1] : start[1] + size[1]]


def crop_at(images: Tensor, size: Sequence[int], offsets: Tensor) -> Tensor:
    """(B, C, X, Y) -> (B, C, *size), image i from pixel ``offsets[i]`` (B, 2) on; one gather, no loop over images."""
    rows = offsets[:, 0, None] + torch.arange(size[0], device=images.device)  # (B, X')
    columns = offsets[:, 1, None] + torch.arange(size[1], device=images.device)  # (B, Y')
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
