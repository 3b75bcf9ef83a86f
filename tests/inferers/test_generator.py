"""A generator goes over a volume once, a batch of slices at a time, and where there is a patient only."""

import pytest
import torch
from torch import Tensor, nn

from common.inferers.generator import GeneratorInferer
from common.inferers.precision import supports_bfloat16

SIZE = (6, 5)


class Negative(nn.Module):
    """The negative of the source; keeps the sizes of its batches."""

    image_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.ready = 0

    def check_ready(self) -> None:
        self.ready += 1

    def forward(self, source: Tensor) -> Tensor:
        assert source.shape[1:] == (1, *SIZE)
        assert not torch.is_grad_enabled()
        self.batches.append(len(source))
        return -source


def volume(depth: int) -> Tensor:
    """(1, 1, X, Y, Z) in [-0.9, 0.9]: all slices have foreground."""
    return 1.8 * torch.rand(1, 1, *SIZE, depth, generator=torch.Generator().manual_seed(0)) - 0.9


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("depth", [7, 40])
def test_every_slice_goes_through_the_network_once_in_batches_of_the_size_asked_for(
    batch_size: int, depth: int
) -> None:
    """So the network's memory does not grow with the volume."""
    network = Negative()
    result = GeneratorInferer(batch_size=batch_size)(volume(depth), network)
    assert torch.equal(result, -volume(depth))
    assert network.batches == [min(batch_size, depth - start) for start in range(0, depth, batch_size)]
    assert network.ready == 1


def test_a_batch_of_slices_is_translated_as_a_volume_is() -> None:
    slices = volume(4)[0].permute(3, 0, 1, 2)  # (Z, 1, X, Y)
    result = GeneratorInferer()(slices, Negative(), index=torch.arange(4))
    assert torch.equal(result, -slices)


def test_blank_slices_become_background_without_the_network() -> None:
    sources = volume(5)
    sources[..., [0, 4]] = -1.0
    network = Negative()
    result = GeneratorInferer()(sources, network, case=["a"])
    assert network.batches == [3]
    assert (result[..., [0, 4]] == -1).all()
    assert torch.equal(result[..., 1:4], -sources[..., 1:4])


def test_a_generator_has_one_answer() -> None:
    with pytest.raises(ValueError, match="num_samples=2, but a generator has one answer"):
        GeneratorInferer(num_samples=2)


@pytest.mark.parametrize("amp", [True, False])
def test_mixed_precision_reaches_the_network_and_not_the_result(amp: bool) -> None:
    if amp and not supports_bfloat16("cpu"):
        pytest.skip("this CPU has no fast bf16")
    seen: list[torch.dtype] = []

    class Product(Negative):
        def forward(self, source: Tensor) -> Tensor:
            product = source @ torch.eye(SIZE[1])
            seen.append(product.dtype)
            return product

    assert GeneratorInferer(amp=amp)(volume(2), Product()).dtype == torch.float32
    assert seen == [torch.bfloat16 if amp else torch.float32]
