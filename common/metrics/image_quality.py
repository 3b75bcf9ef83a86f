"""Peak signal-to-noise ratio and structural similarity of images that correspond pixel by pixel."""

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from .shapes import check_one_shape


def psnr(pred: Tensor, target: Tensor, data_range: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """``10 log10(data_range^2 / MSE)`` in dB of each image, ``(B,)`` float64; infinite where the two are equal.

    Args:
        pred: ``(B, ...)``.
        target: as ``pred``.
        data_range: distance of the largest from the smallest possible value.
        mask: as ``pred``; only where it is positive do pixels count. NaN for an image without any.
    """
    check_one_shape("psnr", {"prediction": pred, "target": target, "mask": mask})
    error = (_float64(pred) - _float64(target)).square().flatten(1)  # (B, N)
    if mask is None:
        mse = error.mean(1)
    else:
        inside = mask.detach().as_subclass(Tensor).flatten(1) > 0
        mse = torch.where(inside, error, 0.0).sum(1) / inside.sum(1)
    return 10 * torch.log10(data_range**2 / mse)


def structural_similarity(
    pred: Tensor, target: Tensor, data_range: float = 1.0, window: int = 7, mask: Tensor | None = None
) -> Tensor:
    """Mean structural similarity (SSIM) of each image, ``(B,)`` float64: 1 if the two are equal.

    The mean of :func:`structural_similarity_map`, which is what ``skimage.metrics.structural_similarity`` returns with
    its defaults; MONAI's ``SSIMMetric`` (Gaussian window) gives other values.

    Args:
        pred: images ``(B, 1, X, Y)`` or volumes ``(B, 1, X, Y, Z)``.
        target: as ``pred``.
        data_range: distance of the largest from the smallest possible value.
        window: side of the uniform window, odd.
        mask: as ``pred``; only windows whose center it is positive at count. NaN for an image without any.
    """
    check_one_shape("structural_similarity", {"prediction": pred, "target": target, "mask": mask})
    similarity = structural_similarity_map(pred, target, data_range, window).flatten(1)  # (B, N)
    if mask is None:
        return similarity.mean(1)
    inside = crop_border(mask.detach().as_subclass(Tensor), window).flatten(1) > 0
    return torch.where(inside, similarity, 0.0).sum(1) / inside.sum(1)


def structural_similarity_map(pred: Tensor, target: Tensor, data_range: float = 1.0, window: int = 7) -> Tensor:
    """Structural similarity of each window that lies inside the image, float64.

    Uniform window, K1 = 0.01, K2 = 0.03, variances and covariance of a sample (divided by N - 1). Every spatial axis of
    ``(B, 1, X, Y)`` or ``(B, 1, X, Y, Z)`` is shorter by ``window - 1``: entry i belongs to the window centered at
    pixel ``i + window // 2``; :func:`crop_border` cuts a mask alike.

    Raises:
        ValueError: the images differ in shape, an axis is shorter than the window, or the window is even.
    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13.
    """
    check_one_shape("structural_similarity", {"prediction": pred, "target": target})
    if pred.ndim not in (4, 5) or window < 3 or window % 2 == 0 or min(pred.shape[2:]) < window:
        size = "x".join(str(length) for length in pred.shape[2:])
        raise ValueError(
            f"structural_similarity: an image of {size} with a window of {window}; every axis of (B, 1, X, Y) or "
            "(B, 1, X, Y, Z) must be at least as long as the window, which is odd and at least 3."
        )
    x, y = _float64(pred), _float64(target)
    mean_x, mean_y = _window_mean(x, window), _window_mean(y, window)
    number = window ** (x.ndim - 2)
    sample = number / (number - 1)
    var_x = sample * (_window_mean(x * x, window) - mean_x**2)
    var_y = sample * (_window_mean(y * y, window) - mean_y**2)
    covariance = sample * (_window_mean(x * y, window) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (var_x + var_y + c2)


def crop_border(images: Tensor, window: int = 7) -> Tensor:
    """Drop the ``window // 2`` pixels at each end of each spatial axis of ``(B, C, X, Y)`` or ``(B, C, X, Y, Z)``."""
    border = window // 2
    for axis in range(2, images.ndim):
        images = images.narrow(axis, border, images.shape[axis] - 2 * border)
    return images


def unit_range(images: Tensor, low: float = -1.0) -> Tensor:
    """Images in [low, 1] mapped to [0, 1] in float64, values beyond clamped: the range that metrics are stated for."""
    return ((_float64(images) - low) / (1 - low)).clamp(0, 1)


class PSNR(CumulativeIterationMetric):
    """Mean over all images of :func:`psnr` at data range 1; higher is better.

    Called with ``y_pred`` and ``y``, both ``(B, 1, X, Y)`` in [low, 1]; they are compared in :func:`unit_range`. Images
    that are predicted exactly, whose PSNR is infinite, are left out of the mean and counted in ``num_exact``.

    Args:
        low: level of black, -1 or 0.
    """

    num_exact: int = 0
    """Images left out of the last :meth:`aggregate`."""

    def __init__(self, low: float = -1.0) -> None:
        super().__init__()
        self.low = low

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        return psnr(unit_range(y_pred, self.low), unit_range(_required(y, "PSNR"), self.low))[:, None]  # (B, 1)

    def aggregate(self) -> Tensor:
        """Mean in dB over the images seen by all processes since the last reset; infinite if all were exact."""
        values = self.get_buffer()
        if values is None:
            raise ValueError("PSNR: no images were given before aggregate().")
        exact = torch.isposinf(values)
        self.num_exact = int(exact.sum())
        return values[~exact].mean() if self.num_exact < len(values) else values.mean()


class SSIM(CumulativeIterationMetric):
    """Mean over all images of :func:`structural_similarity` at data range 1; higher is better.

    Called with ``y_pred`` and ``y``, both ``(B, 1, X, Y)`` in [low, 1]; they are compared in :func:`unit_range`.

    Args:
        window: side of the uniform window in pixels, odd.
        low: level of black, -1 or 0.
    """

    def __init__(self, window: int = 7, low: float = -1.0) -> None:
        super().__init__()
        self.window = window
        self.low = low

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        target = unit_range(_required(y, "SSIM"), self.low)
        return structural_similarity(unit_range(y_pred, self.low), target, window=self.window)[:, None]  # (B, 1)

    def aggregate(self) -> Tensor:
        """Mean over the images seen by all processes since the last reset."""
        values = self.get_buffer()
        if values is None:
            raise ValueError("SSIM: no images were given before aggregate().")
        return values.mean()


def _window_mean(images: Tensor, window: int) -> Tensor:
    """Mean over the windows inside ``(B, C, *S)``, one axis after the other: each of S shorter by ``window - 1``."""
    for axis in range(2, images.ndim):
        images = images.unfold(axis, window, 1).mean(-1)
    return images


def _float64(images: Tensor) -> Tensor:
    """Plain float64 tensor; metric arithmetic needs no metadata."""
    return images.detach().as_subclass(Tensor).double()


def _required(y: Tensor | None, name: str) -> Tensor:
    if y is None:
        raise ValueError(f"{name}: give the target images as `y`.")
    return y
