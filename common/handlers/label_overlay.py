"""Label maps laid over grey images in colors."""

import torch
from torch import Tensor

CLASS_COLORS = (  # of class 1, 2, ...; more classes begin again
    (0.30, 0.60, 1.00),
    (0.25, 0.85, 0.35),
    (1.00, 0.30, 0.30),
    (1.00, 0.85, 0.20),
    (0.90, 0.40, 0.95),
    (1.00, 0.60, 0.20),
    (0.20, 0.85, 0.85),
)


def class_color(index: int) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of a class, numbered from 1; the background has none."""
    return CLASS_COLORS[(index - 1) % len(CLASS_COLORS)]


def label_overlay(images: Tensor, labels: Tensor, opacity: float = 0.4) -> Tensor:
    """Color the labeled pixels of grey images, their outlines in full, what they enclose with ``opacity``.

    Args:
        images: ``(B, 1, X, Y)`` in [0, 1].
        labels: class indices ``(B, 1, X, Y)``.
        opacity: share of the color in the inside of a class.

    Returns:
        ``(B, 3, X, Y)`` in [0, 1].
    """
    classes = labels.long()
    palette = images.new_tensor([(0.0, 0.0, 0.0), *CLASS_COLORS])
    rows = torch.where(classes > 0, (classes - 1) % len(CLASS_COLORS) + 1, classes)[:, 0]  # (B, X, Y)
    colors = palette[rows].permute(0, 3, 1, 2)  # (B, 3, X, Y)
    weight = torch.where(outlines(classes), 1.0, opacity) * (classes > 0)
    return images.clamp(0, 1) * (1 - weight) + colors * weight


def outlines(labels: Tensor) -> Tensor:
    """Pixels that differ from one of their four neighbors, bool ``(B, 1, X, Y)``; both sides of a border count."""
    border = torch.zeros_like(labels, dtype=torch.bool)
    for axis in (2, 3):
        length = labels.shape[axis]
        step = labels.narrow(axis, 1, length - 1) != labels.narrow(axis, 0, length - 1)
        border.narrow(axis, 1, length - 1).logical_or_(step)
        border.narrow(axis, 0, length - 1).logical_or_(step)
    return border
