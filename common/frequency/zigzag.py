"""JPEG zigzag order of the coefficients of a block, and truncation to its first ones."""

import torch
from torch import Tensor


def zigzag_order(block: int) -> Tensor:
    """Raster indices ``u * block + v`` of a block from low to high frequency, LongTensor ``(block**2,)``.

    Anti-diagonals ``s = u + v`` one after the other; u falls along even ones and rises along odd ones, so that the
    first step goes to the right (JPEG, ITU T.81, figure 5). ``order[k]`` is the raster place of zigzag index k.
    """
    cells = [(u, v) for u in range(block) for v in range(block)]
    cells.sort(key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else -cell[0]))
    return torch.tensor([u * block + v for u, v in cells])


def inverse_zigzag_order(block: int) -> Tensor:
    """Zigzag index of every raster place, LongTensor ``(block**2,)``: ``zigzag_order(block)[it] == arange``."""
    return torch.argsort(zigzag_order(block))


def num_kept(block: int, dropped: int) -> int:
    """K = block**2 - dropped, the number of coefficients kept of a block; the first one can never be dropped.

    Raises:
        ValueError: ``dropped`` lies outside 0..block**2 - 1.
    """
    if block < 1:
        raise ValueError(f"zigzag: block={block} must be at least 1 pixel; 4 is the usual choice.")
    if not 0 <= dropped < block**2:
        raise ValueError(
            f"zigzag: cannot drop {dropped} of the {block}x{block} coefficients of a block; "
            f"choose `dropped` in 0..{block**2 - 1}."
        )
    return block**2 - dropped


def zigzag(coefficients: Tensor, dropped: int = 0) -> Tensor:
    """Blocks ``(..., b, b)`` -> the first ``K = b**2 - dropped`` coefficients in zigzag order, ``(..., K)``."""
    block = coefficients.shape[-1]
    kept = zigzag_order(block)[: num_kept(block, dropped)]
    return coefficients.flatten(-2).index_select(-1, kept.to(coefficients.device))


def inverse_zigzag(values: Tensor, block: int) -> Tensor:
    """Values ``(..., K)`` in zigzag order -> blocks ``(..., block, block)``; coefficients beyond K are 0."""
    kept = values.shape[-1]
    if not 1 <= kept <= block**2:
        raise ValueError(f"inverse_zigzag: {kept} values do not fit a {block}x{block} block; expected 1..{block**2}.")
    filled = torch.nn.functional.pad(values, (0, block**2 - kept))  # (..., b * b), still in zigzag order
    return filled.index_select(-1, inverse_zigzag_order(block).to(values.device)).unflatten(-1, (block, block))
