"""Attention in the wavelet domain: a low band and three high bands, each by itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...frequency.haar import haar_dwt2d, haar_idwt2d
from .band_attention import BandAttention


def split_bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """Haar bands of ``(B, C, H, W)``: low ``(B, h, w, C)`` and high ``(B, h, w, 3C)``, the latter LH, HL, HH.

    h and w are half of H and W, rounded up: of an odd side the last row or column is repeated.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate").to(x.dtype)  # CPU autocast pads in float32
    bands = haar_dwt2d(x).permute(0, 3, 4, 2, 1)  # (B, h, w, 4, C)
    return bands[..., 0, :], bands[..., 1:, :].flatten(-2)


def merge_bands(low: Tensor, high: Tensor, size: tuple[int, int]) -> Tensor:
    """Invert :func:`split_bands`, ``size`` being the (H, W) that was split."""
    bands = torch.cat([low, high], dim=-1).unflatten(-1, (4, -1)).permute(0, 4, 3, 1, 2)  # (B, C, 4, h, w)
    return haar_idwt2d(bands)[..., : size[0], : size[1]]


class BandwiseAttention(nn.Module):
    """Softmax attention on the low Haar band, differential attention on the three high bands together.

    x ``(B, C, H, W)`` -> same shape; odd sides are allowed. Each band attends to itself or to the same context tokens.
    With ``residual`` the bands are updated, and the module starts as the identity: as the transform is linear, the
    updates alone are transformed back, so that no rounding touches x. Without, they are replaced, as in DFBK's
    equations. A band that is switched off stays what it was.

    Args:
        channels: C, a multiple of 32 and of ``head_channels``.
        head_channels: see :class:`BandAttention`, as for ``context_channels``, ``lambda_init`` and ``head_norm``.
        low: attend on the low band.
        high: attend on the high bands.
        residual: see above.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_channels: int = 32,
        context_channels: int | None = None,
        low: bool = True,
        high: bool = True,
        lambda_init: float = 0.8,
        head_norm: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.low: BandAttention | None = None
        self.high: BandAttention | None = None
        if low:
            self.low = BandAttention(
                channels, head_channels=head_channels, context_channels=context_channels, project=residual
            )
        if high:
            self.high = BandAttention(
                3 * channels,
                head_channels=head_channels,
                context_channels=context_channels,
                lambda_init=lambda_init,
                head_norm=head_norm,
                project=residual,
            )

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        window: tuple[int, int] | None = None,
    ) -> Tensor:
        """Attend per band; context, mask and window (in band pixels) as in :class:`BandAttention`."""
        if self.low is None and self.high is None:
            return x
        low, high = split_bands(x)  # (B, h, w, C), (B, h, w, 3C)
        merged = merge_bands(
            self._changed(self.low, low, context, mask, window),
            self._changed(self.high, high, context, mask, window),
            (x.shape[2], x.shape[3]),
        )
        return x + merged if self.residual else merged

    def _changed(
        self,
        attention: BandAttention | None,
        band: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        window: tuple[int, int] | None,
    ) -> Tensor:
        """Update of a band, or what replaces it."""
        if attention is not None:
            return attention(band, context, mask, window)
        return torch.zeros_like(band) if self.residual else band
