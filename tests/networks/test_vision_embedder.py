"""Vision Embedder: its sizes, the gate that has no effect and the one that has, and its checkpoints."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.nets.vision_embedder import VisionEmbedder

PAPER: dict[str, Any] = {"input_size": 28}
TOKEN: dict[str, Any] = {"gate_axis": "token", "reduction": 14}
TINY: dict[str, Any] = {"input_size": (6, 4), "embed_dim": 16, "reduction": 2}


def embedder(**arguments: Any) -> VisionEmbedder:
    torch.manual_seed(0)
    return VisionEmbedder(**arguments)


def latents(batch: int = 4, size: tuple[int, int] = (28, 28)) -> Tensor:
    return torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(1))


def tokens_of(network: VisionEmbedder, z: Tensor) -> Tensor:
    p = network.patch_embedding.patch_size
    kernel = network.patch_embedding.linear.weight.unflatten(1, (p, p, 4)).permute(0, 3, 1, 2)
    return F.conv2d(z, kernel, network.patch_embedding.linear.bias, stride=p).flatten(2).mT  # (B, L, D)


# Sizes


@pytest.mark.parametrize(("arguments", "count"), [({}, 43_040), (TOKEN, 15_426)], ids=["channel", "token"])
def test_parameters_are_as_many_as_specified(arguments: dict[str, Any], count: int) -> None:
    network = embedder(**PAPER, **arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(("arguments", "gate"), [({}, (4, 1, 512)), (TOKEN, (4, 196, 1))], ids=["channel", "token"])
def test_tokens_vector_and_gate_have_their_shapes(arguments: dict[str, Any], gate: tuple[int, ...]) -> None:
    network, z = embedder(**PAPER, **arguments), latents()
    assert network(z).shape == (4, 196, 512)
    assert network.gate(z).shape == gate
    torch.testing.assert_close(network.vector(z), network(z).mean(1))


@pytest.mark.parametrize("patch_size", [2, 4, 7, 14])
def test_patches_of_every_published_size(patch_size: int) -> None:
    assert embedder(**PAPER, patch_size=patch_size)(latents(1)).shape == (1, (28 // patch_size) ** 2, 512)


# The function


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_tokens_follow_their_formula(axis: str) -> None:
    network, z = embedder(**TINY, gate_axis=axis), latents(size=(6, 4))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    tokens = tokens_of(network, z)
    first, _, second = network.gate_mlp
    if axis == "token":
        tokens = tokens.mT  # (B, D, L): what is gated, last
    score = sum(
        second(first(pooled).clamp(min=0)) for pooled in (tokens.sum(1) / tokens.shape[1], tokens.max(1).values)
    )
    gated = tokens * (1 / (1 + (-score).exp()))[:, None]
    if axis == "token":
        gated = gated.mT
    torch.testing.assert_close(network(z), network.norm(gated), rtol=1e-4, atol=1e-4)


def test_the_gate_lies_between_0_and_1() -> None:
    gate = embedder(**PAPER).gate(latents())
    assert 0 < gate.min() < gate.max() < 1


def test_a_gate_of_tokens_is_undone_by_the_norm_and_one_of_channels_is_not() -> None:
    """A layer norm takes out a positive factor that the channels of a token share."""
    z = latents()
    for arguments in ({}, TOKEN):
        network = embedder(**PAPER, **arguments)
        change = (network(z) - network.norm(tokens_of(network, z))).abs().max()
        assert (change > 0.1) if network.gate_axis == "channel" else (0 < change < 5e-3)


def test_a_gate_of_tokens_hardly_learns() -> None:
    """The gradient of its weights relative to those of the embedding, against a gate of channels."""
    z, ratio = latents(), {}
    for arguments in ({}, TOKEN):
        network = embedder(**PAPER, **arguments)
        direction = torch.randn(4, 196, 512, generator=torch.Generator().manual_seed(2))
        (network(z) * direction).sum().backward()
        gate, linear = network.gate_mlp[2].weight.grad, network.patch_embedding.linear.weight.grad
        ratio[network.gate_axis] = gate.norm() / linear.norm()
    assert ratio["token"] < 0.05 * ratio["channel"]


def test_the_vector_does_not_know_the_order_of_patches() -> None:
    network, z = embedder(**PAPER), latents()
    order = torch.randperm(196, generator=torch.Generator().manual_seed(0))
    patches = F.unfold(z, 2, stride=2)[..., order]
    shuffled = F.fold(patches, (28, 28), 2, stride=2)
    for other in (shuffled, z.roll((4, -6), dims=(2, 3))):
        torch.testing.assert_close(network.vector(other), network.vector(z), rtol=0, atol=1e-5)
    assert (network.vector(z.roll(1, dims=2)) - network.vector(z)).abs().max() > 1e-3  # no whole patch


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network, z = embedder(**PAPER), latents()
    torch.testing.assert_close(network(z)[1:2], network(z[1:2]))


def test_autocast_changes_nothing() -> None:
    network, z = embedder(**PAPER), latents()
    with torch.autocast("cpu", torch.bfloat16):
        tokens, gate = network(z), network.gate(z)
    assert torch.equal(tokens, network(z))
    assert torch.equal(gate, network.gate(z))


# Checkpoints

CHECKPOINT = TINY | {"autoencoder": "scratch:0123456789ab"}


def test_a_checkpoint_gives_the_same_tokens() -> None:
    saved, z = embedder(**CHECKPOINT), latents(size=(6, 4))
    torch.manual_seed(5)
    loaded = VisionEmbedder(**CHECKPOINT)
    assert not torch.equal(loaded(z), saved(z))
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(z), saved(z))


def test_settings_are_told_and_recorded() -> None:
    network = embedder(**CHECKPOINT)
    assert network.settings() == {
        "input_size": "6,4",
        "patch_size": 2,
        "in_channels": 4,
        "embed_dim": 16,
        "gate_axis": "channel",
        "reduction": 2,
        "autoencoder": "scratch:0123456789ab",
    }
    assert {f"settings.{name}" for name in network.settings()} < set(network.state_dict())


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("input_size", (4, 4), "input_size: checkpoint 6,4, this network 4,4"),
        ("patch_size", 1, "patch_size: checkpoint 2, this network 1"),
        ("in_channels", 3, "in_channels: checkpoint 4, this network 3"),
        ("embed_dim", 8, "embed_dim: checkpoint 16, this network 8"),
        ("gate_axis", "token", "gate_axis: checkpoint channel, this network token"),
        ("reduction", 4, "reduction: checkpoint 2, this network 4"),
        ("autoencoder", "sd", "autoencoder: checkpoint scratch:0123456789ab, this network sd"),
    ],
)
def test_a_checkpoint_of_another_embedder_is_refused(name: str, value: object, line: str) -> None:
    network = embedder(**CHECKPOINT | {name: value})
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=line):
        network.load_state_dict(embedder(**CHECKPOINT).state_dict())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_a_network_inside_another_is_checked_too() -> None:
    outer = nn.ModuleDict({"embedder": embedder(**CHECKPOINT)})
    outer.load_state_dict(nn.ModuleDict({"embedder": embedder(**CHECKPOINT)}).state_dict())
    with pytest.raises(ValueError, match="autoencoder: checkpoint other"):
        outer.load_state_dict(nn.ModuleDict({"embedder": embedder(**TINY, autoencoder="other")}).state_dict())


def test_another_model_s_or_incomplete_weights_are_refused() -> None:
    network = embedder(**CHECKPOINT)
    with pytest.raises(ValueError, match="it was not saved from a VisionEmbedder"):
        network.load_state_dict({"weight": torch.zeros(1)})
    state = network.state_dict()
    del state["norm.bias"]
    state["gate_mlp.0.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match="made for another network") as caught:
        network.check_compatible(state)
    assert "norm.bias: checkpoint absent, this network (16,)" in str(caught.value)
    assert "gate_mlp.0.weight: checkpoint (3,), this network (8, 16)" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 27}, "VisionEmbedder: input_size=27x27 does not divide"),
        ({"gate_axis": "space"}, "gate_axis='space' is unknown; choose one of channel, token"),
        ({"reduction": 5}, r"the 512 gates \(gate_axis='channel'\) do not divide by reduction=5"),
        ({"gate_axis": "token"}, r"the 196 gates \(gate_axis='token'\) do not divide by reduction=16"),
    ],
)
def test_impossible_networks_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embedder(**PAPER | arguments)


def test_latents_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latents of shape \(4, 4, 28, 24\); this network takes \(B, 4, 28, 28\)"):
        embedder(**PAPER)(latents(size=(28, 24)))
