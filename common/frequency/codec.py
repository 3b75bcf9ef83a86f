"""Image <-> tokens: level shift, block DCT, zigzag, truncation and scale (DCT-MoE, section 4.1).

Two encoders compute the same numbers. The staged one (:func:`encode_image`, :func:`decode_tokens`) reads like the
paper. The folded one (:func:`encode_folded`, :func:`decode_folded`) puts every linear step into one matrix and is what
training uses. Both take floating point grey levels and clip nothing.
"""

import math

import torch
from torch import Tensor

from .dct import block_dct2d, block_idct2d, dct_matrix
from .tokens import blocks_to_tokens, tokens_to_blocks
from .zigzag import inverse_zigzag, num_kept, zigzag, zigzag_order


def encode_image(image: Tensor, *, block: int, eta: float, dropped: int = 0, shift: float = 128.0) -> Tensor:
    """Encode grey levels into tokens, one step after the other.

    Args:
        image: ``(..., H, W)``, floating point, H and W multiples of ``2 * block`` (see :func:`pad_to_tokens`).
        block: side of a DCT block in pixels.
        eta: grey-level coefficient that becomes 1; one number for all coefficients keeps their natural spectrum.
        dropped: number of highest zigzag frequencies cut off per block (the paper's m).
        shift: grey level that becomes 0.

    Returns:
        Tokens ``(..., T, 4K)`` with ``T = (H / 2b) (W / 2b)`` and ``K = b**2 - dropped``.
    """
    _check_token_size(image, block, "encode_image")
    coefficients = block_dct2d(image - shift, block)  # (..., 2gy, 2gx, b, b)
    return blocks_to_tokens(zigzag(coefficients, dropped)) / eta


def decode_tokens(tokens: Tensor, *, grid: tuple[int, int], block: int, eta: float, shift: float = 128.0) -> Tensor:
    """Invert :func:`encode_image`: tokens ``(..., gy * gx, 4K)`` -> grey levels ``(..., 2b gy, 2b gx)``, not clipped.

    Dropped coefficients (K < b**2) are taken as 0, so the squared error is the energy that was cut off.
    """
    coefficients = inverse_zigzag(tokens_to_blocks(tokens, grid) * eta, block)  # (..., 2gy, 2gx, b, b)
    return block_idct2d(coefficients) + shift


