"""Spaces of features that sets of images are compared in, each with the weights that it needs."""

import os
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ..nets.quantized_autoencoder import QuantizedAutoencoder
from .inception import InceptionFeatures
from .latent_spaces import latent_space


class FeatureSpace(Protocol):
    """Images ``(B, 1, X, Y)`` in [0, 1] -> features ``(B, D)``, float64, on the device of the images.

    Attributes:
        name: of the Frechet distance in this space, in files of results.
        identity: which weights; distances of different ones do not compare.
        meaning: one line for a reader.
    """

    name: str
    identity: str
    meaning: str

    def __call__(self, images: Tensor) -> Tensor: ...


class EncoderFeatures(nn.Module):
    """Latents of a trained autoencoder, before quantization, averaged over a grid: ``(B, C * cells * cells)``.

    Knows texture that area means of pixels do not, and was trained on such images, unlike Inception; but distances of
    different autoencoders do not compare, and one that generates through the same autoencoder has an advantage.

    Args:
        autoencoder: trained; frozen here.
        cells: side of the grid.
    """

    name = "frechet_distance_encoder"

    def __init__(self, autoencoder: QuantizedAutoencoder, cells: int = 4) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.cells = cells
        self.identity = f"{autoencoder.identity}-{cells}x{cells}"
        self.meaning = (
            f"squared distance of {cells}x{cells} area means of {autoencoder.latent_channels} latent channels of one "
            "autoencoder; only values of the same autoencoder compare; lower is better"
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        self.to(images.device)  # copies once, at the first call
        latent = self.autoencoder.encode(images)  # (B, C, h, w)
        if min(latent.shape[-2:]) < self.cells:
            raise ValueError(
                f"EncoderFeatures: latents of {latent.shape[-2]}x{latent.shape[-1]} px hold no "
                f"{self.cells}x{self.cells} grid; the images are too small for this autoencoder."
            )
        return adaptive_avg_pool2d(latent.double(), self.cells).flatten(1)


def feature_spaces(
    *,
    fid: bool = False,
    inception_path: str | os.PathLike | None = None,
    allow_download: bool = False,
    encoder_path: str | os.PathLike | None = None,
) -> tuple[FeatureSpace, ...]:
    """The spaces that a report is to use beside the grid of pixels, which needs no weights.

    Args:
        fid: whether to take Inception; see :class:`InceptionFeatures` for the next two.
        inception_path: its file; ``None``: the cache of ``torch.hub``.
        allow_download: consent to a download into that cache.
        encoder_path: weights of a ``QuantizedAutoencoder``; ``None``: without this space.

    Raises:
        FileNotFoundError: weights that are asked for are not there; says how to provide them.
        ValueError: a file that is broken or holds something else.
    """
    spaces: list[FeatureSpace] = []
    if fid:
        spaces.append(InceptionFeatures(inception_path, allow_download=allow_download))
    if encoder_path is not None:
        spaces.append(EncoderFeatures(cast(QuantizedAutoencoder, latent_space("quantized", encoder_path))))
    return tuple(spaces)
