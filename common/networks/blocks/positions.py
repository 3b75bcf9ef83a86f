"""Initial values of a learned position embedding."""

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
    y, x = (torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in grid)  # (gy, D/4), (gx, D/4)
    rows = torch.cat([y.sin(), y.cos()], dim=-1)[:, None].expand(*grid, -1)  # (gy, gx, D/2)
    columns = torch.cat([x.sin(), x.cos()], dim=-1)[None].expand(*grid, -1)
    return (math.sqrt(2.0) * torch.cat([rows, columns], dim=-1)).flatten(0, 1).float()
