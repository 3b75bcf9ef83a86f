"""Discriminator of FQCDM: a logit for every patch of an image, given the edges that it should have."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

Norm = Literal["instance", "batch"]

_INITIAL_DEVIATION = 0.02


class DualBranchDiscriminator(nn.Module):
    """A PatchGAN and a branch that compares the image with an edge map (FQCDM, section 3.3, eqs. 12-14).

    image ``(B, 1, X, Y)`` and edges ``(B, 1, X, Y)`` -> logits ``(B, 1, x, y)``, x = X / 2**num_layers - 2. The edges
    are always those of the real image, so that a reconstruction is judged by whether it has them, too; no gradient
    through their computation is needed.

    Patch branch: the trunk of MONAI's ``PatchDiscriminator``. Edge branch, per level: 3x3 and 1x1 convolution side by
    side, ReLU, average over 2x2 pixels; then a 3x3 convolution, averaged to the size of the trunk's features. A 4x4
    convolution makes logits of both. Kernels start with deviation 0.02.

    Args:
        channels: base width of the patch branch.
        num_layers: of its convolutions, those between the first and the last one, see ``patch_discriminator``.
        edge_channels: widths of the edge branch by level, even numbers.
        fusion_channels: what the edge branch adds to the trunk's features.
        norm: ``"instance"`` (with weights), the same in training and evaluation and at any batch size; or ``"batch"``,
            for 8 images or more, which must never be put in evaluation mode.
        edge_branch: without it this is the plain patch discriminator, and edges are not looked at.

    Raises:
        ValueError: unknown norm, or an odd edge width.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        num_layers: int = 3,
        edge_channels: Sequence[int] = (32, 64, 128),
        fusion_channels: int = 64,
        norm: Norm = "instance",
        edge_branch: bool = True,
    ) -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise ValueError(
                f"DualBranchDiscriminator: norm={norm!r} is unknown; choose one of {', '.join(get_args(Norm))}."
            )
        if not edge_channels or any(width % 2 for width in edge_channels):
            raise ValueError(
                f"DualBranchDiscriminator: edge_channels={list(edge_channels)} must be even numbers; two convolutions "
                "make half of each."
            )
        patches = PatchDiscriminator(
            spatial_dims=2,
            in_channels=1,
            channels=channels,
            num_layers_d=num_layers,
            norm=("instance", {"affine": True}) if norm == "instance" else "batch",
        )
        self.trunk = nn.Sequential(*list(patches.children())[:-1])
        self.edges = _EdgeBranch(edge_channels, fusion_channels) if edge_branch else None
        features = channels * 2**num_layers
        self.fusion = nn.Conv2d(features + (fusion_channels if edge_branch else 0), 1, kernel_size=4, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_INITIAL_DEVIATION)

    def forward(self, image: Tensor, edges: Tensor | None = None) -> Tensor:
        features = self.trunk(image)  # (B, channels * 2**num_layers, x + 1, y + 1)
        if self.edges is not None:
            if edges is None or edges.shape != image.shape:
                raise ValueError(
                    f"DualBranchDiscriminator: images of shape {tuple(image.shape)} need edges of that shape, got "
                    f"{None if edges is None else tuple(edges.shape)}; or build it with edge_branch=False."
                )
            agreement = self.edges(torch.cat([image, edges.to(image.dtype)], dim=1))
            features = torch.cat([features, F.adaptive_avg_pool2d(agreement, features.shape[-2:])], dim=1)
        return self.fusion(features)


class _EdgeBranch(nn.Module):
    """image and edges ``(B, 2, X, Y)`` -> ``(B, out_channels, X / 2**levels, Y / 2**levels)``.

    Pooling follows convolutions at full resolution, since a convolution with stride would skip lines of one pixel.
    """

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        widths = [2, *channels]
        self.wide = nn.ModuleList(nn.Conv2d(a, b // 2, kernel_size=3, padding=1) for a, b in pairwise(widths))
        self.narrow = nn.ModuleList(nn.Conv2d(a, b // 2, kernel_size=1) for a, b in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            x = F.avg_pool2d(F.relu(torch.cat([wide(x), narrow(x)], dim=1)), 2)
        return self.last(x)
