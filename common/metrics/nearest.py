"""Distance to the nearest training image: the first thing to look at when asking whether a model copies."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from .frechet import grid_features
from .multiscale_ssim import Profile, multiscale_ssim

_CHUNK = 256  # queries compared at a time, so that memory grows with the references only


def nearest_neighbors(queries: Tensor, references: Tensor, size: int = 16) -> tuple[Tensor, Tensor]:
    """Distance ``(N,)`` (float64) of every query image to its nearest reference image, and that image's index ``(N,)``.

    Euclidean distance of the images' area means on a ``size`` x ``size`` grid. A copy has distance 0, a shifted or
    mirrored copy need not.

    Args:
        queries: ``(N, C, H, W)``.
        references: ``(M, C, H', W')``, M >= 1, in the same intensity unit.
        size: side of the grid.
    """
    return _nearest(grid_features(queries, size), grid_features(references, size))


def most_similar(queries: Tensor, references: Tensor, profile: Profile, candidates: int = 8) -> Tensor:
    """MS-SSIM ``(N,)`` (float64) of every query image to the reference image that it is most similar to.

    Compared are only the ``candidates`` references of the smallest distance on a 16x16 grid, since all pairs would take
    hours: a copy, also a noisy one, is among them; of images that are no copies the true maximum may be higher.

    Args:
        queries: ``(N, 1, X, Y)`` in [0, 1].
        references: ``(M, 1, X, Y)``, M >= 1.
        profile: of the similarity.
        candidates: references compared with each query.
    """
    known, number = grid_features(references, 16), min(candidates, len(references))
    similarity = []
    for images in queries.split(_CHUNK):
        distances = torch.cdist(grid_features(images, 16), known)  # (B, M)
        near = distances.topk(number, largest=False).indices  # (B, number)
        similarity.append(
            torch.stack([multiscale_ssim(images, references[place], profile) for place in near.unbind(1)]).amax(0)
        )
    return torch.cat(similarity)


class NearestNeighborDistance(CumulativeIterationMetric):
    """Mean over predicted images of the distance to the nearest reference image (see the function above).

    Meaningful only beside the same number for held-out real images: clearly smaller means copying. Called with
    ``y_pred`` and ``y``, both ``(B, C, H, W)`` in [0, 1]; the two need not correspond.

    Args:
        size: side of the grid on which images are compared.
        references: fixed features ``(M, C * size * size)`` of the training images, made by
            :func:`grid_features`; then ``y`` is not looked at.
    """

    def __init__(self, size: int = 16, references: Tensor | None = None) -> None:
        super().__init__()
        self.size = size
        self.references = references

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor | Sequence[Tensor]:
        features = grid_features(y_pred, self.size)
        if self.references is not None:
            return _nearest(features, self.references.to(features))[0]
        if y is None:
            raise ValueError("NearestNeighborDistance: give training images as `y`, or features as `references`.")
        return [features, grid_features(y, self.size)]

    def aggregate(self) -> Tensor:
        """Mean distance over all predicted images seen by all processes since the last reset."""
        buffers = self.get_buffer()
        if buffers is None:
            raise ValueError("NearestNeighborDistance: no images were given before aggregate().")
        distances = buffers if self.references is not None else _nearest(buffers[0], buffers[1])[0]
        return distances.mean()


def _nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest Euclidean distance of each row ``(N, D)`` to the rows ``(M, D)``, and the index of that row."""
    exact = "donot_use_mm_for_euclid_dist"  # the matrix-product form cannot tell a copy from a close neighbor
    found = [torch.cdist(chunk, references, compute_mode=exact).min(1) for chunk in queries.split(_CHUNK)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])
