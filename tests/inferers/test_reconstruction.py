"""What a user gets of an image that goes through an autoencoder and back."""

import sys
from pathlib import Path

import torch

from common.inferers.reconstruction import AutoencoderInferer, ReconstructionInferer
from common.networks.nets.pixel_space import PixelSpace

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from tiny_synthesizers import Wrapper, autoencoder, images


def test_a_reconstruction_decodes_the_nearest_codes_and_is_clipped() -> None:
    network, image = autoencoder().eval(), images()
    codebook = network.quantizer.codebook
    with torch.no_grad():
        network.last_layer.mul_(100)  # so that images leave [0, 1]
        latent = network.encoder(image).movedim(1, -1)  # (B, x, y, C)
        nearest = torch.cdist(latent.flatten(0, 2), codebook).argmin(1)
        raw = network.decoder(codebook[nearest].reshape(latent.shape).movedim(-1, 1))
    assert raw.min() < 0 < 1 < raw.max()
    result = AutoencoderInferer()(image, network)
    torch.testing.assert_close(result, raw.clamp(0, 1))
    torch.testing.assert_close(ReconstructionInferer()(image, network), raw)  # as a training validates


def test_a_wrapped_network_reconstructs_without_gradients_whatever_else_it_is_given() -> None:
    network, image = autoencoder(), images()
    result = AutoencoderInferer()(image, Wrapper(network), index=torch.arange(len(image)))
    assert torch.equal(result, network.reconstruct(image))
    assert not result.requires_grad


def test_pixels_keep_everything() -> None:
    image = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3)
    assert torch.equal(AutoencoderInferer()(image, PixelSpace()), image)
