"""The zigzag order against the JPEG tables, and truncation."""

import pytest
import torch

from common.frequency.zigzag import inverse_zigzag, inverse_zigzag_order, num_kept, zigzag, zigzag_order

JPEG_8 = """
 0  1  8 16  9  2  3 10 17 24 32 25 18 11  4  5 12 19 26 33 40 48 41 34 27 20 13  6  7 14 21 28
35 42 49 56 57 50 43 36 29 22 15 23 30 37 44 51 58 59 52 45 38 31 39 46 53 60 61 54 47 55 62 63
"""


@pytest.mark.parametrize(
    ("block", "table"),
    [(1, "0"), (2, "0 1 2 3"), (4, "0 1 4 8 5 2 3 6 9 12 13 10 7 11 14 15"), (8, JPEG_8)],
)
def test_order_is_the_jpeg_table(block: int, table: str) -> None:
    assert zigzag_order(block).tolist() == [int(entry) for entry in table.split()]


def test_inverse_order_of_size_four_is_the_published_table() -> None:
    assert inverse_zigzag_order(4).tolist() == [0, 1, 5, 6, 2, 4, 7, 12, 3, 8, 11, 13, 9, 10, 14, 15]


@pytest.mark.parametrize("block", [2, 3, 4, 5, 8, 16])
def test_total_frequency_never_falls_along_the_order(block: int) -> None:
    order = zigzag_order(block)
    assert order.sort().values.tolist() == list(range(block**2))
    assert ((order // block + order % block).diff() >= 0).all()


@pytest.mark.parametrize("block", [2, 3, 4, 5, 8, 16])
def test_inverse_order_undoes_the_order(block: int) -> None:
    assert zigzag_order(block)[inverse_zigzag_order(block)].tolist() == list(range(block**2))


@pytest.mark.parametrize("dropped", [0, 1, 4, 15])
def test_truncation_keeps_the_first_coefficients_and_fills_the_rest_with_zeros(dropped: int) -> None:
    blocks = torch.arange(1.0, 33.0).view(2, 4, 4)
    values = zigzag(blocks, dropped)
    torch.testing.assert_close(values, zigzag(blocks)[:, : 16 - dropped], rtol=0, atol=0)
    restored = inverse_zigzag(values, 4)
    kept = inverse_zigzag_order(4).view(4, 4) < 16 - dropped
    torch.testing.assert_close(restored, blocks * kept, rtol=0, atol=0)


@pytest.mark.parametrize("dropped", [-1, 16, 17])
def test_dropping_more_than_all_but_the_first_is_refused(dropped: int) -> None:
    with pytest.raises(ValueError, match=r"choose `dropped` in 0\.\.15"):
        num_kept(4, dropped)
    with pytest.raises(ValueError, match=r"choose `dropped` in 0\.\.15"):
        zigzag(torch.zeros(4, 4), dropped)


@pytest.mark.parametrize("kept", [0, 17])
def test_values_that_do_not_fit_a_block_are_refused(kept: int) -> None:
    with pytest.raises(ValueError, match=f"{kept} values do not fit a 4x4 block"):
        inverse_zigzag(torch.zeros(kept), 4)
