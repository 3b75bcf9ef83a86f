"""The Haar transform against PyWavelets and its laws."""

import pytest
import pywt
import torch

from common.frequency.haar import haar_dwt2d, haar_idwt2d


def test_bands_equal_pywavelets_in_order_and_sign() -> None:
    x = torch.randn(6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    approximation, details = pywt.dwt2(x.numpy(), "haar")
    for band, expected in zip(haar_dwt2d(x), (approximation, *details), strict=True):
        torch.testing.assert_close(band, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 2), (3, 8, 6), (2, 3, 4, 10)])
def test_inverse_restores_and_energy_is_preserved(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bands = haar_dwt2d(x)
    assert bands.shape == (*shape[:-2], 4, shape[-2] // 2, shape[-1] // 2)
    torch.testing.assert_close(haar_idwt2d(bands), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())


@pytest.mark.parametrize(
    ("cell", "band"),
    [([[1, 1], [1, 1]], 0), ([[1, 1], [-1, -1]], 1), ([[1, -1], [1, -1]], 2), ([[1, -1], [-1, 1]], 3)],
    ids=["LL-mean", "LH-rows", "HL-columns", "HH-diagonal"],
)
def test_each_pattern_lands_in_one_band_with_twice_its_amplitude(cell: list[list[int]], band: int) -> None:
    bands = haar_dwt2d(torch.tensor(cell, dtype=torch.float64))
    expected = torch.zeros(4, 1, 1, dtype=torch.float64)
    expected[band] = 2
    torch.testing.assert_close(bands, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(5, 4), (4, 7)])
def test_odd_size_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is odd; replicate"):
        haar_dwt2d(torch.zeros(shape))


def test_wrong_number_of_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="expected bands"):
        haar_idwt2d(torch.zeros(3, 4, 4))
