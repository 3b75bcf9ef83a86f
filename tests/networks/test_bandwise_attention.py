"""Splitting features into wavelet bands and back, and attention in between."""

import pytest
import torch

from common.networks.blocks.bandwise_attention import BandwiseAttention, merge_bands, split_bands


def test_bands_are_those_of_the_cell() -> None:
    x = torch.zeros(1, 2, 2, 2)
    x[0, 1] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    low, high = split_bands(x)
    assert low[0, 0, 0].tolist() == [0, 5]
    assert high[0, 0, 0].tolist() == [0, -2, 0, -1, 0, 0]  # LH, HL, HH of two channels each


@pytest.mark.parametrize("size", [(8, 6), (13, 15), (1, 1)])
def test_merged_bands_are_the_features_for_odd_sides_too(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    low, high = split_bands(x)
    assert low.shape == (2, (size[0] + 1) // 2, (size[1] + 1) // 2, 3)
    torch.testing.assert_close(merge_bands(low, high, size), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("low", "high"), [(True, True), (True, False), (False, True), (False, False)])
def test_update_starts_as_the_identity_in_any_precision(low: bool, high: bool, dtype: torch.dtype) -> None:
    module, x = BandwiseAttention(32, low=low, high=high), torch.randn(2, 32, 7, 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        torch.testing.assert_close(module(x), x, atol=0, rtol=0)


def test_replacement_does_not_start_as_the_identity() -> None:
    module, x = BandwiseAttention(32, residual=False), torch.randn(2, 32, 8, 8)
    assert (module(x) - x).norm() > 0.5 * x.norm()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("kept", ["low", "high"])
def test_band_that_is_switched_off_passes(kept: str, residual: bool) -> None:
    torch.manual_seed(0)
    module = BandwiseAttention(32, low=kept != "low", high=kept != "high", residual=residual)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 32, 8, 8)
    before, after = dict(zip(("low", "high"), split_bands(x), strict=True)), {}
    after["low"], after["high"] = split_bands(module(x))
    changed = {"low": "high", "high": "low"}[kept]
    torch.testing.assert_close(after[kept], before[kept], atol=1e-5, rtol=0)
    assert (after[changed] - before[changed]).norm() > 0.1 * before[changed].norm()
