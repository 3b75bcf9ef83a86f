"""Frechet distance between two sets of images, on the coarse layout of each image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor


class Moments(NamedTuple):
    """Mean ``(D,)`` and unbiased covariance ``(D, D)`` of feature vectors, float64."""

    mean: Tensor
    covariance: Tensor


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


def feature_moments(features: Tensor) -> Moments:
    """Moments of ``(N, D)`` feature vectors.

    Raises:
        ValueError: fewer than two vectors, which have no covariance.
    """
    if len(features) < 2:
        raise ValueError(f"Frechet distance: {len(features)} image(s) on one side; it takes at least two.")
    features = features.double()
    return Moments(features.mean(0), torch.cov(features.mT))


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


class FrechetDistance(CumulativeIterationMetric):
    """Frechet distance of predicted against reference images on :func:`grid_features`; lower is better.

    Called with ``y_pred`` and ``y``, both ``(B, C, H, W)`` in [0, 1]; the two need not correspond. The value depends on
    the number of images: state it, and the distance of held-out real images beside it.

    Args:
        size: side of the feature grid.
        reference: fixed moments of the reference images; then ``y`` is not looked at.
    """

    def __init__(self, size: int = 8, reference: Moments | None = None) -> None:
        super().__init__()
        self.size = size
        self.reference = reference

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Sequence[Tensor]:
        features = [grid_features(y_pred, self.size)]
        if self.reference is None:
            if y is None:
                raise ValueError("FrechetDistance: give reference images as `y`, or their moments as `reference`.")
            features.append(grid_features(y, self.size))
        return features

    def aggregate(self) -> Tensor:
        """Distance over all images seen by all processes since the last reset."""
        buffers = self.get_buffer()
        if buffers is None:
            raise ValueError("FrechetDistance: no images were given before aggregate().")
        if self.reference is None:
            return frechet_distance(feature_moments(buffers[0]), feature_moments(buffers[1]))
        reference = Moments(*(moment.to(buffers.device) for moment in self.reference))
        return frechet_distance(feature_moments(buffers), reference)
