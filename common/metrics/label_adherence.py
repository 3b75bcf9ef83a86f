"""Does an image show what its label map asked for? Dice between the map and a segmenter's answer."""

from collections.abc import Callable

import torch
from torch import Tensor

from .volume_dice import dice, overlap_counts

Segmenter = Callable[[Tensor], Tensor]
"""Images ``(B, 1, X, Y)`` in [0, 1] -> logits ``(B, K, X, Y)``."""


@torch.no_grad()
def adherence_counts(segmenter: Segmenter, images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Pixels per image and class in both the segmenter's answer and the label map, in the answer, and in the map.

    Args:
        segmenter: trained on real images, for what it says of synthetic ones is to be compared with that.
        images: ``(B, 1, X, Y)`` in [0, 1].
        labels: class indices 0..K-1, ``(B, 1, X, Y)``.
        num_classes: K, the background included.

    Returns:
        ``(B, K - 1, 3)`` int64, see :func:`overlap_counts`.

    Raises:
        ValueError: the segmenter knows another number of classes, or a label is none of them.
    """
    logits = segmenter(images)
    if logits.shape != (len(images), num_classes, *images.shape[-2:]):
        raise ValueError(
            f"label adherence: the segmenter answers {tuple(logits.shape)} for images {tuple(images.shape)} with "
            f"{num_classes} classes; give one trained on the same label values."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"label adherence: labels from {int(labels.min())} to {int(labels.max())}; expected are indices of "
            f"{num_classes} classes, 0 to {num_classes - 1}."
        )
    return overlap_counts(logits.argmax(1, keepdim=True), labels, num_classes)


def pooled_dice(counts: Tensor) -> Tensor:
    """Dice of each class over all images together, ``(N, K - 1, 3)`` -> ``(K - 1,)``; NaN for one that no map has."""
    return dice(counts.sum(0))


def mean_dice(counts: Tensor) -> Tensor:
    """Mean of :func:`pooled_dice` over the classes that some map has; a scalar."""
    return pooled_dice(counts).nanmean()
