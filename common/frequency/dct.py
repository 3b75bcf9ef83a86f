"""Orthonormal DCT-II of the non-overlapping square blocks of an image."""

import math

import torch
from torch import Tensor


def dct_matrix(n: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
    """Matrix ``M`` (n, n) such that ``M @ x`` is the DCT-II of ``x``; rows are orthonormal, so ``M.T`` inverts it.

    ``M[u, x] = alpha(u) cos((2x + 1) u pi / 2n)`` with ``alpha(0) = sqrt(1/n)``, else ``sqrt(2/n)``.
    Computed in float64.
    """
    k = torch.arange(n, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi / n * (k + 0.5) * k[:, None]) * math.sqrt(2 / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix.to(dtype)


def block_dct2d(image: Tensor, block: int) -> Tensor:
    """DCT of every ``block`` x ``block`` tile of an image.

    Energy and unit are those of the image: the first coefficient of a constant tile of value ``a`` is ``block * a``.

    Args:
        image: floating point ``(..., H, W)``; H and W must be multiples of ``block``.
        block: side of a tile in pixels.

    Returns:
        Coefficients ``(..., H/block, W/block, block, block)``, last axes (u, v): vertical, horizontal frequency.

    Raises:
        TypeError: the image holds integers.
        ValueError: the image does not divide into tiles.

    Source: DCT-MoE, section 4.1, eq. 2 (written with M: ``M @ tile @ M.T``).
    """
    height, width = image.shape[-2:]
    if not image.is_floating_point():
        raise TypeError(f"block_dct2d: image has dtype {image.dtype}; convert it to floating point first.")
    if block < 1 or height % block or width % block:
        raise ValueError(
            f"block_dct2d: image of {height}x{width} px does not divide into {block}x{block} blocks; "
            f"pad it first (codec.pad_to_tokens) or choose another `block`."
        )
    matrix = dct_matrix(block, dtype=image.dtype, device=image.device)
    tiles = image.unflatten(-1, (-1, block)).unflatten(-3, (-1, block)).transpose(-3, -2)  # (..., gh, gw, b, b)
    return matrix @ tiles @ matrix.mT


def block_idct2d(coefficients: Tensor) -> Tensor:
    """Invert :func:`block_dct2d`: ``(..., gh, gw, b, b)`` -> image ``(..., gh * b, gw * b)``."""
    if coefficients.ndim < 4 or coefficients.shape[-1] != coefficients.shape[-2]:
        raise ValueError(
            f"block_idct2d: expected coefficients (..., rows, columns, b, b), got shape {tuple(coefficients.shape)}."
        )
    matrix = dct_matrix(coefficients.shape[-1], dtype=coefficients.dtype, device=coefficients.device)
    tiles = matrix.mT @ coefficients @ matrix
    return tiles.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)  # (..., gh, b, gw, b) -> (..., H, W)
