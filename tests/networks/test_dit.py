"""DiT: sizes of the specified networks, the start at zero, and what conditions and source can tell it."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from common.networks.nets.dit import DiT
from common.networks.nets.vision_embedder import VisionEmbedder

SIZE = (6, 4)
TINY: dict[str, Any] = {"input_size": SIZE, "hidden_size": 16, "depth": 4, "num_heads": 2}
SPATIAL: dict[str, Any] = {"source_channels": 4}


def fresh(**arguments: Any) -> DiT:
    torch.manual_seed(0)
    return DiT(**{**TINY, **arguments})


def tiny(**arguments: Any) -> DiT:
    """Away from the start, where every block is the identity and the output 0."""
    network = fresh(**arguments)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def inputs(network: DiT, batch: int = 3) -> tuple[Tensor, Tensor, list[Tensor], Tensor | None]:
    torch.manual_seed(1)
    x = torch.randn(batch, network.latent_channels, *network.input_size)
    source = torch.randn(batch, network.source_channels, *network.input_size) if network.source_channels else None
    conditions = [torch.randn(batch, network.hidden_size) for _ in range(network.num_conditions)]
    return x, torch.tensor([0, 500, 999])[:batch], conditions, source


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def blocks_record(network: DiT) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Inputs and outputs of the blocks, filled when the network is called."""
    received: list[tuple[Tensor, Tensor]] = []
    returned: list[Tensor] = []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, args: received.append(args))
        block.register_forward_hook(lambda _, __, output: returned.append(output))
    return received, returned


# Sizes


@pytest.mark.parametrize(
    ("arguments", "count", "per_block"),
    [
        ({"depth": 7, "num_conditions": 1}, 34_028_576, 4_726_272),
        ({"depth": 7, "num_conditions": 0}, 34_028_576, 4_726_272),  # c is as wide without any condition
        ({"depth": 7}, 45_562_912, 6_299_136),
        ({}, 102_255_136, 6_299_136),
        ({"num_conditions": 1}, 76_565_024, 4_726_272),
        (SPATIAL, 102_263_328, 6_299_136),
    ],
    ids=["sb2-one", "sb2-none", "sb2", "16", "16-one", "16-spatial"],
)
def test_parameters_are_as_many_as_specified(arguments: dict[str, Any], count: int, per_block: int) -> None:
    with torch.device("meta"):
        network = DiT(input_size=28, **arguments)
    assert num_parameters(network) == count
    assert {num_parameters(block) for block in network.blocks} == {per_block}


def test_parameters_of_the_small_and_the_published_network() -> None:
    with torch.device("meta"):
        small = DiT(input_size=16, hidden_size=128, depth=4, num_heads=4, **SPATIAL)
        large = DiT(input_size=28, hidden_size=1024, depth=24, num_heads=16, num_conditions=1)
    assert num_parameters(small) == 1_704_096
    assert num_parameters(large) / 1e6 == pytest.approx(457, abs=0.5)  # the DiT-L/2 of Peebles and Xie


