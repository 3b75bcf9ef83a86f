"""Dynamic Frequency Balance: DFBK's equations, and the path of the gradient."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.frequency.haar import haar_dwt2d, haar_idwt2d
from common.networks.blocks.frequency_balance import FrequencyBalance, PlainBalance


def heads(tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (-1, 32)).transpose(1, 2)  # (B, N, C) -> (B, heads, N, 32)


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)


def projected(layer: nn.Module, band: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V of a band ``(B, C, h, w)``, per head."""
    tokens = F.group_norm(band, 32, layer.norm.weight, layer.norm.bias).flatten(2).mT
    key, value = layer.key_value(tokens).chunk(2, -1)
    return heads(layer.query(tokens)), heads(key), heads(value)


def as_image(y: Tensor, size: tuple[int, int]) -> Tensor:
    return y.transpose(1, 2).flatten(2).mT.unflatten(-1, size)  # (B, heads, N, 32) -> (B, C, h, w)


def test_letter_of_the_equations() -> None:
    torch.manual_seed(0)
    module, x = FrequencyBalance(32, residual=False, head_norm=False), torch.randn(2, 32, 8, 6)
    ll, lh, hl, hh = haar_dwt2d(x).unbind(2)
    q, k, v = projected(module.bands.low, ll)
    low = as_image(attention_map(q, k) @ v, (4, 3))
    q, k, v = projected(module.bands.high, torch.cat([lh, hl, hh], 1))
    weight = module.bands.high.weight()
    difference = attention_map(q[..., :16], k[..., :16]) - weight * attention_map(q[..., 16:], k[..., 16:])
    high = as_image(difference @ v, (4, 3))
    expected = haar_idwt2d(torch.stack([low, *high.chunk(3, 1)], 2))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("module", [FrequencyBalance(32), PlainBalance(32)], ids=["dfb", "norm_attn"])
def test_gradient_reaches_the_outputs_first_and_everything_after_one_step(module: nn.Module) -> None:
    torch.manual_seed(0)
    x, target = torch.randn(2, 32, 8, 8), torch.randn(2, 32, 8, 8)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)

    def moved() -> set[str]:
        optimizer.zero_grad()
        F.mse_loss(module(x), target).backward()
        assert all(parameter.grad is not None for parameter in module.parameters())  # what DDP needs
        return {name for name, parameter in module.named_parameters() if parameter.grad.abs().max() > 0}

    outputs = {name for name, _ in module.named_parameters() if ".output." in name}
    assert moved() == outputs
    optimizer.step()
    # a key's bias adds the same to all scores of a query, so its gradient is rounding at most
    assert moved() | {name for name in dict(module.named_parameters()) if "key_value.bias" in name} == set(
        dict(module.named_parameters())
    )


@pytest.mark.parametrize(("cls", "window"), [(FrequencyBalance, (4, 3)), (PlainBalance, (8, 6))])
def test_window_of_the_whole_grid_is_global_attention(cls: type[nn.Module], window: tuple[int, int]) -> None:
    torch.manual_seed(0)
    everywhere, x = cls(32, residual=False), torch.randn(2, 32, 8, 6)
    windowed = cls(32, residual=False, window=window)
    windowed.load_state_dict(everywhere.state_dict())
    torch.testing.assert_close(windowed(x), everywhere(x), atol=0, rtol=0)


def test_windows_change_the_result_where_they_are_smaller() -> None:
    torch.manual_seed(0)
    everywhere, x = FrequencyBalance(32, residual=False), torch.randn(2, 32, 8, 8)
    windowed = FrequencyBalance(32, residual=False, window=(2, 2))
    windowed.load_state_dict(everywhere.state_dict())
    assert (windowed(x) - everywhere(x)).abs().max() > 1e-2


def test_plain_balance_starts_as_the_identity_unless_it_replaces() -> None:
    x = torch.randn(2, 32, 5, 6)
    torch.testing.assert_close(PlainBalance(32)(x), x, atol=0, rtol=0)
    assert (PlainBalance(32, residual=False)(x) - x).norm() > 0.5 * x.norm()


def test_every_band_costs_its_share_of_parameters() -> None:
    def count(**switches: bool) -> int:
        return sum(p.numel() for p in FrequencyBalance(64, **switches).parameters())

    low, high = 4 * 64 * 64 + 6 * 64, 4 * 192 * 192 + 6 * 192 + 4 * 16 + 32
    assert count() == low + high
    assert count(high=False) == low
    assert count(low=False) == high
    assert count(low=False, high=False) == 0
