"""The block DCT against SciPy, closed forms and its own symmetries."""

import pytest
import torch
from scipy.fft import dctn

from common.frequency.dct import block_dct2d, block_idct2d, dct_matrix


@pytest.mark.parametrize("n", [1, 2, 4, 5, 8, 16])
def test_rows_of_the_matrix_are_orthonormal(n: int) -> None:
    matrix = dct_matrix(n, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-12)


def test_matrix_of_size_four_has_the_published_entries() -> None:
    a, b = 0.653281, 0.270598
    expected = torch.tensor([[0.5, 0.5, 0.5, 0.5], [a, b, -b, -a], [0.5, -0.5, -0.5, 0.5], [b, -a, a, -b]])
    torch.testing.assert_close(dct_matrix(4), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [2, 3, 4, 8])
def test_every_block_equals_scipys_orthonormal_dctn(block: int) -> None:
    image = torch.randn(2, 3 * block, 2 * block, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coefficients = block_dct2d(image, block)
    assert coefficients.shape == (2, 3, 2, block, block)
    for n, row, column in [(0, 0, 0), (0, 2, 1), (1, 1, 0)]:
        tile = image[n, row * block : (row + 1) * block, column * block : (column + 1) * block]
        expected = torch.from_numpy(dctn(tile.numpy(), norm="ortho"))
        torch.testing.assert_close(coefficients[n, row, column], expected, rtol=0, atol=1e-12)


def test_energy_of_every_block_is_preserved() -> None:
    image = torch.randn(8, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    energy = image.square().unflatten(1, (3, 4)).unflatten(0, (2, 4)).sum((1, 3))  # (2, 3)
    torch.testing.assert_close(block_dct2d(image, 4).square().sum((-2, -1)), energy)


@pytest.mark.parametrize("block", [2, 4, 8])
def test_inverse_restores_the_image(block: int) -> None:
    image = torch.randn(3, 1, 16, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(block_idct2d(block_dct2d(image, block)), image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 128.0, 255.0])
def test_constant_block_has_only_a_first_coefficient(value: float) -> None:
    coefficients = block_dct2d(torch.full((4, 4), value, dtype=torch.float64) - 128, 4)[0, 0]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0, 0] = 4 * (value - 128)
    torch.testing.assert_close(coefficients, expected, rtol=0, atol=1e-12)


def test_ramp_has_the_closed_form_coefficients() -> None:
    """The ramp 0..15 is a sum of a row and a column ramp: only first row and first column, odd frequencies."""
    coefficients = block_dct2d(torch.arange(16.0, dtype=torch.float64).view(4, 4), 4)[0, 0]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0, 0], expected[0, 1], expected[0, 3] = 30, -4.460885, -0.317025
    expected[1, 0], expected[3, 0] = -17.84354, -1.268101
    torch.testing.assert_close(coefficients, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(10, 8), (8, 9)])
def test_image_that_is_no_multiple_of_the_block_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{height}x{width} px does not divide into 4x4 blocks; pad it"):
        block_dct2d(torch.zeros(height, width), 4)


def test_integer_image_is_refused_instead_of_rounded() -> None:
    with pytest.raises(TypeError, match=r"torch\.uint8; convert it to floating point"):
        block_dct2d(torch.zeros(8, 8, dtype=torch.uint8), 4)


def test_coefficients_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="got shape"):
        block_idct2d(torch.zeros(2, 2, 4, 3))
