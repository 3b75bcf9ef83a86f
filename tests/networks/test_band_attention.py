"""Differential attention against explicit maps, and its weight."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.blocks.attention import attend
from common.networks.blocks.band_attention import BandAttention, DifferentialWeight, differential_attention


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])).exp()
    return weights / weights.sum(-1, keepdim=True)


def vectors(*, queries: int = 5, keys: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q1, q2 = torch.randn(2, 2, 3, queries, 16).unbind(0)
    k1, k2 = torch.randn(2, 2, 3, keys, 16).unbind(0)
    return q1, k1, q2, k2, torch.randn(2, 3, keys, 32)


def scattered(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def test_two_fused_calls_are_the_difference_of_two_maps() -> None:
    q1, k1, q2, k2, v = vectors()
    expected = (attention_map(q1, k1) - 0.8 * attention_map(q2, k2)) @ v
    torch.testing.assert_close(differential_attention(q1, k1, q2, k2, v, 0.8), expected, atol=1e-6, rtol=1e-6)


def test_weight_zero_leaves_the_first_map() -> None:
    q1, k1, q2, k2, v = vectors()
    torch.testing.assert_close(differential_attention(q1, k1, q2, k2, v, 0.0), attend(q1, k1, v), atol=1e-6, rtol=0)


def test_equal_maps_leave_one_minus_the_weight() -> None:
    q, k, _, _, v = vectors()
    expected = 0.25 * attend(q, k, v)
    torch.testing.assert_close(differential_attention(q, k, q, k, v, 0.75), expected, atol=1e-6, rtol=0)
    cancelled = differential_attention(q, k, q, k, v, 1.0)
    torch.testing.assert_close(cancelled, torch.zeros_like(cancelled), atol=0, rtol=0)


def test_rows_of_the_difference_sum_to_one_minus_the_weight() -> None:
    q1, k1, q2, k2, v = vectors()
    y = differential_attention(q1, k1, q2, k2, torch.ones_like(v), 0.8)
    torch.testing.assert_close(y, torch.full_like(y, 0.2), atol=1e-6, rtol=0)


def test_weight_is_its_initial_value_where_the_dot_products_vanish() -> None:
    weight = DifferentialWeight(16, initial=0.8)
    nn.init.zeros_(weight.q1)
    nn.init.zeros_(weight.q2)
    assert weight().item() == pytest.approx(0.8, abs=1e-7)


def test_weight_is_the_difference_of_two_exponentials() -> None:
    weight = DifferentialWeight(2, initial=0.5)
    with torch.no_grad():
        for name, values in (("q1", (1, 2)), ("k1", (0.5, 0.25)), ("q2", (1, -1)), ("k2", (0.5, 1))):
            getattr(weight, name).copy_(torch.tensor(values))
    assert weight().item() == pytest.approx(math.exp(1.0) - math.exp(-0.5) + 0.5, rel=1e-6)


def test_weight_starts_near_its_initial_value() -> None:
    torch.manual_seed(0)
    starts = torch.stack([DifferentialWeight(16, initial=0.8)() for _ in range(400)])
    assert (starts - 0.8).abs().max() < 0.35
    assert abs(starts.mean() - 0.8) < 0.01  # variance 2 * 16 * 0.01 ** 2 of the difference of exponents
    assert starts.std().item() == pytest.approx(0.0566, rel=0.2)


def test_weight_is_float32_under_autocast_and_never_overflows() -> None:
    weight = DifferentialWeight(16, initial=0.8)
    with torch.autocast("cpu", torch.bfloat16):
        exact = weight()
    assert exact.dtype == torch.float32
    torch.testing.assert_close(exact, weight(), atol=0, rtol=0)
    nn.init.constant_(weight.q1, 100.0)
    nn.init.constant_(weight.k1, 100.0)
    assert torch.isfinite(weight())


@pytest.mark.parametrize("head_norm", [False, True])
def test_heads_split_queries_and_keys_in_halves_and_share_the_value(head_norm: bool) -> None:
    layer = scattered(BandAttention(64, lambda_init=0.8, head_norm=head_norm))
    x = torch.randn(2, 3, 4, 64)
    tokens = F.group_norm(x.movedim(-1, 1), 32, layer.norm.weight, layer.norm.bias).flatten(2).mT  # (B, N, C)
    q = tokens @ layer.query.weight.T + layer.query.bias
    k, v = (tokens @ layer.key_value.weight.T + layer.key_value.bias).chunk(2, -1)
    heads = []
    for head in range(2):
        first, second = (slice(32 * head + 16 * half, 32 * head + 16 * half + 16) for half in range(2))
        maps = [attention_map(q[:, None, :, part], k[:, None, :, part])[:, 0] for part in (first, second)]
        y = (maps[0] - layer.weight() * maps[1]) @ v[..., 32 * head : 32 * head + 32]
        if head_norm:
            y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.head_scale * (1 - 0.8)
        heads.append(y)
    expected = torch.cat(heads, -1) @ layer.output.weight.T + layer.output.bias
    torch.testing.assert_close(layer(x).flatten(1, 2), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lambda_init", [None, 0.8], ids=["softmax", "differential"])
def test_attention_has_no_notion_of_place(lambda_init: float | None) -> None:
    layer = scattered(BandAttention(32, lambda_init=lambda_init))
    x, order = torch.randn(2, 3, 4, 32), torch.randperm(12)

    def shuffled(image: Tensor) -> Tensor:
        return image.flatten(1, 2)[:, order].unflatten(1, (3, 4))

    torch.testing.assert_close(layer(shuffled(x)), shuffled(layer(x)), atol=1e-5, rtol=1e-4)


def test_window_of_the_whole_map_is_global_attention() -> None:
    layer, x = scattered(BandAttention(32)), torch.randn(2, 4, 6, 32)
    torch.testing.assert_close(layer(x, window=(4, 6)), layer(x), atol=0, rtol=0)


def test_windows_do_not_see_each_other() -> None:
    layer, x = scattered(BandAttention(32)), torch.randn(2, 4, 6, 32)
    layer.norm = nn.Identity()
    for columns in (slice(0, 3), slice(3, 6)):
        alone = layer(x[:, :, columns])
        torch.testing.assert_close(layer(x, window=(4, 3))[:, :, columns], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("channels", "head_channels"), [(96, 64), (96, 3)])
def test_widths_that_do_not_divide_are_refused(channels: int, head_channels: int) -> None:
    with pytest.raises(ValueError, match=f"channels={channels} do not divide into heads .* head_channels"):
        BandAttention(channels, head_channels=head_channels)
