"""Diffusion without an autoencoder: the latent is the image."""

import torch
from torch import Tensor, nn


class PixelSpace(nn.Module):
    """Images in [0, 1] as their own latents in [-1, 1], for the baseline that diffuses pixels.

    It has what a ``QuantizedAutoencoder`` has, as far as the stages after it ask, but no weights and no codebook.
    """

    latent_channels = 1
    factor = 1
    identity = "pixels"

    def encode(self, image: Tensor) -> Tensor:
        """``2 image - 1``, float32.

        Raises:
            ValueError: not one channel.
        """
        if image.ndim != 4 or image.shape[1] != 1:
            raise ValueError(
                f"PixelSpace.encode: got images of shape {tuple(image.shape)}; needed are (B, 1, X, Y). Give several "
                "channels or slices as a larger batch."
            )
        return 2 * image.float() - 1

    def decode(self, latent: Tensor, quantize: bool = True) -> Tensor:
        """``(latent + 1) / 2``, float32, clipped to [0, 1]; there is nothing to quantize."""
        return ((latent.float() + 1) / 2).clamp(0, 1)

    def reconstruct(self, image: Tensor) -> Tensor:
        """The image, as far as it lies in [0, 1]."""
        return self.decode(self.encode(image))

    def latent_range(self) -> tuple[Tensor, Tensor]:
        """Black and white, ``(1,)`` each."""
        return torch.full((1,), -1.0), torch.full((1,), 1.0)

    def freeze(self) -> "PixelSpace":
        """Nothing to do."""
        return self
