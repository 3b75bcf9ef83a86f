"""Orthonormal one-level Haar wavelet transform of the last two axes."""

import torch
from torch import Tensor


def haar_dwt2d(x: Tensor) -> Tensor:
    """Split ``(..., H, W)`` into four bands ``(..., 4, H/2, W/2)`` in the order LL, LH, HL, HH.

    For a cell [[a, b], [c, d]] (row, then column)::

        LL = (a + b + c + d) / 2    cA in PyWavelets: twice the mean
        LH = (a + b - c - d) / 2    cH: top minus bottom, i.e. horizontal edges
        HL = (a - b + c - d) / 2    cV: left minus right, i.e. vertical edges
        HH = (a - b - c + d) / 2    cD: diagonals

    Energy is preserved. Some code calls LH what is HL here; trained weights depend on the order.

    Raises:
        ValueError: H or W is odd.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"haar_dwt2d: size {height}x{width} is odd; replicate the last row or column first.")
    top, bottom = x[..., ::2, :], x[..., 1::2, :]  # (..., H/2, W)
    total, difference = top + bottom, top - bottom
    bands = [
        total[..., ::2] + total[..., 1::2],
        difference[..., ::2] + difference[..., 1::2],
        total[..., ::2] - total[..., 1::2],
        difference[..., ::2] - difference[..., 1::2],
    ]
    return torch.stack(bands, -3) / 2


def haar_idwt2d(bands: Tensor) -> Tensor:
    """Invert :func:`haar_dwt2d`: ``(..., 4, h, w)`` -> ``(..., 2h, 2w)``; the transpose of the forward transform."""
    if bands.ndim < 3 or bands.shape[-3] != 4:
        raise ValueError(f"haar_idwt2d: expected bands (..., 4, h, w), got shape {tuple(bands.shape)}.")
    ll, lh, hl, hh = bands.unbind(-3)
    top = torch.stack([ll + lh + hl + hh, ll + lh - hl - hh], -1).flatten(-2)  # (..., h, 2w)
    bottom = torch.stack([ll - lh + hl - hh, ll - lh - hl + hh], -1).flatten(-2)
    return torch.stack([top, bottom], -2).flatten(-3, -2) / 2  # (..., h, 2, 2w) -> (..., 2h, 2w)
