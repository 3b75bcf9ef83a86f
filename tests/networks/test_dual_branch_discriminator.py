"""Dual-branch discriminator: sizes, that it compares image and edges, and that every edge pixel counts."""

from typing import Any

import pytest
import torch
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from common.networks.nets.dual_branch_discriminator import DualBranchDiscriminator

TINY = {"channels": 4, "num_layers": 2, "edge_channels": (4, 4), "fusion_channels": 3}
CPU = {"channels": 16, "num_layers": 2, "edge_channels": (16, 32, 32), "fusion_channels": 16}


def tiny(**changes: Any) -> DualBranchDiscriminator:
    torch.manual_seed(0)
    return DualBranchDiscriminator(**{**TINY, **changes})


def pair(batch: int = 2, size: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 1, size, size, generator=generator)
    return images, (torch.rand(batch, 1, size, size, generator=generator) < 0.05).float()


@pytest.mark.parametrize(
    ("size", "settings", "logits"),
    [(128, {}, 14), (64, {"num_layers": 2}, 14), (64, {}, 6), (160, {}, 18), (64, CPU, 14)],
)
def test_logits_form_a_map(size: int, settings: dict[str, Any], logits: int) -> None:
    with torch.device("meta"):
        network = DualBranchDiscriminator(**settings)
        image = torch.empty(3, 1, size, size)
        assert network(image, image).shape == (3, 1, logits, logits)


def test_parameters_are_as_many_as_specified() -> None:
    with torch.device("meta"):
        network = DualBranchDiscriminator(**CPU)
        assert sum(parameter.numel() for parameter in network.parameters()) == 55_249
        # by hand: 3x3 and 1x1 from 2, 32 and 64 channels to 16, 32 and 64, then 3x3 from 128 to 64
        edges = 2 * 16 * 10 + 32 + 32 * 32 * 10 + 64 + 64 * 64 * 10 + 128 + 128 * 64 * 9 + 64
        patches = 64 * 16 + 64 + 2 * (128 + 256 + 512) + 16 * (64 * 128 + 128 * 256 + 256 * 512)
        fusion = (512 + 64) * 16 + 1
        network = DualBranchDiscriminator()
        assert sum(parameter.numel() for parameter in network.parameters()) == edges + patches + fusion


def test_only_an_edge_map_changes_the_logits() -> None:
    network = tiny()
    image, edges = pair()
    assert not torch.equal(network(image, edges), network(image, torch.zeros_like(edges)))


def test_every_pixel_of_an_edge_counts() -> None:
    """A convolution with stride 2 and a kernel of one pixel would skip three of four."""
    network = tiny(edge_channels=(16, 16)).eval()
    with torch.no_grad():  # nothing but the 1x1 convolutions, and these positive, so that no ReLU hides a pixel
        for wide in network.edges.wide:  # type: ignore[union-attr]
            wide.weight.zero_()  # type: ignore[union-attr, operator]
        for narrow in network.edges.narrow:  # type: ignore[union-attr]
            narrow.weight.abs_()  # type: ignore[union-attr, operator]
    place = torch.arange(64)
    edges = torch.zeros(64, 1, 32, 32)
    edges[place, 0, 12 + place // 8, 12 + place % 8] = 1.0
    image = torch.full_like(edges, 0.5)
    change = network(image, edges) - network(image, torch.zeros_like(edges))
    assert (change.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("branch", ["patch", "edge"])
def test_the_image_gets_a_gradient_through_each_branch(branch: str) -> None:
    network = tiny()
    features = 4 * 2**2
    with torch.no_grad():
        network.fusion.weight[:, features:] *= branch == "edge"
        network.fusion.weight[:, :features] *= branch == "patch"
    image, edges = pair()
    image.requires_grad_()
    logits = network(image, edges)
    (gradient,) = torch.autograd.grad(logits.square().sum(), image)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_one_image_gets_the_same_logits_in_training_and_evaluation_and_in_any_batch() -> None:
    network = tiny()
    image, edges = pair(3)
    image[0] *= 4
    together, alone = network.train()(image, edges)[1:2], network(image[1:2], edges[1:2])
    torch.testing.assert_close(together, alone)
    assert torch.equal(alone, network.eval()(image[1:2], edges[1:2]))


def test_batch_norm_is_a_choice() -> None:
    kinds = {norm: {type(m) for m in tiny(norm=norm).modules()} for norm in ("batch", "instance")}
    assert nn.BatchNorm2d in kinds["batch"] - kinds["instance"]
    assert nn.InstanceNorm2d in kinds["instance"] - kinds["batch"]
    assert all(m.affine for m in tiny().modules() if isinstance(m, nn.InstanceNorm2d))


def test_without_edge_branch_it_is_the_plain_discriminator() -> None:
    reference = PatchDiscriminator(2, 4, 1, num_layers_d=2, norm=("instance", {"affine": True}))
    network = tiny(edge_branch=False)
    network.load_state_dict(dict(zip(network.state_dict(), reference.state_dict().values(), strict=True)))
    image, edges = pair()
    assert torch.equal(network(image), reference(image)[-1])
    assert torch.equal(network(image, edges), network(image))


def test_initial_kernels_deviate_by_002() -> None:
    torch.manual_seed(0)
    network = DualBranchDiscriminator(channels=32, edge_channels=(32, 64))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize("edges", [None, torch.zeros(2, 1, 16, 16), torch.zeros(1, 1, 32, 32)])
def test_missing_or_other_edges_are_refused(edges: Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"images of shape \(2, 1, 32, 32\) need edges of that shape, got"):
        tiny()(pair()[0], edges)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "layer"}, "norm='layer' is unknown; choose one of instance, batch"),
        ({"edge_channels": (4, 5)}, r"edge_channels=\[4, 5\] must be even numbers"),
        ({"edge_channels": ()}, r"edge_channels=\[\] must be even"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)
