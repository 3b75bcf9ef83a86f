"""U-Net of Pix2pix: size, wiring and precision."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.nets.unet_generator import UNetGenerator


def small(**arguments: Any) -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(**{"channels": 4, "num_downs": 3, **arguments})


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def modules(network: nn.Module, cls: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, cls)]


def test_the_published_network_has_its_size_and_maps_256_to_256() -> None:
    with torch.device("meta"):
        network = UNetGenerator()
        y = network(torch.empty(2, 1, 256, 256))
    assert sum(parameter.numel() for parameter in network.parameters()) == 54_407_809
    assert y.shape == (2, 1, 256, 256)
    assert network.size_multiple == 256


@pytest.mark.parametrize(("num_downs", "size"), [(5, (64, 64)), (6, (64, 64)), (5, (32, 96)), (2, (4, 4))])
def test_fewer_levels_take_smaller_images(num_downs: int, size: tuple[int, int]) -> None:
    y = small(num_downs=num_downs)(image(*size))
    assert y.shape == (2, 1, *size)
    assert 0 < y.abs().max() < 1


def test_one_image_is_enough_for_training_down_to_one_pixel() -> None:
    """Batch norm needs more than one value per channel; at the bottom, where there is one, there is none."""
    network = small(num_downs=6)
    network(image(64, 64, batch=1)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_network_of_three_levels_follows_its_formula() -> None:
    """Widths 4, 8, 16; norm at neither end nor at the bottom; skips before what comes from below."""
    network, x = small(in_channels=2, out_channels=3, dropout=0.0), torch.randn(2, 2, 16, 8)

    def norm(h: Tensor, layer: nn.Module) -> Tensor:
        mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)
        normalized = (h - mean) / (variance + 1e-5).sqrt()
        return normalized * layer.weight[:, None, None] + layer.bias[:, None, None]

    def leaky(h: Tensor) -> Tensor:
        return torch.where(h > 0, h, 0.2 * h)

    downs, ups = network.downs, network.ups
    d0 = F.conv2d(x, downs[0][0].weight, stride=2, padding=1)
    d1 = norm(F.conv2d(leaky(d0), downs[1][0].weight, stride=2, padding=1), downs[1][1])
    d2 = F.conv2d(leaky(d1), downs[2][0].weight, stride=2, padding=1)
    u2 = norm(F.conv_transpose2d(d2.relu(), ups[2][0].weight, stride=2, padding=1), ups[2][1])
    h = torch.cat([d1, u2], dim=1).relu()
    u1 = norm(F.conv_transpose2d(h, ups[1][0].weight, stride=2, padding=1), ups[1][1])
    h = torch.cat([d0, u1], dim=1).relu()
    y = F.conv_transpose2d(h, ups[0].weight, ups[0].bias, stride=2, padding=1).tanh()
    assert [tensor.shape[1] for tensor in (d0, d1, d2)] == [4, 8, 16]
    torch.testing.assert_close(network(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("num_downs", "count"), [(8, 3), (6, 1), (5, 0)])
def test_dropout_follows_the_inner_levels_of_full_width(num_downs: int, count: int) -> None:
    with torch.device("meta"):
        network = UNetGenerator(num_downs=num_downs, dropout=0.25)
    assert [module.p for module in modules(network, nn.Dropout)] == [0.25] * count
    indices = [level for level, up in enumerate(network.ups) if modules(up, nn.Dropout)]
    assert indices == list(range(4, 4 + count))


def test_dropout_acts_in_training_only() -> None:
    network, x = small(num_downs=6), image(64, 64)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_initial_weights_are_normal_with_deviation_002() -> None:
    network = small(channels=32, num_downs=4)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 1000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert abs(module.weight.mean().item()) < 2e-3
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert 0 < module.weight.std() < 0.04
            assert not module.bias.any()


def test_the_image_is_float32_under_autocast_and_not_cut_to_8_bits() -> None:
    network, x = small(dropout=0.0).eval(), image(32, 32)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    assert y.dtype == torch.float32
    assert not torch.equal(y, y.bfloat16().float())
    assert (y - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("shape", [(2, 1, 12, 8), (2, 1, 8, 12), (2, 2, 8, 8), (1, 8, 8)], ids=str)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(B, 1, X, Y\) with X and Y multiples of 8, because it halves them 3"):
        small()(torch.zeros(shape))


def test_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="num_downs=1 must be at least 2"):
        small(num_downs=1)
