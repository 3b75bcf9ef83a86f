"""Transformer block of a DiT."""

from torch import Tensor, nn

from .adaptive_norm import Modulation, modulated_norm
from .attention import SelfAttention
from .moe_mlp import Mlp


class DiTBlock(nn.Module):
    """``x += a1 attention(norm(x, b1, g1)); x += a2 mlp(norm(x, b2, g2))``: adaLN-Zero (Peebles and Xie 2023, fig. 3).

    x ``(B, N, D)``, c ``(B, condition_size)`` -> x ``(B, N, D)``, in x's type under autocast. Shifts b, scales g and
    gates a are a linear map of ``silu(c)`` that starts at zero, so the block starts as the identity.

    Args:
        hidden_size: D.
        num_heads: attention heads, a divisor of D.
        condition_size: width of the condition.
        mlp_ratio: width of the feed-forward layer in units of D.
    """

    def __init__(self, *, hidden_size: int, num_heads: int, condition_size: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.attention = SelfAttention(hidden_size=hidden_size, num_heads=num_heads, qkv_bias=True)
        self.mlp = Mlp(hidden_size, mlp_ratio, gelu="tanh")
        self.modulation = Modulation(condition_size, hidden_size, 6)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)  # (B, 1, D) each
        x = x + gate1 * self.attention(modulated_norm(x, shift1, scale1))
        return x + gate2 * self.mlp(modulated_norm(x, shift2, scale2))