def folded_matrix(
    block: int,
    dropped: int,
    eta: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Matrix ``(b*b, K)`` that codes a flattened block: 2-D DCT, zigzag, truncation and 1/eta in one.

    ``tile.flatten() @ matrix`` are the K values of a tile. The columns are the zigzag basis
    images, orthogonal with norm ``1 / eta``. Computed in float64.
    """
    matrix = dct_matrix(block, dtype=torch.float64)
    basis = torch.kron(matrix, matrix)[zigzag_order(block)[: num_kept(block, dropped)]]  # (K, b*b)
    return (basis.mT / eta).to(dtype=dtype, device=device)


def folded_inverse(
    block: int,
    dropped: int,
    eta: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Matrix ``(K, b*b)`` that leads from the code of a block back to its pixels; left inverse of the code's basis.

    ``folded_inverse @ folded_matrix`` is the identity of size K.
    """
    exact = folded_matrix(block, dropped, eta, dtype=torch.float64)
    return (exact.mT * eta**2).to(dtype=dtype, device=device)


def encode_folded(image: Tensor, matrix: Tensor, shift: float | Tensor = 128.0) -> Tensor:
    """Equal :func:`encode_image` by one matrix product over pairs of blocks.

    Args:
        image: ``(..., H, W)`` grey levels of any dtype (also uint8); computed in the matrix's dtype, autocast or not.
        matrix: :func:`folded_matrix`, ``(b*b, K)``.
        shift: grey level that becomes 0.

    Returns:
        Tokens ``(..., T, 4K)``.
    """
    block = _block_side(matrix.shape[0], "encode_folded")
    _check_token_size(image, block, "encode_folded")
    side, leading = 2 * block, image.shape[:-2]
    gy, gx = image.shape[-2] // side, image.shape[-1] // side
    with torch.autocast(image.device.type, enabled=False):
        tiles = image.to(matrix.dtype).reshape(-1, gy, side, gx, side)
        pairs = tiles.transpose(2, 3).reshape(-1, side * block)  # (N * gy * gx * 2, 2b * b), top or bottom of a token
        codes = pairs @ _pair_matrix(matrix, block)  # (N * gy * gx * 2, 2K)
        first = codes.unflatten(-1, (2, -1))[..., 0]
        first -= shift * matrix[:, 0].sum()  # a constant moves the first coefficient of a block only
    return codes.view(*leading, gy * gx, 4 * matrix.shape[1])


def decode_folded(tokens: Tensor, inverse: Tensor, *, grid: tuple[int, int], shift: float | Tensor = 128.0) -> Tensor:
    """Equal :func:`decode_tokens` by one matrix product.

    Args:
        tokens: ``(..., gy * gx, 4K)``; computed in the matrix's dtype, autocast or not.
        inverse: :func:`folded_inverse`, ``(K, b*b)``.
        grid: token rows and columns (gy, gx).
        shift: grey level of a zero code.

    Returns:
        Grey levels ``(..., 2b gy, 2b gx)``, not clipped.
    """
    block = _block_side(inverse.shape[1], "decode_folded")
    side, leading, (gy, gx) = 2 * block, tokens.shape[:-2], grid
    if tokens.shape[-2:] != (gy * gx, 4 * inverse.shape[0]):
        raise ValueError(
            f"decode_folded: got {tokens.shape[-2]} tokens of {tokens.shape[-1]} features; a grid of {gy}x{gx} and "
            f"{inverse.shape[0]} coefficients per block need {gy * gx} tokens of {4 * inverse.shape[0]}."
        )
    with torch.autocast(tokens.device.type, enabled=False):
        codes = tokens.to(inverse.dtype).reshape(-1, 2 * inverse.shape[0])  # (N * gy * gx * 2, 2K)
        pixels = codes @ _pair_matrix(inverse.mT, block).mT  # (N * gy * gx * 2, 2b * b)
    tiles = pixels.view(-1, gy, gx, side, side).transpose(2, 3)  # (N, gy, 2b, gx, 2b)
    return tiles.reshape(*leading, gy * side, gx * side) + shift


def pad_to_tokens(image: Tensor, block: int) -> Tensor:
    """Enlarge ``(..., H, W)`` at the bottom and the right to multiples of ``2 * block`` with each image's own minimum.

    The minimum is background in medical images, so that the border carries no invented structure.
    """
    height, width = image.shape[-2:]
    side = 2 * block
    rows, columns = -height % side, -width % side
    if not rows and not columns:
        return image
    padded = image.amin((-2, -1), keepdim=True).expand(*image.shape[:-2], height + rows, width + columns).clone()
    padded[..., :height, :width] = image
    return padded


def crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo :func:`pad_to_tokens`: the first ``size`` rows and columns of ``(..., H, W)``."""
    if image.shape[-2] < size[0] or image.shape[-1] < size[1]:
        raise ValueError(f"crop: an image of {image.shape[-2]}x{image.shape[-1]} px holds no {size[0]}x{size[1]} px.")
    return image[..., : size[0], : size[1]]


def _pair_matrix(matrix: Tensor, block: int) -> Tensor:
    """Matrix ``(b*b, K)`` of a block -> the same for two blocks side by side, ``(2b * b, 2K)``.

    Half of its entries are 0, yet products with pairs are faster than with single blocks: the pixels are gathered in
    runs of 2b, and top and bottom pair follow each other both in the pixels and in the features of a token.
    """
    diagonal = torch.block_diag(matrix, matrix)  # rows (dx, y, x)
    return diagonal.view(2, block, block, -1).transpose(0, 1).reshape(2 * block**2, -1)  # rows (y, dx, x)


def _block_side(pixels: int, where: str) -> int:
    block = math.isqrt(pixels)
    if block**2 != pixels:
        raise ValueError(f"{where}: the matrix is made for blocks of {pixels} pixels, which is no square.")
    return block


def _check_token_size(image: Tensor, block: int, where: str) -> None:
    height, width = image.shape[-2:]
    if height % (2 * block) or width % (2 * block):
        raise ValueError(
            f"{where}: image of {height}x{width} px does not divide into tokens of {2 * block}x{2 * block} px; "
            f"pad it first (codec.pad_to_tokens), crop it, or choose another `block`."
        )
