"""The floor of modality translation: the best map from source to target intensity that looks at single pixels."""

import torch
from torch import Tensor

from .shapes import check_one_shape


class PointwiseMap:
    """Mean target intensity given the source intensity, as a table over ``bins`` equal bins of [-1, 1].

    Fitted by :meth:`update` on any number of batches of training pairs. The mean of each bin is the least-squares
    prediction for its pixels; between the centers of bins that hold data :meth:`apply` interpolates linearly, beyond
    the outermost of them it is constant. A translation network has to beat it: it knows nothing of place or context.

    Args:
        bins: number of bins.
    """

    def __init__(self, bins: int = 256) -> None:
        if bins < 1:
            raise ValueError(f"PointwiseMap: bins={bins} must be at least 1.")
        self.bins = bins
        self._sum = torch.zeros(bins, dtype=torch.float64)
        self._count = torch.zeros(bins, dtype=torch.float64)

    def update(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add the pixels of source and target images of one shape in [-1, 1], or those where ``mask`` is positive."""
        check_one_shape("PointwiseMap", {"source": source, "target": target, "mask": mask})
        x, y = (images.detach().as_subclass(Tensor).double().cpu().flatten() for images in (source, target))
        if mask is not None:
            inside = mask.detach().as_subclass(Tensor).cpu().flatten() > 0
            x, y = x[inside], y[inside]
        place = ((x + 1) / 2 * self.bins).long().clamp(0, self.bins - 1)
        self._sum += torch.bincount(place, weights=y, minlength=self.bins)
        self._count += torch.bincount(place, minlength=self.bins)

    def apply(self, source: Tensor) -> Tensor:
        """Predicted target of each source pixel, in the shape, dtype and on the device of ``source``."""
        filled = self._count > 0
        if not filled.any():
            raise ValueError("PointwiseMap: no pixel was given to update() yet.")
        centers = ((torch.arange(self.bins) + 0.5) * 2 / self.bins - 1)[filled].double().to(source.device)  # (K,)
        means = (self._sum / self._count)[filled].to(source.device)
        x = source.detach().as_subclass(Tensor).double().contiguous()
        right = torch.searchsorted(centers, x).clamp(max=len(centers) - 1)
        left = (right - 1).clamp(min=0)
        step = torch.where(right > left, centers[right] - centers[left], 1.0)
        share = ((x - centers[left]) / step).clamp(0, 1)
        return torch.lerp(means[left], means[right], share).to(source.dtype)
