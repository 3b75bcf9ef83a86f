"""Adaptive layer normalization and the block of a DiT, against their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from common.networks.blocks.adaptive_norm import Modulation, modulated_norm
from common.networks.blocks.dit_block import DiTBlock


def random_block() -> DiTBlock:
    torch.manual_seed(0)
    block = DiTBlock(hidden_size=12, num_heads=3, condition_size=20)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def normalized(x: Tensor) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def test_the_norm_is_scaled_and_shifted_per_image() -> None:
    torch.manual_seed(0)
    x, shift, scale = 5 * torch.randn(2, 4, 8) + 3, torch.randn(2, 1, 8), torch.randn(2, 1, 8)
    torch.testing.assert_close(modulated_norm(x, shift, scale), normalized(x) * (1 + scale) + shift)


def test_modulation_starts_at_zero_and_is_linear_in_silu() -> None:
    torch.manual_seed(0)
    layer, c = Modulation(6, 4, 3), torch.randn(2, 6)
    assert all(not part.any() for part in layer(c))
    nn.init.normal_(layer.linear.weight)
    nn.init.normal_(layer.linear.bias)
    expected = (c / (1 + (-c).exp())) @ layer.linear.weight.T + layer.linear.bias
    parts = layer(c)
    assert [part.shape for part in parts] == [(2, 1, 4)] * 3
    torch.testing.assert_close(torch.cat(parts, dim=-1)[:, 0], expected)


def test_modulation_keeps_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    layer, c = Modulation(64, 4, 1), torch.randn(2, 64)
    nn.init.normal_(layer.linear.weight)
    with torch.autocast("cpu", torch.bfloat16):
        (rounded,) = layer(c)
    assert torch.equal(rounded, layer(c)[0])


def test_a_block_follows_its_formula() -> None:
    """Attention by torch's own module; order of the six vectors: shift, scale, gate, twice."""
    block = random_block()
    x, c = torch.randn(2, 5, 12), torch.randn(2, 20)
    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    attention.load_state_dict(
        {
            "in_proj_weight": block.attention.qkv.weight,
            "in_proj_bias": block.attention.qkv.bias,
            "out_proj.weight": block.attention.proj.weight,
            "out_proj.bias": block.attention.proj.bias,
        }
    )
    modulation = block.modulation.linear(c * c.sigmoid())[:, None]  # (B, 1, 6 D)
    b1, g1, a1, b2, g2, a2 = (modulation[..., 12 * i : 12 * (i + 1)] for i in range(6))
    h = normalized(x) * (1 + g1) + b1
    y = x + a1 * attention(h, h, h, need_weights=False)[0]
    h = block.mlp.fc1(normalized(y) * (1 + g2) + b2)
    h = 0.5 * h * (1 + (math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)).tanh())
    y = y + a2 * block.mlp.fc2(h)
    torch.testing.assert_close(block(x, c), y)


def test_a_fresh_block_is_the_identity() -> None:
    torch.manual_seed(0)
    block = DiTBlock(hidden_size=12, num_heads=3, condition_size=20)
    x = torch.randn(2, 5, 12)
    assert torch.equal(block(x, torch.randn(2, 20)), x)


def test_under_autocast_features_stay_in_float32_and_products_are_rounded() -> None:
    block = random_block()
    x, c = torch.randn(2, 5, 12), torch.randn(2, 20)
    types: dict[str, torch.dtype] = {}
    for name in ("qkv", "proj"):
        layer = block.attention.get_submodule(name)
        layer.register_forward_hook(lambda _, __, output, name=name: types.update({name: output.dtype}))
    exact = block(x, c)
    assert types["qkv"] == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x, c)
    assert types == {"qkv": torch.bfloat16, "proj": torch.bfloat16}
    assert y.dtype == torch.float32
    assert 0 < (y - exact).norm() < 0.02 * exact.norm()


def test_indivisible_width_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size=12 does not divide into num_heads=5"):
        DiTBlock(hidden_size=12, num_heads=5, condition_size=4)
