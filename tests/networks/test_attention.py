"""Self-attention against its formula, written out head by head."""

import math

import pytest
import torch
from torch import Tensor

from common.networks.blocks.attention import SelfAttention, attend


def attention_by_head(layer: SelfAttention, x: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` with explicit sums and no fused kernel."""
    q, k, v = (x @ layer.qkv.weight.T).chunk(3, dim=-1)  # (B, N, D) each
    width = x.shape[-1] // layer.num_heads
    heads = []
    for h in range(layer.num_heads):
        columns = slice(h * width, (h + 1) * width)
        scores = torch.einsum("bid,bjd->bij", q[..., columns], k[..., columns]) / math.sqrt(width)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(torch.einsum("bij,bjd->bid", weights, v[..., columns]))
    return torch.cat(heads, dim=-1) @ layer.proj.weight.T + layer.proj.bias


@pytest.mark.parametrize("num_heads", [1, 3])
def test_attention_is_a_softmax_weighted_mean_of_values(num_heads: int) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(hidden_size=12, num_heads=num_heads)
    x = 3 * torch.randn(2, 5, 12)
    torch.testing.assert_close(layer(x), attention_by_head(layer, x))


def test_cpu_path_in_bfloat16_agrees_with_float32_in_values_and_gradients() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(hidden_size=32, num_heads=4)
    x = torch.randn(2, 7, 32)
    exact = layer(x)
    exact.square().sum().backward()
    gradient = layer.qkv.weight.grad.clone()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
    rounded.float().square().sum().backward()
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.02 * exact.norm()
    assert (layer.qkv.weight.grad - gradient).norm() < 0.03 * gradient.norm()


def test_attention_has_no_notion_of_order() -> None:
    torch.manual_seed(0)
    layer, x, order = SelfAttention(hidden_size=16, num_heads=2), torch.randn(2, 6, 16), torch.randperm(6)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_indivisible_width_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size=96 does not divide into num_heads=7"):
        SelfAttention(hidden_size=96, num_heads=7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fused", "matrix_products"])
@pytest.mark.parametrize("kind", ["added", "boolean"])
def test_mask_acts_on_the_scores(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 16), torch.randn(2, 3, 5, 16), torch.randn(2, 3, 5, 8)  # v of a width of its own
    keep = torch.tensor([[True, False, True, True, False], [True, True, True, False, True]])[:, None, None]
    added = torch.randn(3, 4, 5)
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / 4
    if kind == "added":
        weights, mask = (scores + added).exp(), added.to(dtype)
    else:
        weights, mask = scores.exp() * keep, keep
    expected = (weights / weights.sum(-1, keepdim=True)) @ v
    y = attend(q.to(dtype), k.to(dtype), v.to(dtype), mask)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, **({} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}))
