"""Dynamic Frequency Balance: self-attention per wavelet band."""

from torch import Tensor, nn

from .band_attention import BandAttention
from .bandwise_attention import BandwiseAttention


class FrequencyBalance(nn.Module):
    """Self-attention on the low Haar band, differential self-attention on the high bands (DFBK, eqs. 5 to 8).

    x ``(B, C, H, W)`` -> same shape.

    Args:
        channels: C, a multiple of 32 and of ``head_channels``.
        head_channels: width of a head.
        low: attend on the low band; else it passes.
        high: attend on the high bands; else they pass.
        lambda_init: start of the differential weight.
        head_norm: see :class:`BandAttention`.
        residual: see :class:`BandwiseAttention`.
        window: (h, w) in band pixels to attend in; None: the whole band at once.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_channels: int = 32,
        low: bool = True,
        high: bool = True,
        lambda_init: float = 0.8,
        head_norm: bool = True,
        residual: bool = True,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.window = window
        self.bands = BandwiseAttention(
            channels,
            head_channels=head_channels,
            low=low,
            high=high,
            lambda_init=lambda_init,
            head_norm=head_norm,
            residual=residual,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.bands(x, window=self.window)


class PlainBalance(nn.Module):
    """Self-attention on the features themselves, without wavelets: "NormAttn" in DFBK's ablation.

    x ``(B, C, H, W)`` -> same shape.

    Args:
        channels: C, a multiple of 32 and of ``head_channels``.
        head_channels: width of a head.
        residual: add to x, starting at zero; else replace x.
        window: (h, w) to attend in; None: the whole map at once.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_channels: int = 32,
        residual: bool = True,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.window, self.residual = window, residual
        self.attention = BandAttention(channels, head_channels=head_channels, project=residual)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(x.permute(0, 2, 3, 1), window=self.window).permute(0, 3, 1, 2)
        return x + y if self.residual else y
