"""Residual generator of CycleGAN: size, borders, norms and precision."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.networks.nets.resnet_generator import ReflectedBlock, ResNetGenerator


def small(**arguments: Any) -> ResNetGenerator:
    torch.manual_seed(0)
    network = ResNetGenerator(**{"channels": 8, "num_blocks": 2, **arguments})
    nn.init.normal_(network.output.weight, std=0.05)  # of some contrast
    return network


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_published_network_has_its_size_and_maps_224_to_224() -> None:
    with torch.device("meta"):
        network = ResNetGenerator()
        y = network(torch.empty(2, 1, 224, 224))
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_365_633
    assert y.shape == (2, 1, 224, 224)
    blocks = [module for module in network.modules() if isinstance(module, ReflectedBlock)]
    assert len(blocks) == 9
    assert network.size_multiple == 4


@pytest.mark.parametrize("size", [(8, 8), (12, 40)])
def test_an_image_keeps_its_size_and_stays_between_black_and_white(size: tuple[int, int]) -> None:
    y = small()(image(*size))
    assert y.shape == (2, 1, *size)
    assert 0.1 < y.abs().max() < 1


def test_blocks_run_at_a_quarter_of_the_size_and_four_times_the_width() -> None:
    network = small()
    shapes = []
    for module in network.modules():
        if isinstance(module, ReflectedBlock):
            module.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    network(image(16, 24))
    assert shapes == [(2, 32, 4, 6)] * 2


def test_brightness_and_contrast_of_the_image_do_not_matter() -> None:
    """Instance norm takes both out, and reflected borders bring no other intensity in."""
    network, x = small(), image(16, 16)
    torch.testing.assert_close(network(3 * x + 0.7), network(x), rtol=0, atol=2e-3)
    assert (network(x.flip(2)) - network(x)).abs().max() > 0.1


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network, x = small(), image(16, 16, batch=3)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)


def test_a_block_without_effect_is_the_identity() -> None:
    torch.manual_seed(0)
    block, x = ReflectedBlock(4), torch.randn(2, 4, 6, 5)
    assert (block(x) - x).abs().max() > 0.1
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(block(x), x)


def test_norms_have_no_weights_and_initial_kernels_deviate_by_002() -> None:
    torch.manual_seed(0)
    network = ResNetGenerator(channels=32, num_blocks=1)
    norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm2d)]
    assert len(norms) == 7
    assert not any(list(module.parameters()) or module.track_running_stats for module in norms)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)


def test_every_kernel_is_trained() -> None:
    network = small()
    network(image(8, 8)).square().sum().backward()
    assert all(parameter.grad.any() for name, parameter in network.named_parameters() if name.endswith("weight"))


def test_the_image_is_float32_under_autocast_and_not_cut_to_8_bits() -> None:
    network, x = small(), image(16, 16)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    assert y.dtype == torch.float32
    assert not torch.equal(y, y.bfloat16().float())
    assert (y - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("shape", [(2, 1, 10, 8), (2, 1, 8, 4), (2, 2, 8, 8), (1, 8, 8)], ids=str)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(B, 1, X, Y\) with X and Y multiples of 4, at least 8"):
        small()(torch.zeros(shape))
