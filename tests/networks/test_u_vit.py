"""U-ViT: parameter counts of the paper's tables, and what the architecture promises."""

import math

import pytest
import torch
from torch import nn

from common.networks.blocks.moe_mlp import MoEMLP
from common.networks.blocks.positions import sincos_positions
from common.networks.nets.u_vit import SIZES, UViT, u_vit

ACDC, ECHO = (12, 12), (14, 14)


def tiny(**arguments) -> UViT:
    torch.manual_seed(0)
    defaults = {"num_features": 8, "grid": (2, 3), "hidden_size": 16, "depth": 4, "num_heads": 2, "router_noise": 0.0}
    network = UViT(**{**defaults, **arguments})
    for parameter in network.parameters():  # far from the near-zero start, where all blocks look like identities
        nn.init.normal_(parameter, std=0.3)
    return network


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("grid", "num_features", "dense", "experts_4", "experts_6", "experts_8", "all_blocks"),
    [
        (ACDC, 48, 134_807_856, 163_148_592, 182_041_392, 200_934_192, 361_533_744),
        (ACDC, 64, 134_832_448, 163_173_184, 182_065_984, 200_958_784, 361_558_336),
        (ECHO, 48, 134_847_792, 163_188_528, 182_081_328, 200_974_128, 361_573_680),
        (ECHO, 64, 134_872_384, 163_213_120, 182_105_920, 200_998_720, 361_598_272),
    ],
    ids=["acdc-m4", "acdc-m0", "echo-m4", "echo-m0"],
)
def test_parameter_counts_are_those_of_the_published_networks(
    grid: tuple[int, int],
    num_features: int,
    dense: int,
    experts_4: int,
    experts_6: int,
    experts_8: int,
    all_blocks: int,
) -> None:
    with torch.device("meta"):
        variants = {
            dense: u_vit("M", num_features=num_features, grid=grid, moe_layers="none"),
            experts_4: u_vit("M", num_features=num_features, grid=grid),
            experts_6: u_vit("M", num_features=num_features, grid=grid, num_experts=6),
            experts_8: u_vit("M", num_features=num_features, grid=grid, num_experts=8),
            all_blocks: u_vit("M", num_features=num_features, grid=grid, moe_layers="all"),
        }
    assert {count: num_parameters(network) for count, network in variants.items()} == {n: n for n in variants}


@pytest.mark.parametrize(
    ("grid", "num_features", "count"),
    [((6, 6), 64, 134_749_504), ((7, 7), 64, 134_759_488), (ACDC, 16, 134_758_672), (ECHO, 16, 134_798_608)],
)
def test_parameter_counts_of_the_latent_baseline(grid: tuple[int, int], num_features: int, count: int) -> None:
    with torch.device("meta"):
        assert num_parameters(u_vit("M", num_features=num_features, grid=grid, num_experts=1)) == count


def test_parameter_counts_of_the_smaller_sizes() -> None:
    with torch.device("meta"):
        assert num_parameters(u_vit("S", num_features=64, grid=ACDC, num_experts=1)) == 46_350_912
        assert num_parameters(u_vit("S", num_features=64, grid=ACDC)) == 58_953_280
        assert num_parameters(u_vit("demo", num_features=64, grid=(6, 6))) == 1_999_808


@pytest.mark.parametrize("size", SIZES)
def test_every_named_size_can_be_built(size: str) -> None:
    with torch.device("meta"):
        network = u_vit(size, num_features=4, grid=(2, 2))
    assert len(network.in_blocks) == len(network.out_blocks) == SIZES[size].depth // 2


def mixtures(network: UViT) -> list[bool]:
    blocks = [*network.in_blocks, network.mid_block, *network.out_blocks]
    return [isinstance(block.mlp, MoEMLP) for block in blocks]


def test_mixtures_sit_where_asked() -> None:
    assert mixtures(tiny()) == [True, False, False, False, True]
    assert mixtures(tiny(moe_layers="all")) == [True, True, False, True, True]
    assert mixtures(tiny(moe_layers="none")) == [False] * 5
    assert mixtures(tiny(num_experts=1)) == [False] * 5


def test_output_is_one_prediction_per_image_token() -> None:
    network = tiny()
    x, t = torch.randn(5, 6, 8), torch.rand(5)
    y, router = network(x, t, return_router=True)
    assert y.shape == (5, 6, 8)
    assert [probs.shape for probs in router] == [(5, 7, 4)] * 2  # the time token is routed, too
    assert torch.equal(network(x, t), y)


