"""Multi-head self-attention."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head self-attention over all tokens; the output projection has a bias.

    x ``(B, N, D)`` -> ``(B, N, D)``.

    Args:
        hidden_size: D, a multiple of ``num_heads``.
        num_heads: number of heads of width ``D / num_heads``; scores are scaled by the root of that width.
        qkv_bias: give queries, keys and values a bias, as DiT does; U-ViT (section 3) does not.
    """

    def __init__(self, *, hidden_size: int, num_heads: int, qkv_bias: bool = False) -> None:
        super().__init__()
        if num_heads < 1 or hidden_size % num_heads:
            raise ValueError(
                f"SelfAttention: hidden_size={hidden_size} does not divide into num_heads={num_heads} heads; "
                "choose num_heads among the divisors of hidden_size."
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=qkv_bias)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, D / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x (B, heads, N, D / heads)
        y = attend(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(-2))  # (B, N, D)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(d) + mask) v`` for q ``(B, heads, N, d)``, k ``(B, heads, M, d)``, v ``(B, heads, M, e)``.

    mask broadcasts to ``(B, heads, N, M)``: numbers are added to the scores, of booleans only the true ones attend.

    Fused, except in bfloat16 on a CPU: there the backward pass of the fused kernel costs several times that of two
    matrix products around a softmax.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT  # (B, heads, N, M)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
