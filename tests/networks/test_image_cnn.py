"""Convolutional encoder of an image into a vector."""

import pytest
import torch
from torch.nn import functional as F

from common.networks.nets.image_cnn import ImageCNN


def test_the_encoder_follows_its_formula() -> None:
    torch.manual_seed(0)
    network = ImageCNN(5, channels=(8, 16))
    image = torch.randn(2, 1, 12, 8)
    h = image
    for convolution, norm in (network.layers[0:2], network.layers[3:5]):
        h = F.conv2d(h, convolution.weight, convolution.bias, stride=2, padding=1)
        groups = h.unflatten(1, (8, -1))
        mean, variance = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), keepdim=True, correction=0)
        h = ((groups - mean) / (variance + norm.eps).sqrt()).flatten(1, 2)
        h = h * h.sigmoid()
    assert h.shape == (2, 16, 3, 2)
    torch.testing.assert_close(network(image), network.output(h.mean((2, 3))), rtol=1e-4, atol=1e-5)


def test_the_default_has_four_halvings_and_takes_any_size() -> None:
    network = ImageCNN(512)
    assert network.layers(torch.zeros(1, 1, 224, 224)).shape == (1, 256, 14, 14)
    assert network(torch.zeros(2, 1, 97, 64)).shape == (2, 512)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network, image = ImageCNN(16), torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(network(image)[1:2], network(image[1:2]))


def test_the_vector_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    network, image = ImageCNN(16), torch.randn(3, 1, 32, 32)
    exact = network(image)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(image)
    assert y.dtype == torch.float32
    assert 0 < (y - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("channels", [(), (12,), (32, 0)])
def test_impossible_widths_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"ImageCNN: channels=.* must be one or more multiples of 8"):
        ImageCNN(4, channels)


def test_images_of_several_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image of shape \(1, 3, 8, 8\); it takes \(B, 1, X, Y\)"):
        ImageCNN(4)(torch.zeros(1, 3, 8, 8))