@pytest.mark.parametrize(("depth", "gigaflops"), [(16, 21.1), (7, 9.2)])
def test_a_forward_pass_costs_as_much_as_specified(depth: int, gigaflops: float) -> None:
    """On the meta device, where reading a number back to the host would fail."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = DiT(input_size=28, depth=depth)
        y = network(torch.empty(1, 4, 28, 28), torch.zeros(1).long(), [torch.empty(1, 512)] * 2)
    assert y.shape == (1, 8, 28, 28)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflops, abs=0.06)


# The start


@pytest.mark.parametrize("arguments", [{}, SPATIAL, {"num_conditions": 0}, {"long_skip": True}], ids=str)
def test_a_fresh_network_returns_zero(arguments: dict[str, Any]) -> None:
    network = fresh(**arguments)
    y = network(*inputs(network))
    assert y.shape == (3, 8, *SIZE)
    assert not y.any()


def test_every_block_of_a_fresh_network_is_the_identity() -> None:
    network = fresh()
    received, returned = blocks_record(network)
    network(*inputs(network))
    assert len(returned) == 4
    assert all(torch.equal(x, y) for (x, _), y in zip(received, returned, strict=True))


def test_training_reaches_the_output_then_the_modulation_then_everything() -> None:
    """Gates at zero hold back the gradient of what lies behind them, one step each."""
    network = fresh(**SPATIAL)
    target = torch.randn(3, 8, *SIZE, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0)
    names = {name for name, _ in network.named_parameters()}
    moved = []
    for _ in range(3):
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        optimizer.zero_grad()
        F.mse_loss(network(*inputs(network)), target).backward()
        optimizer.step()
        moved.append(
            {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
        )
    output = {"output.weight", "output.bias"}
    assert moved[0] == output
    inside_blocks = {name for name in names if ".attention." in name or ".mlp." in name}
    assert moved[1] == names - inside_blocks - {name for name in names if name.startswith("time_embedding")}
    assert moved[2] == names


def test_initial_weights_are_those_of_the_published_recipe() -> None:
    torch.manual_seed(0)
    network = DiT(input_size=16, hidden_size=128, depth=1, num_heads=4)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "modulation" in name or name.startswith("output"):
            assert not parameter.any(), name
            continue
        deviation = 0.02 if name.startswith("time_embedding") else math.sqrt(2 / sum(parameter.shape))  # Xavier
        assert parameter.std().item() == pytest.approx(deviation, rel=0.05), name
        if not name.startswith("time_embedding"):
            assert parameter.abs().max() <= math.sqrt(3) * deviation  # uniform


# The function


def test_a_network_of_one_block_follows_its_formula() -> None:
    network = tiny(depth=1, **SPATIAL)
    x, t, conditions, source = inputs(network)
    d = network.hidden_size
    kernel = network.patch_embedding.linear.weight.unflatten(1, (2, 2, 8)).permute(0, 3, 1, 2)  # (D, 8, 2, 2)
    tokens = F.conv2d(torch.cat([x, source], 1), kernel, network.patch_embedding.linear.bias, stride=2)  # (B, D, 3, 2)
    h = tokens.flatten(2).mT + network.positions
    angles = torch.tensor([[step * 10000 ** (-k / 128) for k in range(128)] for step in t.tolist()])
    first, _, second = network.time_embedding
    time = second(F.silu(first(torch.cat([angles.cos(), angles.sin()], dim=1))))
    c = torch.cat([conditions[0] + time, conditions[1] + time], dim=1)
    h = network.blocks[0](h, c)
    modulation = network.output_modulation.linear(F.silu(c))[:, None]
    h = F.layer_norm(h, (d,), eps=1e-6) * (1 + modulation[..., d:]) + modulation[..., :d]
    pixels = network.output(h).view(3, 3, 2, 2, 2, 8)  # (B, i, j, u, v, channel)
    expected = torch.einsum("bijuvc->bciujv", pixels).reshape(3, 8, 6, 4)
    torch.testing.assert_close(network(x, t, conditions, source), expected, rtol=1e-4, atol=1e-4)


def test_conditions_are_joined_in_order_each_with_the_time() -> None:
    network = tiny()
    received, _ = blocks_record(network)
    x, t, (a, b), _ = inputs(network)
    network(x, t, [a, b])
    network(x, t, [torch.zeros_like(a), torch.zeros_like(b)])
    c, time = received[0][1], received[4][1]
    torch.testing.assert_close(c - time, torch.cat([a, b], dim=1))
    assert torch.equal(time[:, :16], time[:, 16:])


def test_without_conditions_there_is_the_time() -> None:
    network = tiny(num_conditions=0)
    received, _ = blocks_record(network)
    x, t, _, _ = inputs(network)
    y = network(x, t)
    assert received[0][1].shape == (3, 16)
    assert (network(x, t.flip(0)) - y).abs().max() > 1e-3


def test_every_input_has_an_influence() -> None:
    network = tiny(**SPATIAL)
    x, t, (a, b), source = inputs(network)
    y = network(x, t, [a, b], source)
    others = [(-x, t, [a, b], source), (x, t.flip(0), [a, b], source), (x, t, [-a, b], source)]
    others += [(x, t, [a, -b], source), (x, t, [a, b], -source), (x, t, [b, a], source)]
    for other in others:
        assert (network(*other) - y).abs().max() > 1e-2


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = tiny(**SPATIAL)
    x, t, conditions, source = inputs(network)
    one = network(x[1:2], t[1:2], [condition[1:2] for condition in conditions], source[1:2])
    torch.testing.assert_close(network(x, t, conditions, source)[1:2], one)


def test_moving_patches_moves_the_output_only_with_their_positions() -> None:
    network = tiny()
    x, t, conditions, _ = inputs(network)
    y = network(x, t, conditions)
    shifted = network(x.roll(2, dims=2), t, conditions)
    assert (shifted - y.roll(2, dims=2)).abs().max() > 1e-2
    network.positions = network.positions.view(3, 2, -1).roll(1, dims=0).flatten(0, 1)
    torch.testing.assert_close(network(x.roll(2, dims=2), t, conditions), y.roll(2, dims=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [4, 5, 7])
def test_long_skips_add_the_mirrored_block(depth: int) -> None:
    network, plain = tiny(depth=depth, long_skip=True), tiny(depth=depth)
    received, returned = blocks_record(network)
    y = network(*inputs(network))
    joined = [i for i in range(depth) if i > depth / 2]
    assert joined
    for i in range(1, depth):
        expected = returned[i - 1] + (returned[depth - 1 - i] if i in joined else 0)
        assert torch.equal(received[i][0], expected)
    assert num_parameters(plain) == num_parameters(network)
    assert (plain(*inputs(plain)) - y).abs().max() > 1e-2


def test_every_parameter_takes_part_in_the_loss() -> None:
    network = tiny(**SPATIAL)
    network(*inputs(network)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


# What conditioning can tell


def test_vectors_do_not_tell_where_things_are_and_a_source_does() -> None:
    """``global`` gets the same c for a source rolled by whole patches; ``spatial`` sees the place that changed."""
    torch.manual_seed(0)
    embedder = VisionEmbedder(input_size=SIZE, embed_dim=16, reduction=4)
    network, spatial = tiny(num_conditions=1), tiny(num_conditions=1, **SPATIAL)
    x, t, _, source = inputs(spatial)
    rolled = source.roll((2, 2), dims=(2, 3))
    y = network(x, t, [embedder.vector(source)])
    torch.testing.assert_close(network(x, t, [embedder.vector(rolled)]), y, rtol=1e-4, atol=1e-4)

    condition = [embedder.vector(source)]
    changed = source.clone()
    changed[:, :, 2:4, 0:2] += 1  # token (1, 0)
    change = (spatial(x, t, condition, changed) - spatial(x, t, condition, source)).abs().mean(dim=(0, 1))  # (6, 4)
    there = change[2:4, 0:2].mean()
    change[2:4, 0:2] = 0
    assert there > 2 * change.sum() / (6 * 4 - 4)
    assert there > 0.1


# Precision


def test_under_autocast_only_products_of_tokens_are_rounded() -> None:
    network = tiny(**SPATIAL)
    arguments = inputs(network)
    received, _ = blocks_record(network)
    exact = network(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(*arguments)
    assert y.dtype == torch.float32
    assert 0 < (y - exact).norm() < 0.03 * exact.norm()
    assert all(tensor.dtype == torch.float32 for pair in received for tensor in pair)
    assert torch.equal(received[0][0], received[4][0])  # first tokens
    assert torch.equal(received[0][1], received[4][1])  # condition


def test_neighboring_steps_are_told_apart_under_autocast() -> None:
    """In bfloat16 the integers 998 and 999 are one and the same."""
    network = tiny(num_conditions=0)
    received, _ = blocks_record(network)
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.zeros(2, 4, *SIZE), torch.tensor([998, 999]))
    assert (received[0][1][0] - received[0][1][1]).abs().max() > 1e-2


def test_gradients_under_autocast_are_those_of_full_precision_nearly() -> None:
    network = tiny(**SPATIAL)
    arguments, gradients = inputs(network), []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = network(*arguments)
        y.square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()


@pytest.mark.slow
def test_the_compiler_sees_one_graph() -> None:
    network = tiny(**SPATIAL)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.testing.assert_close(compiled(*inputs(network)), network(*inputs(network)), rtol=2e-2, atol=2e-2)


# Checkpoints and errors


def test_positions_are_not_part_of_a_checkpoint() -> None:
    assert "positions" not in fresh().state_dict()
    assert "positions" in dict(fresh().named_buffers())


def test_settings_tell_the_network() -> None:
    arguments = {
        **TINY,
        "patch_size": 1,
        "latent_channels": 3,
        "source_channels": 2,
        "out_channels": 6,
        "num_conditions": 1,
        "mlp_ratio": 2.0,
        "long_skip": True,
    }
    assert DiT(**arguments).settings() == {**arguments, "input_size": "6,4", "long_skip": 1}


def test_a_side_stands_for_a_square() -> None:
    assert fresh(input_size=8).input_size == (8, 8)
    assert fresh(input_size=[8, 4]).grid == (4, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": (7, 4)}, "DiT: input_size=7x4 does not divide into patches of patch_size=2"),
        ({"num_heads": 3}, "hidden_size=16 does not divide into num_heads=3"),
        ({"hidden_size": 18}, "dim=18 must be a multiple of 4"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"num_conditions": -1}, "num_conditions=-1"),
    ],
)
def test_impossible_networks_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fresh(**arguments)


X, T, C = torch.zeros(2, 4, *SIZE), torch.zeros(2).long(), torch.zeros(2, 16)


@pytest.mark.parametrize(
    ("arguments", "x", "t", "conditions", "source", "message"),
    [
        ({}, X.mT, T, (C, C), None, r"input of shape \(2, 4, 4, 6\); this network takes \(B, 4, 6, 4\)"),
        ({}, X[:, :3], T, (C, C), None, r"input of shape \(2, 3, 6, 4\)"),
        ({}, X, T[:1], (C, C), None, r"steps of shape \(1,\); give one per image, \(2,\)"),
        ({}, X, T, (C,), None, r"conditions of shapes \[\(2, 16\)\]; this network takes 2 of \(2, 16\)"),
        ({}, X, T, (C, C[:, :8]), None, r"\(2, 8\)\]; this network takes 2 of \(2, 16\)"),
        ({"num_conditions": 0}, X, T, (C,), None, "this network takes 0"),
        (SPATIAL, X, T, (C, C), None, "source missing; the network was built for one of 4 channels"),
        (SPATIAL, X, T, (C, C), X[:1], r"source of shape \(1, 4, 6, 4\); this network takes \(2, 4, 6, 4\)"),
        ({}, X, T, (C, C), X, "it was built with source_channels=0"),
    ],
)
def test_wrong_inputs_are_refused(
    arguments: dict[str, Any], x: Tensor, t: Tensor, conditions: Sequence[Tensor], source: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fresh(**arguments)(x, t, conditions, source)
