"""Attention in shifted windows (Liu et al. 2021)."""

import torch
from torch import Tensor, nn

from .attention import attend
from .group_norm import GroupNorm

_SEPARATE = -100.0  # added to the score of two pixels that only the cyclic shift brought together


def fits_windows(size: int, window: int) -> bool:
    """Whether ``size`` pixels can be cut into windows: a single shrunken one, or a whole number of full ones."""
    return size <= window or size % window == 0


def to_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut ``(B, H, W, C)`` into windows ``(B * windows, h * w, C)``; windows and their pixels run row by row.

    Raises:
        ValueError: H or W is no multiple of the window's side.
    """
    (height, width), (h, w) = x.shape[1:3], window
    if height % h or width % w:
        raise ValueError(f"to_windows: a map of {height}x{width} does not divide into windows of {h}x{w}.")
    tiles = x.unflatten(2, (-1, w)).unflatten(1, (-1, h))  # (B, H / h, h, W / w, w, C)
    return tiles.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def from_windows(tokens: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Invert :func:`to_windows`: ``(B * windows, h * w, C)`` -> ``(B, H, W, C)``."""
    (height, width), (h, w) = size, window
    tiles = tokens.unflatten(1, (h, w)).unflatten(0, (-1, height // h, width // w))  # (B, H / h, W / w, h, w, C)
    return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned score per relative position and head.

    tokens ``(B * windows, h * w, C)`` -> same shape.

    Args:
        channels: C, a multiple of ``head_channels``.
        window: (h, w).
        head_channels: width of a head.
    """

    pair_index: Tensor

    def __init__(self, channels: int, *, window: tuple[int, int], head_channels: int) -> None:
        super().__init__()
        if channels % head_channels:
            raise ValueError(
                f"WindowAttention: channels={channels} do not divide into heads of head_channels={head_channels}."
            )
        self.head_channels = head_channels
        num_heads = channels // head_channels
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.position_scores = nn.Parameter(torch.empty(num_heads, (2 * window[0] - 1) * (2 * window[1] - 1)))
        nn.init.trunc_normal_(self.position_scores, std=0.02)
        self.register_buffer("pair_index", _relative_positions(window), persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; mask ``(windows, h * w, h * w)`` is added to the scores."""
        qkv = self.qkv(tokens).unflatten(-1, (3, -1, self.head_channels))  # (B * windows, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x (B * windows, heads, N, d)
        scores = self.position_scores.to(q.dtype)[:, self.pair_index][None]  # (1, heads, N, N)
        if mask is not None:
            images = len(tokens) // len(mask)
            scores = scores + mask[:, None].to(q.dtype)  # (windows, heads, N, N)
            scores = scores.expand(images, *scores.shape).flatten(0, 1)
        return self.proj(attend(q, k, v, scores).transpose(1, 2).flatten(2))


class SwinBlock(nn.Module):
    """Pre-norm block: ``x += attention(norm(x)); x += mlp(norm(x))``, with group normalization as in ResShift.

    x ``(B, H, W, C)`` -> same shape.

    Args:
        channels: C, a multiple of 32.
        size: (H, W).
        window: (h, w); divides size.
        shift: rows and columns by which the windows are moved.
        head_channels: width of a head.
    """

    mask: Tensor | None

    def __init__(
        self,
        channels: int,
        *,
        size: tuple[int, int],
        window: tuple[int, int],
        shift: tuple[int, int],
        head_channels: int,
    ) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1 = GroupNorm(channels)
        self.attention = WindowAttention(channels, window=window, head_channels=head_channels)
        self.norm2 = GroupNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.register_buffer("mask", _shift_mask(size, window, shift) if any(shift) else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = _normalized(self.norm1, x)
        if any(self.shift):
            h = h.roll((-self.shift[0], -self.shift[1]), dims=(1, 2))
        h = self.attention(to_windows(h, self.window), self.mask)  # (B * windows, h * w, C)
        h = from_windows(h, self.window, self.size)
        if any(self.shift):
            h = h.roll(self.shift, dims=(1, 2))
        x = x + h
        return x + self.mlp(_normalized(self.norm2, x))


class SwinLayer(nn.Module):
    """1x1 convolution to ``swin_channels``, ``depth`` Swin blocks, plain and shifted in turn, 1x1 convolution back.

    x ``(B, C, H, W)`` -> same shape. Along an axis no longer than the window, the window shrinks to the axis and is not
    shifted. As in ResShift, and unlike in the Swin Transformer, nothing leads around the layer unless ``residual``.

    Args:
        channels: C.
        size: (H, W); each side at most ``window`` or a multiple of it.
        window: side of a window.
        swin_channels: width inside, a multiple of 32 and of ``head_channels``.
        depth: number of blocks.
        head_channels: width of a head.
        residual: add x, and start the last convolution at zero (the layer starts as the identity).

    Raises:
        ValueError: a side does not fit the window, or a width its heads or groups.
    """

    def __init__(
        self,
        channels: int,
        *,
        size: tuple[int, int],
        window: int,
        swin_channels: int,
        depth: int = 2,
        head_channels: int = 32,
        residual: bool = False,
    ) -> None:
        super().__init__()
        for side in size:
            if not fits_windows(side, window):
                raise ValueError(
                    f"SwinLayer: size {size[0]}x{size[1]} cannot be cut into windows of {window}; "
                    f"allowed are sides up to {window} and multiples of {window}."
                )
        self.residual = residual
        fitted = (min(size[0], window), min(size[1], window))
        half = tuple(window // 2 if side > window else 0 for side in size)
        self.embed = nn.Linear(channels, swin_channels)
        self.blocks = nn.ModuleList(
            SwinBlock(
                swin_channels,
                size=size,
                window=fitted,
                shift=(half[0], half[1]) if index % 2 else (0, 0),
                head_channels=head_channels,
            )
            for index in range(depth)
        )
        self.unembed = nn.Linear(swin_channels, channels)
        if residual:
            nn.init.zeros_(self.unembed.weight)
            nn.init.zeros_(self.unembed.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.permute(0, 2, 3, 1))  # (B, H, W, swin_channels)
        for block in self.blocks:
            h = block(h)
        h = self.unembed(h).permute(0, 3, 1, 2)  # (B, C, H, W)
        return x + h if self.residual else h


def _normalized(norm: GroupNorm, x: Tensor) -> Tensor:
    """Group normalization of a map with its channels last, ``(B, H, W, C)``."""
    return norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _relative_positions(window: tuple[int, int]) -> Tensor:
    """Number of the displacement between two pixels of a window, ``(h * w, h * w)`` in 0..(2h-1)(2w-1)-1."""
    h, w = window
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    return (row[:, None] - row + h - 1) * (2 * w - 1) + column[:, None] - column + w - 1


def _shift_mask(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Scores ``(windows, h * w, h * w)`` that keep pixels apart which are neighbors only through the cyclic shift."""
    height, width = size
    wrapped_row, wrapped_column = torch.arange(height) >= height - shift[0], torch.arange(width) >= width - shift[1]
    region = 2 * wrapped_row[:, None] + wrapped_column  # (H, W), up to four regions
    labels = to_windows(region[None, ..., None], window)[..., 0]  # (windows, h * w)
    return torch.where(labels[:, :, None] == labels[:, None, :], 0.0, _SEPARATE)
