"""U-Net of Swin transformer blocks without convolutions: Swin-Unet."""

from collections.abc import Sequence

import torch
from monai.networks.blocks import PatchEmbed
from monai.networks.nets.swin_unetr import BasicLayer, PatchMergingV2
from torch import Tensor, nn

_PATCH = 4  # side of the patches that become tokens


class PatchExpand(nn.Module):
    """Upsampling by a linear layer: each token becomes ``factor`` x ``factor`` tokens of ``out_channels``, normalized.

    x ``(B, H, W, C)`` -> ``(B, factor H, factor W, out_channels)``.
    """

    def __init__(self, channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(channels, factor**2 * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x).unflatten(-1, (self.factor, self.factor, -1))  # (B, H, W, factor, factor, C')
        return self.norm(x.transpose(2, 3).flatten(3, 4).flatten(1, 2))


class SwinTransformerUNet(nn.Module):
    """Swin-Unet (Cao et al. 2022).

    image ``(B, in_channels, X, Y)`` -> ``(B, out_channels, X, Y)``.

    Patches of 4 x 4 pixels become tokens; stages of Swin blocks (MONAI's) halve the grid and double the width; decoder
    stages mirror them and take in the tokens that entered the encoder stage of the same grid, as the authors' code
    does. A window is never larger than the grid of its stage. Stochastic depth grows linearly over the blocks of the
    encoder, and the decoder mirrors it, too. With the published setting, 224 x 224 pixels, it has 27.17 M weights.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the result.
        image_size: (X, Y) in pixels, multiples of ``4 * 2 ** (len(depths) - 1)``.
        embed_dim: width of the first stage.
        depths: blocks of each stage.
        num_heads: attention heads of each stage; they divide its width.
        window_size: side of a window in tokens.
        drop_path: stochastic depth of the last block; numbers come from PyTorch's global generator.

    Raises:
        ValueError: the stages do not fit the image, or the heads the widths.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        image_size: Sequence[int],
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        stages = len(depths)
        width, height = image_size
        multiple = _PATCH * 2 ** (stages - 1)
        if min(width, height) < multiple or width % multiple or height % multiple:
            raise ValueError(
                f"SwinTransformerUNet: image_size={width}x{height} must be multiples of {multiple}, as {stages} stages "
                "need; pad the images, or take fewer stages."
            )
        if len(num_heads) != stages or any(embed_dim * 2**i % heads for i, heads in enumerate(num_heads)):
            raise ValueError(
                f"SwinTransformerUNet: num_heads={list(num_heads)} must divide the widths "
                f"{[embed_dim * 2**i for i in range(stages)]} of the stages, one number a stage."
            )
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))

        def blocks(stage: int, merge: bool) -> BasicLayer:
            sides = (width // _PATCH >> stage, height // _PATCH >> stage)
            return BasicLayer(
                dim=embed_dim * 2**stage,
                depth=depths[stage],
                num_heads=num_heads[stage],
                window_size=[min(window_size, side) for side in sides],  # MONAI would misplace the position scores
                drop_path=rates[stage].tolist(),
                qkv_bias=True,
                downsample=PatchMergingV2 if merge else None,  # type: ignore[arg-type]
            )

        self.embed = PatchEmbed(_PATCH, in_channels, embed_dim, spatial_dims=2)
        self.encoder = nn.ModuleList(blocks(stage, merge=stage < stages - 1) for stage in range(stages))
        self.norm = nn.LayerNorm(embed_dim * 2 ** (stages - 1))
        upper = [embed_dim * 2**stage for stage in reversed(range(stages - 1))]  # widths of the decoder stages
        self.ups = nn.ModuleList(PatchExpand(2 * channels, channels, 2) for channels in upper)
        self.merges = nn.ModuleList(nn.Linear(2 * channels, channels) for channels in upper)
        self.decoder = nn.ModuleList(blocks(stage, merge=False) for stage in reversed(range(stages - 1)))
        self.norm_up = nn.LayerNorm(embed_dim)
        self.expand = PatchExpand(embed_dim, embed_dim, _PATCH)
        self.head = nn.Conv2d(embed_dim, out_channels, kernel_size=1, bias=False)
        self.apply(_initialize)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image)  # (B, C, X / 4, Y / 4)
        skips = []
        for stage in self.encoder:
            skips.append(x)
            x = stage(x)  # half the grid, twice the width; the last stage keeps both
        x = self.norm(x.permute(0, 2, 3, 1))  # (B, h, w, 8 C)
        for up, merge, stage, skip in zip(self.ups, self.merges, self.decoder, reversed(skips[:-1]), strict=True):
            x = merge(torch.cat([up(x), skip.permute(0, 2, 3, 1)], dim=-1))
            x = stage(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = self.expand(self.norm_up(x))  # (B, X, Y, C)
        return self.head(x.permute(0, 3, 1, 2))


def _initialize(module: nn.Module) -> None:
    """Linear layers from a truncated normal distribution of standard deviation 0.02, without bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
