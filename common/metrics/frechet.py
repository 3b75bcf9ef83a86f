"""Frechet distance between two sets of images, in any space of features."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from .moments import Moments, RunningMoments, feature_moments

FeatureFunction = Callable[[Tensor], Tensor]
"""Images ``(B, C, H, W)`` in [0, 1] -> features ``(B, D)``."""


def grid_features(images: Tensor, size: int = 8) -> Tensor:
    """Area means of ``(B, C, H, W)`` over a ``size`` x ``size`` grid, ``(B, C * size * size)`` in float64.

    A feature that needs no network and knows only where an image is bright: bad anatomy shows, bad texture does not.
    If H or W is no multiple of ``size``, neighboring areas share pixels (adaptive average pooling).
    """
    if images.ndim != 4 or min(images.shape[-2:]) < size:
        raise ValueError(
            f"grid_features: images of shape {tuple(images.shape)}; expected (B, C, H, W) of at least {size}x{size} px."
        )
    pixels = images.as_subclass(Tensor).double()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, size).flatten(1)


class GridFeatures:
    """:func:`grid_features` as a space of features with a name, beside those that need weights.

    Args:
        size: side of the grid.
    """

    name = "frechet_distance"

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self.identity = f"grid-{size}x{size}"
        self.meaning = f"squared distance of {size}x{size} area means, images in [0, 1]; lower is better"

    def __call__(self, images: Tensor) -> Tensor:
        return grid_features(images, self.size)


def frechet_distance(first: Moments, second: Moments) -> Tensor:
    """Squared 2-Wasserstein distance of the Gaussians with these moments, a float64 scalar.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))`` (Dowson and Landau 1982; the "FID" formula of Heusel
    et al. 2017). Symmetric eigenvalues only, so that singular covariances (few images) are exact, too.
    """
    (mean1, cov1), (mean2, cov2) = ((m.double(), c.double()) for m, c in (first, second))
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    inner = root @ cov2 @ root
    cross = torch.linalg.eigvalsh((inner + inner.mT) / 2).clamp_min(0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return distance.clamp_min(0)


def distance_of_features(features: Tensor, reference: Moments) -> Tensor:
    """:func:`frechet_distance` of the moments of ``(N, D)`` features to ``reference``, a float64 scalar.

    With at most D vectors, C1 = A^T A for their deviations A ``(N, D)``, and the trace of the root is that of the
    ``(N, N)`` matrix A C2 A^T: seconds instead of minutes for the 2048 numbers of Inception.
    """
    if not 2 <= len(features) <= features.shape[1]:
        return frechet_distance(feature_moments(features), reference)
    vectors, (mean, covariance) = features.double(), reference
    center = vectors.mean(0)
    deviations = (vectors - center) / (len(vectors) - 1) ** 0.5
    inner = deviations @ covariance.to(vectors) @ deviations.mT  # (N, N)
    cross = torch.linalg.eigvalsh((inner + inner.mT) / 2).clamp_min(0).sqrt().sum()
    shift = (center - mean.to(vectors)).square().sum()
    return (shift + deviations.square().sum() + covariance.trace().to(vectors) - 2 * cross).clamp_min(0)


class FrechetDistance(CumulativeIterationMetric):
    """Frechet distance of predicted against reference images; lower is better.

    Called with ``y_pred`` and ``y``, both ``(B, C, H, W)`` in [0, 1]; the two need not correspond. The value depends on
    the number of images: state it, and the distance of held-out real images beside it. No images are kept.

    Args:
        size: side of the grid of :func:`grid_features`.
        reference: fixed moments of the reference images; then ``y`` is not looked at.
        features: another space of features, in place of the grid.
    """

    def __init__(
        self, size: int = 8, reference: Moments | None = None, features: FeatureFunction | None = None
    ) -> None:
        self.features = GridFeatures(size) if features is None else features
        self.reference = reference
        super().__init__()

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._moments = (RunningMoments(), RunningMoments())  # predicted, reference

    def extend(self, *data: Tensor) -> None:
        """Take in the features of a batch."""
        for moments, features in zip(self._moments, data, strict=False):
            moments.update(features)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Sequence[Tensor]:
        features = [self.features(y_pred)]
        if self.reference is None:
            if y is None:
                raise ValueError("FrechetDistance: give reference images as `y`, or their moments as `reference`.")
            features.append(self.features(y))
        return features

    def aggregate(self) -> Tensor:
        """Distance over all images seen by all processes since the last reset."""
        pred, real = (moments.over_processes() for moments in self._moments)
        if not pred.count:
            raise ValueError("FrechetDistance: no images were given before aggregate().")
        reference = real.result() if self.reference is None else Moments(*(part.cpu() for part in self.reference))
        return frechet_distance(pred.result(), reference)
