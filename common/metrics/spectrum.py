"""Distance of two sets of images in their radial power spectra: does each scale carry the right contrast?"""

from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

_FLOOR = 1e-12  # of power; rounding to 8 bits already makes 1e-6 in images of range 1


def radial_power_spectrum(images: Tensor) -> Tensor:
    """Power ``|FFT|^2 / (H W)`` of ``(..., H, W)``, averaged over rings of equal frequency: ``(..., R)`` in float64.

    ``R = min(H, W) // 2``; entry ``r - 1`` is the ring at ``r / min(H, W)`` cycles per pixel, to the nearest ring. The
    mean (frequency 0) and the corners beyond the Nyquist frequency of the shorter side are left out.
    """
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if shorter < 2:
        raise ValueError(f"radial_power_spectrum: images of {height}x{width} px have no frequency besides the mean.")
    pixels = images.as_subclass(Tensor).double()
    power = torch.fft.fft2(pixels, norm="ortho").abs().square().flatten(-2)  # (..., H * W)
    row = torch.fft.fftfreq(height, dtype=torch.float64, device=pixels.device)
    column = torch.fft.fftfreq(width, dtype=torch.float64, device=pixels.device)
    ring = (torch.hypot(row[:, None], column) * shorter).round().long().flatten()  # (H * W,)
    rings = torch.arange(1, shorter // 2 + 1, device=pixels.device)
    member = (ring[:, None] == rings).double()  # (H * W, R)
    return power @ (member / member.sum(0))


def spectrum_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean over rings of ``|ln(first / second)|`` for two mean spectra ``(R,)``; 0.1 is a contrast off by about 5 %."""
    return (first.clamp_min(_FLOOR) / second.clamp_min(_FLOOR)).log().abs().mean()


class SpectrumDistance(CumulativeIterationMetric):
    """:func:`spectrum_distance` of the mean spectra of predicted and reference images; lower is better.

    Called with ``y_pred`` and ``y``, both ``(B, C, H, W)`` of one size and range; the two need not correspond.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Sequence[Tensor]:
        if y is None:
            raise ValueError("SpectrumDistance: give reference images as `y`.")
        if y_pred.shape[-2:] != y.shape[-2:]:
            raise ValueError(
                f"SpectrumDistance: predicted images are {tuple(y_pred.shape[-2:])} px, reference images "
                f"{tuple(y.shape[-2:])}; rings of different sizes do not compare."
            )
        return [radial_power_spectrum(images).mean(1) for images in (y_pred, y)]  # channels averaged: (B, R)

    def aggregate(self) -> Tensor:
        """Distance over all images seen by all processes since the last reset."""
        buffers = self.get_buffer()
        if buffers is None:
            raise ValueError("SpectrumDistance: no images were given before aggregate().")
        return spectrum_distance(buffers[0].mean(0), buffers[1].mean(0))
