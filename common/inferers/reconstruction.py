"""What an autoencoder keeps of an image."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor


class ReconstructionInferer(Inferer):
    """Images (B, 1, X, Y) -> their reconstructions from the mean of the posterior, of the same shape.

    For an autoencoder in evaluation mode whose call gives a mapping with ``image``.
    """

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        return network(inputs)["image"]
