"""Encoding and decoding: exactness, the truncation law, and the folded form against the staged one."""

import pytest
import torch
from torch import Tensor

from common.frequency.codec import (
    crop,
    decode_folded,
    decode_tokens,
    encode_folded,
    encode_image,
    folded_inverse,
    folded_matrix,
    pad_to_tokens,
)
from common.frequency.dct import block_dct2d
from common.frequency.zigzag import zigzag


def _image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 255


@pytest.mark.parametrize("eta", [1.0, 502.5])
@pytest.mark.parametrize("shift", [0.0, 128.0])
@pytest.mark.parametrize("block", [2, 4, 8])
def test_decoding_without_truncation_restores_the_image(block: int, shift: float, eta: float) -> None:
    image = _image(3, 1, 32, 48)
    grid = (32 // (2 * block), 48 // (2 * block))
    tokens = encode_image(image, block=block, shift=shift, eta=eta)
    assert tokens.shape == (3, 1, grid[0] * grid[1], 4 * block**2)
    decoded = decode_tokens(tokens, grid=grid, block=block, shift=shift, eta=eta)
    torch.testing.assert_close(decoded, image, rtol=0, atol=1e-3)


def test_black_image_is_minus_block_times_shift_over_eta() -> None:
    tokens = encode_image(torch.zeros(8, 8), block=4, eta=512.0)
    expected = torch.zeros(1, 4, 16)
    expected[..., 0] = -1.0  # -128 * 4 / 512
    torch.testing.assert_close(tokens.view(1, 4, 16), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dropped", [1, 4, 15])
def test_squared_error_of_truncation_is_the_energy_cut_off(dropped: int) -> None:
    image = _image(2, 16, 24, dtype=torch.float64)
    tokens = encode_image(image, block=4, dropped=dropped, eta=300.0)
    decoded = decode_tokens(tokens, grid=(2, 3), block=4, eta=300.0)
    cut_off = zigzag(block_dct2d(image - 128, 4))[..., 16 - dropped :].square().sum((1, 2, 3))
    torch.testing.assert_close((decoded - image).square().sum((1, 2)), cut_off)


@pytest.mark.parametrize(("block", "dropped"), [(2, 0), (4, 0), (4, 4), (8, 46)])
def test_folded_encoder_equals_the_staged_one(block: int, dropped: int) -> None:
    image = _image(2, 3, 4 * block, 6 * block)
    staged = encode_image(image, block=block, dropped=dropped, eta=500.0)
    folded = encode_folded(image, folded_matrix(block, dropped, 500.0), 128.0)
    torch.testing.assert_close(folded, staged, rtol=0, atol=2e-6)  # of values up to 1


@pytest.mark.parametrize(("block", "dropped"), [(2, 0), (4, 0), (4, 4), (8, 46)])
def test_folded_decoder_equals_the_staged_one(block: int, dropped: int) -> None:
    kept = block**2 - dropped
    tokens = torch.randn(2, 5, 6, 4 * kept, generator=torch.Generator().manual_seed(1)) / 4
    staged = decode_tokens(tokens, grid=(2, 3), block=block, eta=500.0)
    folded = decode_folded(tokens, folded_inverse(block, dropped, 500.0), grid=(2, 3), shift=128.0)
    assert folded.shape == (2, 5, 4 * block, 6 * block)
    torch.testing.assert_close(folded, staged, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dropped", [0, 4, 15])
def test_folded_inverse_undoes_the_folded_matrix(dropped: int) -> None:
    product = folded_inverse(4, dropped, 77.0, dtype=torch.float64) @ folded_matrix(
        4, dropped, 77.0, dtype=torch.float64
    )
    torch.testing.assert_close(product, torch.eye(16 - dropped, dtype=torch.float64), rtol=0, atol=1e-12)


def test_folded_form_accepts_uint8_images_and_a_tensor_as_shift() -> None:
    image = _image(2, 16, 16).round()
    matrix = folded_matrix(4, 0, 500.0)
    from_bytes = encode_folded(image.to(torch.uint8), matrix, torch.tensor(128.0))
    torch.testing.assert_close(from_bytes, encode_folded(image, matrix, 128.0), rtol=0, atol=0)


def test_folded_form_stays_exact_under_autocast() -> None:
    image = _image(1, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = encode_folded(image, folded_matrix(4, 0, 500.0))
        decoded = decode_folded(tokens, folded_inverse(4, 0, 500.0), grid=(2, 2))
    assert tokens.dtype == decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, image, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("height", "width", "padded"), [(8, 8, (8, 8)), (9, 15, (16, 16)), (1, 24, (8, 24))])
def test_padding_adds_each_images_minimum_and_crop_removes_it(height: int, width: int, padded: tuple[int, int]) -> None:
    image = _image(2, 1, height, width) + torch.tensor([10.0, 20.0]).view(2, 1, 1, 1)
    larger = pad_to_tokens(image, 4)
    assert larger.shape[-2:] == padded
    torch.testing.assert_close(crop(larger, (height, width)), image, rtol=0, atol=0)
    border = torch.ones(padded, dtype=torch.bool)
    border[:height, :width] = False
    assert (larger[..., border] == image.amin((-2, -1))[..., None]).all()


def test_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="16x8 px holds no 12x12 px"):
        crop(torch.zeros(1, 16, 8), (12, 12))


def test_image_that_is_no_multiple_of_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encode_image: image of 12x8 px does not divide into tokens of 8x8 px"):
        encode_image(torch.zeros(12, 8), block=4, eta=1.0)
    with pytest.raises(ValueError, match=r"encode_folded: image of 8x12 px does not divide into tokens of 8x8 px"):
        encode_folded(torch.zeros(8, 12), folded_matrix(4, 0, 1.0))


def test_tokens_of_another_grid_or_truncation_are_refused() -> None:
    inverse = folded_inverse(4, 4, 1.0)
    with pytest.raises(ValueError, match=r"5 tokens of 48 features; a grid of 2x3"):
        decode_folded(torch.zeros(5, 48), inverse, grid=(2, 3))
    with pytest.raises(ValueError, match=r"6 tokens of 64 features.*need 6 tokens of 48"):
        decode_folded(torch.zeros(6, 64), inverse, grid=(2, 3))


def test_matrix_of_no_square_block_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 15 pixels"):
        encode_folded(torch.zeros(8, 8), torch.zeros(15, 15))
