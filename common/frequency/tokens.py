"""Tokens: four neighboring blocks side by side, and image symmetries applied to tokens.

A token covers 2x2 blocks in the order top left, top right, bottom left, bottom right; feature ``block * K + k`` is
zigzag coefficient k of that block. Tokens are numbered row by row over ``grid = (gy, gx)``.
"""

from torch import Tensor

from .zigzag import inverse_zigzag_order, zigzag_order


def blocks_to_tokens(blocks: Tensor) -> Tensor:
    """Blocks ``(..., 2 gy, 2 gx, K)`` -> tokens ``(..., gy * gx, 4K)``."""
    rows, columns = blocks.shape[-3:-1]
    if rows % 2 or columns % 2:
        raise ValueError(
            f"blocks_to_tokens: {rows}x{columns} blocks cannot be grouped 2x2; "
            "pad the image to a multiple of two blocks first (codec.pad_to_tokens)."
        )
    cells = blocks.unflatten(-2, (-1, 2)).unflatten(-4, (-1, 2))  # (..., gy, dy, gx, dx, K)
    return cells.transpose(-4, -3).flatten(-3).flatten(-3, -2)  # (..., gy, gx, dy, dx, K) -> (..., T, 4K)


def tokens_to_blocks(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Invert :func:`blocks_to_tokens`: tokens ``(..., gy * gx, 4K)`` -> blocks ``(..., 2 gy, 2 gx, K)``."""
    cells = _token_cells(tokens, grid)  # (..., gy, gx, dy, dx, K)
    return cells.transpose(-4, -3).flatten(-5, -4).flatten(-3, -2)


def flip_tokens(tokens: Tensor, grid: tuple[int, int], block: int, axis: int) -> Tensor:
    """Tokens of the mirrored image: ``axis`` -1 mirrors left and right, -2 top and bottom.

    Mirroring a block negates its odd frequencies along that axis, ``D(u, v) -> (-1)**v D(u, v)``; besides, the tokens
    and the blocks inside them change places. Exact for any truncation and level shift.
    """
    if axis not in (-1, -2):
        raise ValueError(f"flip_tokens: axis={axis}; choose -1 (left-right) or -2 (top-bottom).")
    cells = _token_cells(tokens, grid)
    order = zigzag_order(block)[: cells.shape[-1]].to(tokens.device)
    frequency = order % block if axis == -1 else order // block
    signs = (1 - 2 * (frequency % 2)).to(tokens.dtype)
    mirrored = cells.flip((-4, -2) if axis == -1 else (-5, -3)) * signs
    return mirrored.flatten(-3).flatten(-3, -2)


def transpose_tokens(tokens: Tensor, grid: tuple[int, int], block: int) -> Tensor:
    """Tokens, on the grid ``(gx, gy)``, of the transposed image: ``D(u, v) -> D(v, u)``.

    Raises:
        ValueError: the truncation keeps a coefficient (u, v) but not (v, u).
    """
    cells = _token_cells(tokens, grid)
    kept = cells.shape[-1]
    order = zigzag_order(block)[:kept]
    source = inverse_zigzag_order(block)[order % block * block + order // block]  # zigzag index of (v, u)
    if source.max() >= kept:
        raise ValueError(
            f"transpose_tokens: the first {kept} zigzag coefficients of a {block}x{block} block hold some (u, v) "
            "without (v, u); transpose the image instead, or keep whole anti-diagonals."
        )
    swapped = cells.transpose(-5, -4).transpose(-3, -2).index_select(-1, source.to(tokens.device))
    return swapped.flatten(-3).flatten(-3, -2)


def _token_cells(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens ``(..., T, 4K)`` -> ``(..., gy, gx, 2, 2, K)``."""
    num_tokens, features = tokens.shape[-2:]
    if num_tokens != grid[0] * grid[1] or features % 4:
        raise ValueError(
            f"tokens: got {num_tokens} tokens of {features} features; a grid of {grid[0]}x{grid[1]} needs "
            f"{grid[0] * grid[1]} tokens of 4K features."
        )
    return tokens.unflatten(-1, (2, 2, features // 4)).unflatten(-4, grid)
