"""Token layout, and image symmetries carried out on tokens."""

import pytest
import torch
from torch import Tensor

from common.frequency.codec import encode_image
from common.frequency.tokens import blocks_to_tokens, flip_tokens, tokens_to_blocks, transpose_tokens

GRID = (3, 2)


def _image(block: int) -> Tensor:
    generator = torch.Generator().manual_seed(block)
    return torch.rand(2, 2 * block * GRID[0], 2 * block * GRID[1], generator=generator, dtype=torch.float64) * 255


def _encode(image: Tensor, block: int, dropped: int) -> Tensor:
    return encode_image(image, block=block, dropped=dropped, eta=500.0)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 0), (4, 3), (5, 2)])
@pytest.mark.parametrize("dropped", [0, 4])
def test_a_pixel_block_lives_in_one_token_and_one_run_of_features(row: int, column: int, dropped: int) -> None:
    image = torch.zeros(24, 16)
    image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = torch.rand(
        4, 4, generator=torch.Generator().manual_seed(0)
    )
    tokens = encode_image(image, block=4, dropped=dropped, shift=0.0, eta=1.0)
    kept = 16 - dropped
    expected = torch.zeros_like(tokens, dtype=torch.bool)
    start = (2 * (row % 2) + column % 2) * kept
    expected[row // 2 * GRID[1] + column // 2, start : start + kept] = True
    assert ((tokens != 0) == expected).all()


def test_features_run_from_low_to_high_within_a_block() -> None:
    blocks = torch.arange(6 * 4 * 3).view(6, 4, 3)
    tokens = blocks_to_tokens(blocks)
    assert tokens.shape == (6, 12)
    expected = torch.cat([blocks[2, 2], blocks[2, 3], blocks[3, 2], blocks[3, 3]])  # second token row, second column
    assert tokens[3].tolist() == expected.tolist()


def test_tokens_to_blocks_undoes_blocks_to_tokens() -> None:
    blocks = torch.randn(5, 6, 4, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tokens_to_blocks(blocks_to_tokens(blocks), GRID), blocks, rtol=0, atol=0)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize(("block", "dropped"), [(2, 0), (4, 0), (4, 5), (8, 46)])
def test_flip_on_tokens_is_the_flip_of_the_image(block: int, dropped: int, axis: int) -> None:
    image = _image(block)
    flipped = flip_tokens(_encode(image, block, dropped), GRID, block, axis)
    torch.testing.assert_close(flipped, _encode(image.flip(axis), block, dropped))


@pytest.mark.parametrize(("block", "dropped"), [(2, 0), (4, 0), (4, 6), (8, 28)])
def test_transpose_on_tokens_is_the_transpose_of_the_image(block: int, dropped: int) -> None:
    image = _image(block)
    transposed = transpose_tokens(_encode(image, block, dropped), GRID, block)
    torch.testing.assert_close(transposed, _encode(image.mT, block, dropped))


def test_transpose_is_refused_when_the_truncation_is_not_symmetric() -> None:
    tokens = _encode(_image(4), 4, 4)
    with pytest.raises(ValueError, match="keep whole anti-diagonals"):
        transpose_tokens(tokens, GRID, 4)


def test_flip_along_another_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="axis=0; choose -1"):
        flip_tokens(torch.zeros(6, 64), GRID, 4, 0)


def test_odd_number_of_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="3x4 blocks cannot be grouped 2x2"):
        blocks_to_tokens(torch.zeros(3, 4, 16))


@pytest.mark.parametrize("shape", [(5, 64), (6, 63)])
def test_tokens_that_do_not_fit_the_grid_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"a grid of 3x2 needs 6 tokens of 4K features"):
        tokens_to_blocks(torch.zeros(shape), GRID)
