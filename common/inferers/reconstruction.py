"""What an autoencoder keeps of an image."""

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from monai.inferers import Inferer
from torch import Tensor

from .diffusion import unwrap


class Reconstructor(Protocol):
    """An autoencoder that gives images as a user gets them."""

    def reconstruct(self, image: Tensor) -> Tensor: ...


class ReconstructionInferer(Inferer):
    """Images (B, 1, X, Y) -> their reconstructions from the mean of the posterior, of the same shape.

    For an autoencoder in evaluation mode whose call gives a mapping with ``image``.
    """

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        return network(inputs)["image"]


class AutoencoderInferer(Inferer):
    """Images (B, 1, X, Y) in [0, 1] through a ``QuantizedAutoencoder`` and back, clipped to [0, 1]."""

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        return cast(Reconstructor, unwrap(network)).reconstruct(inputs)
