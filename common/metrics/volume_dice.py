"""Dice of whole volumes, class by class, also where only slices pass by."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..parallel import gather
from .shapes import check_one_shape


def overlap_counts(pred: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Pixels of each class in both label maps, in ``pred``, and in ``label``.

    Args:
        pred, label: class indices ``(B, 1, ...)``.
        num_classes: K, the background included.

    Returns:
        ``(B, K - 1, 3)`` int64, the background left out.
    """
    check_one_shape("overlap_counts", {"prediction": pred, "label": label})
    pred, label = (image.detach().as_subclass(Tensor).flatten(1) for image in (pred, label))  # (B, N)
    counts = []
    for index in range(1, num_classes):
        ours, theirs = pred == index, label == index
        counts.append(torch.stack([(ours & theirs).sum(1), ours.sum(1), theirs.sum(1)], dim=1))
    return torch.stack(counts, dim=1)


def dice(counts: Tensor) -> Tensor:
    """``2 |A and B| / (|A| + |B|)`` in [0, 1] of counts ``(..., 3)``, float64; NaN where the reference has none."""
    both, pred, label = counts.double().unbind(-1)
    return torch.where(label > 0, 2 * both / (pred + label), torch.nan)


def volume_dice(pred: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Dice of each class but the background: ``(B, 1, ...)`` class indices -> ``(B, K - 1)`` float64.

    NaN where the class is absent from the reference: there every prediction but an empty one would score 0.
    """
    return dice(overlap_counts(pred, label, num_classes))


def class_means(scores: Tensor) -> Tensor:
    """Mean of each class over the volumes that have it: ``(V, K - 1)`` -> ``(K - 1,)``; NaN if none has."""
    return scores.nanmean(dim=0)


class VolumeDice:
    """Collects slices in any order, also more than once, and scores the volumes that they are cut from.

    Args:
        origin: ``(N, 3)`` item, frame and slice number of each slice of the data set, as `SliceDataset` has it. Slices
            of one item and frame are a volume.
        num_classes: K, the background included.
    """

    def __init__(self, origin: NDArray[Any], num_classes: int) -> None:
        if num_classes < 2:
            raise ValueError(f"VolumeDice: num_classes={num_classes}; the background and one class are the least.")
        volumes, number = np.unique(np.asarray(origin)[:, :2], axis=0, return_inverse=True)
        self.num_volumes = len(volumes)
        self.volume_of = torch.from_numpy(number.reshape(-1))
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Forget all slices."""
        self._index: list[Tensor] = []
        self._counts: list[Tensor] = []

    def update(self, pred: Tensor, label: Tensor, index: Tensor) -> None:
        """Add slices: class indices ``(B, 1, X, Y)``, and the number ``(B,)`` of each slice in the data set."""
        counts = overlap_counts(pred, label, self.num_classes)
        self._counts.append(counts)
        self._index.append(torch.as_tensor(index, device=counts.device).long())

    def compute(self) -> Tensor:
        """Dice of each volume of which slices were seen, by all processes: ``(V, K - 1)`` float64 on the CPU.

        Raises:
            ValueError: no slices were given.
        """
        if not self._index:
            raise ValueError("VolumeDice: no slices were given before compute().")
        index, counts = gather(torch.cat(self._index)).cpu(), gather(torch.cat(self._counts)).cpu()
        slices = counts.new_full((len(self.volume_of), *counts.shape[1:]), -1)
        slices[index] = counts  # processes may share slices; each counts once
        seen = slices[:, 0, 0] >= 0
        totals = counts.new_zeros(self.num_volumes, *counts.shape[1:])
        totals.index_add_(0, self.volume_of[seen], slices[seen])
        return dice(totals)[self.volume_of[seen].unique()]