def test_permuting_tokens_with_their_positions_permutes_the_output() -> None:
    network, order = tiny(), torch.randperm(6)
    x, t = torch.randn(2, 6, 8), torch.rand(2)
    y = network(x, t)
    assert not torch.allclose(network(x[:, order], t), y[:, order], atol=1e-3)
    with torch.no_grad():
        network.position_embedding[:, 1:] = network.position_embedding[:, 1:][:, order]
    torch.testing.assert_close(network(x[:, order], t), y[:, order])


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = tiny()
    x, t = torch.randn(4, 6, 8), torch.rand(4)
    torch.testing.assert_close(network(x, t)[1:2], network(x[1:2], t[1:2]))


def test_time_changes_the_output() -> None:
    network, x = tiny(), torch.randn(1, 6, 8)
    assert (network(x, torch.tensor([0.2])) - network(x, torch.tensor([0.7]))).abs().max() > 1e-3


def test_each_out_block_reads_the_in_block_that_mirrors_it() -> None:
    """Last in, first out: the innermost pair is joined first."""
    network = tiny(moe_layers="none")
    received: dict[int, torch.Tensor] = {}
    produced: list[torch.Tensor] = []
    for index, block in enumerate(network.out_blocks):
        block.skip.register_forward_hook(lambda _, args, __, i=index: received.update({i: args[0][..., 16:]}))
    for block in network.in_blocks:
        block.register_forward_hook(lambda _, __, output: produced.append(output[0]))
    network(torch.randn(2, 6, 8), torch.rand(2))
    torch.testing.assert_close(received[0], produced[1])
    torch.testing.assert_close(received[1], produced[0])


def test_removing_the_skips_changes_the_function() -> None:
    network = tiny()
    x, t = torch.randn(2, 6, 8), torch.rand(2)
    before = network(x, t)
    with torch.no_grad():
        for block in network.out_blocks:
            block.skip.weight[:, 16:] = 0
    assert (network(x, t) - before).abs().max() > 1e-3


def test_initial_weights_are_normal_with_deviation_002() -> None:
    torch.manual_seed(0)
    network = u_vit("demo", num_features=64, grid=(6, 6))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            tolerance = 5 / math.sqrt(2 * parameter.numel())  # five standard errors
            assert parameter.std().item() == pytest.approx(0.02, rel=tolerance), name


def test_sincos_start_fills_the_image_rows_and_leaves_the_time_row_random() -> None:
    torch.manual_seed(0)
    network = u_vit("demo", num_features=64, grid=(6, 6), position_embedding="sincos")
    torch.testing.assert_close(network.position_embedding[0, 1:], sincos_positions((6, 6), 128))
    assert network.position_embedding[0, 0].std().item() == pytest.approx(1.0, abs=0.3)
    assert network.position_embedding.requires_grad


def test_class_token_changes_the_output_and_adds_one_row_per_class() -> None:
    network, plain = tiny(num_classes=3), tiny()
    assert num_parameters(network) - num_parameters(plain) == 3 * 16 + 16  # embedding and a position
    x, t = torch.randn(1, 6, 8), torch.rand(1)
    outputs = [network(x, t, torch.tensor([label])) for label in range(3)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    assert outputs[0].shape == x.shape


def test_every_parameter_takes_part_in_the_loss() -> None:
    network = tiny()
    network(torch.randn(2, 6, 8), torch.rand(2)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 5}, "depth=5 must be even"),
        ({"moe_layers": "last"}, "moe_layers='last' is unknown; choose first_last, none, all"),
        ({"position_embedding": "rope"}, "position_embedding='rope' is unknown"),
        ({"top_k": 9}, "top_k=9 must lie in 1..num_experts=4"),
        ({"num_heads": 3}, "hidden_size=16 does not divide into num_heads=3"),
    ],
)
def test_impossible_networks_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size 'XL' is unknown; choose one of tiny, demo, S, M"):
        u_vit("XL", num_features=4, grid=(2, 2))


def test_wrong_inputs_are_refused() -> None:
    network = tiny()
    with pytest.raises(ValueError, match=r"shape \(2, 7, 8\); this network takes \(B, 6, 8\), a grid of 2x3"):
        network(torch.randn(2, 7, 8), torch.rand(2))
    with pytest.raises(ValueError, match=r"times of shape \(3,\); give one per image, \(2,\)"):
        network(torch.randn(2, 6, 8), torch.rand(3))
    with pytest.raises(ValueError, match="built without num_classes"):
        network(torch.randn(2, 6, 8), torch.rand(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="class_labels missing; the network was built for 3 classes"):
        tiny(num_classes=3)(torch.randn(2, 6, 8), torch.rand(2))
