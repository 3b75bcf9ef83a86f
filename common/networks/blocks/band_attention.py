"""Softmax and differential attention on a map of features, such as a wavelet band."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend
from .group_norm import GroupNorm
from .swin import from_windows, to_windows

_LIMIT = 10.0  # of the exponents of lambda


def differential_attention(
    q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, v: Tensor, weight: Tensor | float, mask: Tensor | None = None
) -> Tensor:
    """``(softmax(q1 k1^T / sqrt(d)) - weight softmax(q2 k2^T / sqrt(d))) v`` in float32 (DFBK, eq. 6).

    q1, q2 ``(B, heads, N, d)``, k1, k2 ``(B, heads, M, d)``, v ``(B, heads, M, e)``, mask as in :func:`attend` ->
    ``(B, heads, N, e)``. The difference is linear in the two maps, so that neither of them need be stored.
    """
    return attend(q1, k1, v, mask).float() - weight * attend(q2, k2, v, mask).float()


class DifferentialWeight(nn.Module):
    """``lambda = exp(q1 . k1) - exp(q2 . k2) + initial`` of four learned vectors (DFBK, eq. 7), a float32 scalar.

    Kept in float32 under autocast; the dot products are held within +-10, beyond which their exponentials run away.

    Args:
        dim: length of the vectors, the width of a query.
        initial: lambda where the dot products vanish; they start near zero, with components from N(0, 0.1).
    """

    def __init__(self, dim: int, *, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.q1, self.k1, self.q2, self.k2 = (nn.Parameter(0.1 * torch.randn(dim)) for _ in range(4))

    def forward(self) -> Tensor:
        first = (self.q1.float() * self.k1.float()).sum().clamp(-_LIMIT, _LIMIT)
        second = (self.q2.float() * self.k2.float()).sum().clamp(-_LIMIT, _LIMIT)
        return first.exp() - second.exp() + self.initial


class BandAttention(nn.Module):
    """Attention of one band to itself or to context tokens: pre-norm, multi-head, softmax or differential.

    x ``(B, H, W, C)`` -> the update of x, same shape. Queries come from the normalized band, keys and values as well,
    or from ``context (B or 1, M, context_channels)``.

    In the differential form, the first half of each head's query and key makes the map that counts positively, the
    second half the one that is subtracted, and both weight the head's one value. That layout, and ``head_norm``, are
    those of the Differential Transformer (Ye et al. 2024).

    Args:
        channels: C, a multiple of 32 and of ``head_channels``.
        head_channels: width of a head, even.
        context_channels: width of the context tokens; None for self-attention.
        lambda_init: start of the differential weight; None for softmax attention.
        head_norm: of differential attention: bring each head to unit root mean square, then scale it by a learned
            vector and ``1 - lambda_init``. Without, little is left of two maps that nearly cancel.
        project: end in a linear layer that starts at zero, as an update that is added to x should; without it, the
            heads as they are, as DFBK's equations have it.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_channels: int = 32,
        context_channels: int | None = None,
        lambda_init: float | None = None,
        head_norm: bool = True,
        project: bool = True,
    ) -> None:
        super().__init__()
        if head_channels % 2 or channels % head_channels:
            raise ValueError(
                f"BandAttention: channels={channels} do not divide into heads of an even width "
                f"head_channels={head_channels}."
            )
        self.head_channels = head_channels
        self.norm = GroupNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context_channels or channels, 2 * channels)
        self.weight: DifferentialWeight | None = None
        self.head_scale: nn.Parameter | None = None
        if lambda_init is not None:
            self.weight = DifferentialWeight(head_channels // 2, initial=lambda_init)
            self.head_scale = nn.Parameter(torch.ones(head_channels)) if head_norm else None
        self.output: nn.Linear | None = None
        if project:
            self.output = nn.Linear(channels, channels)
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        window: tuple[int, int] | None = None,
    ) -> Tensor:
        """Update of x; mask ``(B or 1, M)`` is true where a context token counts, window (h, w) confines attention."""
        size = (x.shape[1], x.shape[2])
        h = self.norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        tokens = to_windows(h, window or size)  # (B * windows, N, C)
        q = self.query(tokens).unflatten(-1, (-1, self.head_channels)).transpose(1, 2)  # (B * windows, heads, N, d)
        k_and_v = self.key_value(tokens if context is None else context).unflatten(-1, (2, -1, self.head_channels))
        k, v = k_and_v.permute(2, 0, 3, 1, 4).expand(-1, len(q), -1, -1, -1).unbind(0)  # 2 x (.., heads, M, d)
        y = self._attend(q, k, v, None if mask is None else mask[:, None, None]).to(x.dtype)
        y = from_windows(y.transpose(1, 2).flatten(2), window or size, size)  # (B, H, W, C)
        return y if self.output is None else self.output(y)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if self.weight is None:
            return attend(q, k, v, mask)
        (q1, q2), (k1, k2) = q.chunk(2, dim=-1), k.chunk(2, dim=-1)
        y = differential_attention(q1, k1, q2, k2, v, self.weight(), mask)
        if self.head_scale is None:
            return y
        return F.rms_norm(y, (self.head_channels,), self.head_scale, eps=1e-5) * (1 - self.weight.initial)
