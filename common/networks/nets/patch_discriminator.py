"""Discriminator of Pix2pix and CycleGAN: a logit for every patch of an image."""

from collections import OrderedDict
from typing import Literal, get_args

from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import nn

Norm = Literal["batch", "instance"]


def patch_discriminator(
    in_channels: int, channels: int = 64, num_layers: int = 3, norm: Norm = "batch"
) -> nn.Sequential:
    """PatchGAN (Isola et al. 2017), whose logits see 70x70 pixels each with three layers.

    image ``(B, in_channels, X, Y)`` -> logits ``(B, 1, x, y)``, x = X / 2**num_layers - 2. MONAI's network, whose
    own forward returns the features of all layers; this one returns the last of them only.

    Args:
        in_channels: channels of the image, for Pix2pix source and target concatenated.
        channels: base width.
        num_layers: convolutions between the first and the last one; all but the last of them, and the first one, halve
            the size.
        norm: ``"batch"``; or ``"instance"`` (without weights), where images must not see each other, as a gradient
            penalty demands.

    Raises:
        ValueError: unknown norm.
    """
    if norm not in get_args(Norm):
        raise ValueError(f"patch_discriminator: norm={norm!r} is unknown; choose one of {', '.join(get_args(Norm))}.")
    network = PatchDiscriminator(
        spatial_dims=2, in_channels=in_channels, out_channels=1, channels=channels, num_layers_d=num_layers, norm=norm
    )
    return nn.Sequential(OrderedDict(network.named_children()))
