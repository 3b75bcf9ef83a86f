"""Segmentation networks: sizes, round trips through files, bodies that change their head."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.networks.encoders.segmenters import pretrained_segmenter
from common.networks.nets.context_encoder import ContextEncoder
from common.networks.nets.pixel_network import PixelNetwork
from common.networks.nets.segmenter import Segmenter

MMWHS = {0: 0, 500: 1, 420: 2, 421: 2}
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"architecture": "unet", "features": (4, 4, 8, 8, 8, 6)},
    "swin_unet": {
        "architecture": "swin_unet",
        "embed_dim": 8,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 2, 2, 4),
        "window_size": 4,
    },
}
BOTH = pytest.mark.parametrize("architecture", list(SMALL))


def segmenter(body: str, seed: int = 0, **changes: Any) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(**{"label_values": MMWHS, "image_size": (32, 64), **SMALL[body], **changes})


def context_encoder(architecture: str, seed: int = 1) -> ContextEncoder:
    torch.manual_seed(seed)
    return ContextEncoder(image_size=(32, 64), **SMALL[architecture])


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({}, 1_978_532),
        ({"features": (64, 128, 256, 512, 1024, 64)}, 31_112_260),
        ({"architecture": "swin_unet", "image_size": (224, 224)}, 27_165_348),
    ],
    ids=["small", "classic", "swin"],
)
def test_networks_have_the_published_sizes(settings: dict[str, Any], number: int) -> None:
    arguments: dict[str, Any] = {"label_values": {0: 0, 1: 1, 2: 2, 3: 3}, "image_size": (128, 128), **settings}
    assert sum(weight.numel() for weight in Segmenter(**arguments).network.parameters()) == number


@BOTH
def test_logits_are_float32_also_under_autocast(architecture: str) -> None:
    network = segmenter(architecture)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.rand(2, 1, 32, 64))
    assert (logits.shape, logits.dtype) == ((2, 3, 32, 64), torch.float32)


@BOTH
def test_the_prediction_is_the_class_of_the_largest_logit(architecture: str) -> None:
    network, image = segmenter(architecture).eval(), torch.rand(2, 1, 32, 64)
    predicted, logits = network.predict(image), network(image)
    assert predicted.shape == (2, 1, 32, 64)
    assert torch.equal(logits.gather(1, predicted)[:, 0], logits.amax(dim=1))


@BOTH
@pytest.mark.parametrize("spacing", [None, 1.5])
def test_a_state_dict_alone_rebuilds_the_network(architecture: str, spacing: float | None, tmp_path: Path) -> None:
    network = segmenter(architecture, spacing_mm=spacing).eval()
    torch.save({"model": network.state_dict()}, tmp_path / "model.pt")
    again = pretrained_segmenter(tmp_path / "model.pt")
    image = torch.rand(1, 1, 32, 64)
    assert torch.equal(again(image), network(image))
    assert (again.label_values, again.num_classes, again.image_size) == (MMWHS, 3, (32, 64))
    assert (again.spacing_mm, again.architecture) == (spacing, architecture)
    assert not again.training
    assert not any(weight.requires_grad for weight in again.parameters())


@BOTH
def test_a_context_encoder_is_rebuilt_too(architecture: str) -> None:
    network, image = context_encoder(architecture).eval(), torch.rand(1, 1, 32, 64)
    again = ContextEncoder.from_state_dict(network.state_dict()).eval()
    assert network(image).shape == image.shape
    assert torch.equal(again(image), network(image))


def head_of(network: PixelNetwork) -> list[str]:
    names = [name for name in network.state_dict() if name.startswith(("network.final_conv.", "network.head."))]
    assert names
    return names


@BOTH
def test_a_body_goes_over_whole_and_the_head_stays(architecture: str) -> None:
    pretrained, network = context_encoder(architecture), segmenter(architecture)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_body(pretrained.state_dict())
    after, theirs, head = network.state_dict(), pretrained.state_dict(), head_of(network)
    for name, value in after.items():
        source = before if name in head or name.startswith("settings.") else theirs
        assert torch.equal(value, source[name]), name
    moved = [name for name in after if name not in head and not torch.equal(after[name], before[name])]
    assert len(moved) >= 4  # the two networks did differ


def test_a_body_may_come_from_a_segmenter_of_other_classes() -> None:
    source, network = segmenter("unet", seed=3), segmenter("unet", label_values={0: 0, 7: 1}, spacing_mm=1.25)
    network.load_body(source.state_dict())
    name = "network.conv_0.conv_0.conv.weight"
    assert torch.equal(network.state_dict()[name], source.state_dict()[name])
    assert (network.label_values, network.settings()["spacing_mm"]) == ({0: 0, 7: 1}, 1.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": (4, 4, 8, 8, 16, 6)}, "features: checkpoint 4,4,8,8,8,6, this network 4,4,8,8,16,6"),
        (SMALL["swin_unet"], "architecture: checkpoint unet, this network swin_unet"),
    ],
    ids=["widths", "architecture"],
)
def test_a_body_of_another_architecture_is_refused(changes: dict[str, Any], message: str) -> None:
    network = segmenter("unet", **changes)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        network.load_body(context_encoder("unet").state_dict())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_without_settings_are_not_taken_for_a_body() -> None:
    with pytest.raises(ValueError, match="settings: absent"):
        segmenter("unet").load_body({"weight": torch.zeros(1)})


def test_weights_of_other_classes_are_refused_with_both_values() -> None:
    state = segmenter("unet").state_dict()
    with pytest.raises(ValueError, match="label_values: checkpoint 0:0,420:2,421:2,500:1, this network 0:0,1:1"):
        segmenter("unet", label_values={0: 0, 1: 1}).load_state_dict(state)


@pytest.mark.parametrize("shape", [(1, 1, 64, 32), (1, 3, 32, 64), (1, 1, 64, 64)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="slices of 32 x 64 pixels in one channel"):
        segmenter("unet")(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_values": {0: 0, 1: 2}}, "without gaps"),
        ({"label_values": {0: 0}}, "K at least 2"),
        ({"image_size": (32, 40)}, "multiples of 16"),
        ({"image_size": (16, 64)}, "at least 32"),
        ({"features": (4, 4, 8, 8, 8)}, "five levels"),
        ({"architecture": "swinunetr"}, "choose one of unet, swin_unet"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter("unet", **changes)


def test_absent_weights_name_the_training_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cardiac_segmentation.*train\.json"):
        pretrained_segmenter(tmp_path / "model.pt")


@pytest.mark.parametrize("state", [{"weight": torch.zeros(1)}, {"settings.architecture": torch.tensor([1, 2])}])
def test_weights_of_something_else_are_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt holds no network of the bundle cardiac_segmentation"):
        pretrained_segmenter(tmp_path / "other.pt")


def test_a_context_encoder_is_no_segmenter(tmp_path: Path) -> None:
    torch.save(context_encoder("unet").state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="label_values: not recorded"):
        pretrained_segmenter(tmp_path / "model.pt")
