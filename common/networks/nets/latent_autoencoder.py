"""What all autoencoders of latent diffusion have in common, trained here or elsewhere."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..blocks.precision import full_precision
from ..blocks.weights_digest import weights_digest


class LatentAutoencoder(nn.Module, ABC):
    """Grey images in [-1, 1] to the posterior of their latents, and back.

    image ``(B, 1, X, Y)`` -> mean and log variance ``(B, C, X / f, Y / f)`` -> image. All is computed in float32, under
    autocast, too: bfloat16 would cost more HU than the compression, and some pretrained decoders overflow in float16.
    Diffusion works on ``scale * latent``, which has about unit variance; the methods here know no scale.

    Args:
        kind: how the autoencoder is asked for, e.g. ``"scratch"``.
        network: all of its weights.
        latent_channels: C.
        factor: f, pixels per latent pixel along each axis.
        scale: see above; NaN: not measured yet.
    """

    latent_scale: Tensor

    def __init__(
        self, kind: str, network: nn.Module, *, latent_channels: int, factor: int, scale: float = torch.nan
    ) -> None:
        super().__init__()
        self.kind = kind
        self.network = network
        self.latent_channels = latent_channels
        self.factor = factor
        self.register_buffer("latent_scale", torch.tensor(float(scale)))

    @property
    def scale(self) -> float:
        """Factor that gives latents unit variance; NaN if it was not set. Waits for the device."""
        return self.latent_scale.item()

    @property
    def identity(self) -> str:
        """``<kind>:<digest of the weights>``: latents of two autoencoders fit together where these are equal.

        Reads all weights: ask once a run.
        """
        return f"{self.kind}:{weights_digest(self.network)}"

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, ``(B, C, x, y)`` float32, not scaled.

        Raises:
            ValueError: not one channel, or sides that are no multiples of the factor.
        """
        if image.ndim != 4 or image.shape[1] != 1 or any(side % self.factor for side in image.shape[2:]):
            raise ValueError(
                f"{type(self).__name__}.encode_moments: got images of shape {tuple(image.shape)}; needed are "
                f"(B, 1, X, Y) with X and Y multiples of {self.factor}. Pad or resize the slices."
            )
        with full_precision(image.device):
            return self._posterior(image.float())

    def decode(self, z: Tensor) -> Tensor:
        """Images ``(B, 1, X, Y)`` float32, clipped to [-1, 1], of latents ``(B, C, x, y)`` without the scale.

        Raises:
            ValueError: another number of channels.
        """
        if z.ndim != 4 or z.shape[1] != self.latent_channels:
            raise ValueError(
                f"{type(self).__name__}.decode: got latents of shape {tuple(z.shape)}; needed are (B, "
                f"{self.latent_channels}, x, y). They come from another autoencoder."
            )
        return self._reconstruct(z).clamp(-1, 1)

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """What is left of images after encoding and decoding, without any diffusion: the limit of all that follows."""
        return self.decode(self.encode_moments(image)[0])

    def _reconstruct(self, z: Tensor) -> Tensor:
        """Images that may leave [-1, 1], where a loss still has a gradient."""
        with full_precision(z.device):
            return self._image(z.float())

    @abstractmethod
    def _posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of float32 images."""

    @abstractmethod
    def _image(self, z: Tensor) -> Tensor:
        """One channel for float32 latents."""
