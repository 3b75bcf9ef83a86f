"""Convolutional residual block, modulated by the diffusion time."""

from torch import Tensor, nn
from torch.nn import functional as F

from .group_norm import GroupNorm


class ResidualBlock(nn.Module):
    """``x + conv(silu(modulated_norm(conv(silu(norm(x))))))``, the modulation being linear in ``silu(embedding)``.

    x ``(B, in_channels, H, W)``, embedding ``(B, time_channels)`` -> ``(B, out_channels, H, W)``. The second
    convolution starts at zero, so the block starts as its shortcut: identity, or a 1x1 convolution where the number of
    channels changes. Source: the residual block of improved DDPM (Nichol and Dhariwal 2021) with scale-shift
    normalization, as ResShift uses it.

    Args:
        in_channels: channels of x, a multiple of 32.
        out_channels: channels of the result, a multiple of 32.
        time_channels: width of the time embedding.
    """

    def __init__(self, in_channels: int, out_channels: int, *, time_channels: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(time_channels, 2 * out_channels)
        self.norm2 = GroupNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (B, out_channels, H, W)
        scale, shift = self.modulation(F.silu(embedding)).chunk(2, dim=-1)  # (B, out_channels) each
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h, scale, shift)))
