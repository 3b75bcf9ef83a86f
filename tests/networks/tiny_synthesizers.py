"""Small label-guided networks, for tests of them and of what works with them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.networks.nets.label_guided_synthesizer import LabelGuidedSynthesizer
from common.networks.nets.pixel_space import PixelSpace
from common.networks.nets.quantized_autoencoder import QuantizedAutoencoder

SIZE = (16, 24)
CLASSES = {0: 0, 500: 1, 420: 2, 421: 2}
WIDTHS = {
    "channels": (8, 16),
    "num_res_blocks": 1,
    "attention_levels": (False, True),
    "num_head_channels": (0, 8),
    "norm_groups": 4,
    "spade_channels": 4,
}


def autoencoder(seed: int = 0, **options: Any) -> QuantizedAutoencoder:
    """Three channels, a quarter of the size, seven codes that are latents of made-up images; its images are gray."""
    torch.manual_seed(seed)
    settings = {"channels": (4, 6), "num_res_layers": 1, "num_embeddings": 7, "embedding_dim": 3} | options
    network = QuantizedAutoencoder(**settings).train()
    nn.init.constant_(network.decoder.blocks[-1].conv.bias, 0.5)
    network(images(4))
    return network


def synthesizer(space: QuantizedAutoencoder | PixelSpace | None = None, **options: Any) -> LabelGuidedSynthesizer:
    """Three classes; ready to use; the convolutions that start at zero have weights."""
    space = space or autoencoder()
    channels = space.latent_channels
    settings: dict[str, Any] = {
        "label_values": CLASSES,
        "image_size": SIZE,
        "spacing_mm": 1.5,
        "window": (0.5, 99.5),
        "statistics": (torch.linspace(-0.1, 0.2, channels), torch.linspace(0.5, 1.5, channels)),
        **WIDTHS,
    } | options
    torch.manual_seed(1)
    network = LabelGuidedSynthesizer(autoencoder=space, **settings)
    for weight in network.backbone.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.2)
    return network.eval()


def images(number: int = 2, seed: int = 0) -> Tensor:
    """(B, 1, X, Y) in [0, 1]."""
    return torch.rand(number, 1, *SIZE, generator=torch.Generator().manual_seed(seed))


def labels(number: int = 2, seed: int = 0) -> Tensor:
    """(B, 1, X, Y) float: each class somewhere, pixel by pixel at random."""
    return torch.randint(3, (number, 1, *SIZE), generator=torch.Generator().manual_seed(seed)).float()


class Estimate(nn.Module):
    """In the place of a backbone: a function of (x, t, seg), and a record of what it was asked."""

    def __init__(self, noise: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.noise = noise
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, *, x: Tensor, timesteps: Tensor, seg: Tensor) -> Tensor:
        self.calls.append((x, timesteps, seg))
        return self.noise(x, timesteps, seg)


class Wrapper(nn.Module):
    """Around a network, as ``DistributedDataParallel`` is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)
