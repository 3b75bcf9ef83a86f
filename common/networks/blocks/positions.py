"""Embeddings of a token's position: initial values of a learned one, and a fixed one."""

import math

import torch
from torch import Tensor


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """2-D sinusoids of the token position, ``(gy * gx, dim)``, row by row, with root mean square 1.

    ``sqrt(2) [sin y w_i | cos y w_i | sin x w_i | cos x w_i]`` with y, x in tokens and
    ``w_i = 1.5 (4G)**(-i / (dim / 4))``, ``i < dim / 4``, where G is the longer side of the grid: the shortest wave
    spans about four tokens, the longest far exceeds the grid. Neighbors start alike, which an embedding drawn at
    random has to learn first.
    """
    if dim % 4:
        raise ValueError(f"sincos_positions: dim={dim} must be a multiple of 4 (sine and cosine of y and x).")
    quarter = dim // 4
    frequencies = 1.5 * (4.0 * max(grid)) ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = _axis_sinusoids(grid, frequencies)
    return (math.sqrt(2.0) * torch.cat([rows, columns], dim=-1)).flatten(0, 1).float()


def fixed_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Fixed 2-D sinusoids of DiT, ``(gx * gy, dim)``, row by row: ``[sin j w_k | cos j w_k | sin i w_k | cos i w_k]``.

    Token (i, j) of the grid, ``w_k = 10000**(-k / (dim / 4))`` (Peebles and Xie 2023, who keep those of MAE).
    """
    if dim % 4:
        raise ValueError(f"fixed_positions: dim={dim} must be a multiple of 4 (sine and cosine of i and j).")
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = _axis_sinusoids(grid, frequencies)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1).float()


def _axis_sinusoids(grid: tuple[int, int], frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """``[sin p w | cos p w]`` of a token's place p along each of the two axes, 2 x ``(gy, gx, 2 len(w))``."""
    y, x = (torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in grid)  # (gy, len(w)), (gx, ..)
    rows = torch.cat([y.sin(), y.cos()], dim=-1)[:, None].expand(*grid, -1)
    columns = torch.cat([x.sin(), x.cos()], dim=-1)[None].expand(*grid, -1)
    return rows, columns
