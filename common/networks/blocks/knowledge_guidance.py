"""Knowledge Guidance: cross-attention from wavelet bands to text."""

from torch import Tensor, nn

from .band_attention import BandAttention
from .bandwise_attention import BandwiseAttention


class KnowledgeGuidance(nn.Module):
    """Cross-attention to text of the low Haar band, differential cross-attention of the high bands (DFBK).

    x ``(B, C, H, W)``, text ``(B or 1, L, text_channels)``, mask ``(B or 1, L)``, true at real tokens and false at
    padding -> ``(B, C, H, W)``.

    Text is a sequence of tokens, not one pooled vector: with a single key every softmax is 1, and what comes out does
    not depend on the image.

    Args:
        channels: C, a multiple of 32 and of ``head_channels``.
        text_channels: width of a text token.
        head_channels: width of a head.
        low: guide the low band; else it passes.
        high: guide the high bands; else they pass.
        lambda_init: start of the differential weight.
        head_norm: see :class:`BandAttention`.
        residual: see :class:`BandwiseAttention`.
    """

    def __init__(
        self,
        channels: int,
        *,
        text_channels: int = 768,
        head_channels: int = 32,
        low: bool = True,
        high: bool = True,
        lambda_init: float = 0.8,
        head_norm: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.text_norm = nn.LayerNorm(text_channels)
        self.bands = BandwiseAttention(
            channels,
            head_channels=head_channels,
            context_channels=text_channels,
            low=low,
            high=high,
            lambda_init=lambda_init,
            head_norm=head_norm,
            residual=residual,
        )

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.bands(x, self.text_norm(text), mask)


class PlainGuidance(nn.Module):
    """Cross-attention of the features themselves to text, without wavelets: "CrossAttn" in DFBK's ablation.

    x, text, mask -> x as in :class:`KnowledgeGuidance`.

    Args:
        channels: C, a multiple of 32 and of ``head_channels``.
        text_channels: width of a text token.
        head_channels: width of a head.
        residual: add to x, starting at zero; else replace x.
    """

    def __init__(
        self, channels: int, *, text_channels: int = 768, head_channels: int = 32, residual: bool = True
    ) -> None:
        super().__init__()
        self.residual = residual
        self.text_norm = nn.LayerNorm(text_channels)
        self.attention = BandAttention(
            channels, head_channels=head_channels, context_channels=text_channels, project=residual
        )

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.attention(x.permute(0, 2, 3, 1), self.text_norm(text), mask).permute(0, 3, 1, 2)
        return x + y if self.residual else y
