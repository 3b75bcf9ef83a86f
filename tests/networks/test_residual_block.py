"""Residual block against its formula."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.blocks.residual_block import ResidualBlock


def inputs(channels: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, channels, 6, 4), torch.randn(2, 16)


def test_block_of_equal_widths_starts_as_the_identity() -> None:
    x, embedding = inputs(32)
    torch.testing.assert_close(ResidualBlock(32, 32, time_channels=16)(x, embedding), x, atol=0, rtol=0)


def test_block_of_unequal_widths_starts_as_a_mixture_of_channels() -> None:
    x, embedding = inputs(32)
    block = ResidualBlock(32, 64, time_channels=16)
    mixed = torch.einsum("oi,bihw->bohw", block.shortcut.weight[..., 0, 0], x) + block.shortcut.bias[:, None, None]
    torch.testing.assert_close(block(x, embedding), mixed)


def test_block_is_its_formula() -> None:
    x, embedding = inputs(64)
    block = ResidualBlock(64, 64, time_channels=16)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    h = F.silu(F.group_norm(x, 32, block.norm1.weight, block.norm1.bias))
    h = F.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)
    modulation = F.silu(embedding) @ block.modulation.weight.T + block.modulation.bias
    scale, shift = modulation[:, :64, None, None], modulation[:, 64:, None, None]
    h = (1 + scale) * F.group_norm(h, 32, block.norm2.weight, block.norm2.bias) + shift
    expected = x + F.conv2d(F.silu(h), block.conv2.weight, block.conv2.bias, padding=1)
    torch.testing.assert_close(block(x, embedding), expected)


@pytest.mark.parametrize(("width_in", "width_out"), [(48, 32), (32, 48)])
def test_widths_that_do_not_divide_into_groups_are_refused(width_in: int, width_out: int) -> None:
    with pytest.raises(ValueError, match="channels=48 do not divide into 32 groups"):
        ResidualBlock(width_in, width_out, time_channels=16)
