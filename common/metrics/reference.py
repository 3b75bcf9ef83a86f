"""Real images that generated ones are compared with."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..cropping import center_crop
from .frechet import FeatureFunction, grid_features
from .moments import Moments, RunningMoments

_BATCH = 256  # slices at a time


class SliceSource(Protocol):
    """A data set that hands out batches, as ``SliceDataset`` does."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]: ...


class ReferenceImages:
    """Evenly spaced slices of a data set in [0, 1], decoded when first asked for, and what the scores need of them.

    Args:
        dataset: gives ``{"image": (B, 1, X, Y) in grey levels 0..255}`` for a list of indices.
        image_size: pixels to keep in the center of each slice; ``None``: all.
        maximum: at most so many slices; the scores' reference is then this many, not the whole set.
    """

    def __init__(self, dataset: SliceSource, image_size: Sequence[int] | None = None, maximum: int = 4000) -> None:
        self.dataset = dataset
        self.image_size = image_size
        self.indices = np.linspace(0, len(dataset) - 1, min(maximum, len(dataset))).round().astype(int).tolist()

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def images(self) -> Tensor:
        """(N, 1, X, Y) in [0, 1]."""
        batches = [self.indices[start : start + _BATCH] for start in range(0, len(self), _BATCH)]
        images = torch.cat([self.dataset.__getitems__(batch)["image"].float() / 255 for batch in batches])
        return images if self.image_size is None else center_crop(images, self.image_size)

    def features(self, size: int) -> Tensor:
        """Grid features of all images, see :func:`grid_features`."""
        return grid_features(self.images, size)

    def moments(self, size: int = 8, features: FeatureFunction | None = None) -> Moments:
        """Mean and covariance of the grid features, or of those that ``features`` makes of ``(B, 1, X, Y)``."""
        of = features or (lambda images: grid_features(images, size))
        moments = RunningMoments()
        for images in self.images.split(_BATCH):
            moments.update(of(images))
        return moments.result()
