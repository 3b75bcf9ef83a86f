"""Group normalization: its law, its derivatives, its memory format."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.blocks.group_norm import GroupNorm


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(*shape) + 2).to(dtype)


def test_every_group_has_zero_mean_and_unit_variance() -> None:
    y = GroupNorm(96)(image(2, 96, 5, 7)).unflatten(1, (32, 3)).flatten(2)  # (B, groups, pixels)
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, 32), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(2, 32), atol=1e-4, rtol=0)


def test_modulation_scales_and_shifts_the_normalized_channels() -> None:
    norm, x = GroupNorm(64), image(2, 64, 4, 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    scale, shift = torch.randn(2, 64), torch.randn(2, 64)
    plain = F.group_norm(x, 32, norm.weight, norm.bias)
    torch.testing.assert_close(norm(x), plain)
    expected = (1 + scale[..., None, None]) * plain + shift[..., None, None]
    torch.testing.assert_close(norm(x, scale, shift), expected)


@pytest.mark.parametrize("modulated", [False, True])
def test_gradients_are_those_of_finite_differences(modulated: bool) -> None:
    norm = GroupNorm(64).double()
    torch.nn.init.normal_(norm.weight)
    x = image(2, 64, 2, 3, dtype=torch.float64).requires_grad_()
    inputs = [x]
    if modulated:
        inputs += [torch.randn(2, 64, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(norm, inputs)
    assert torch.autograd.gradcheck(
        lambda weight, bias: torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x.detach(),)),
        [norm.weight, norm.bias],
    )


def test_bfloat16_input_is_normalized_in_float32() -> None:
    x = image(2, 64, 32, 32, dtype=torch.bfloat16) + 30  # a mean of many standard deviations cancels
    y = GroupNorm(64)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, F.group_norm(x.double(), 32).to(torch.bfloat16), atol=0, rtol=2**-7)


def test_channels_last_stays_channels_last() -> None:
    x = image(2, 64, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = GroupNorm(64)(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [0, 16, 48])
def test_channels_that_do_not_divide_into_groups_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"channels={channels} do not divide into 32 groups"):
        GroupNorm(channels)


@pytest.mark.parametrize("mean", [10.0, 1000.0])
def test_a_large_mean_does_not_cancel_the_variance(mean: float) -> None:
    """Against float64: the error is that of rounding the input, not of subtracting two large squares."""
    x = mean + 0.3 * torch.randn(2, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.group_norm(x.double(), 32, eps=1e-5)
    assert (GroupNorm(64)(x) - expected).abs().max() < 1e-6 * mean / 0.3 + 1e-5
