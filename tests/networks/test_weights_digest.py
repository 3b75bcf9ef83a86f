"""A name for weights: equal where they are equal."""

import math

import torch
from torch import nn

from common.networks.blocks.weights_digest import weights_digest


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def test_equal_weights_have_one_name_in_any_memory_layout() -> None:
    expected = weights_digest(network())
    assert len(expected) == 12
    assert int(expected, 16) >= 0
    assert weights_digest(network().to(memory_format=torch.channels_last)) == expected
    assert weights_digest(network().requires_grad_(False).double()) == expected


def test_the_last_bit_of_a_weight_and_a_buffer_count() -> None:
    original = network()
    names = {weights_digest(original)}
    with torch.no_grad():
        weight = original[0].weight
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(math.inf))
        names.add(weights_digest(original))
        original[1].running_mean[0] += 1
        names.add(weights_digest(original))
    assert len(names) == 3
