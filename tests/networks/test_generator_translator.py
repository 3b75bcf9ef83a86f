"""Any image size goes through a generator that halves often; a checkpoint says what it was trained for."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.inferers.precision import supports_bfloat16
from common.networks.nets.generator_translator import GeneratorTranslator
from common.networks.nets.resnet_generator import ResNetGenerator
from common.networks.nets.unet_generator import UNetGenerator
from common.state_files import load_weights, save_state


class Same(nn.Module):
    """Gives back what it gets and keeps it."""

    def __init__(self, size_multiple: int) -> None:
        super().__init__()
        self.size_multiple = size_multiple

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        return image


def translator(
    generator: nn.Module | None = None,
    source: str = "mr",
    target: str = "ct",
    image_size: tuple[int, ...] = (12, 17),
    **more: Any,
) -> GeneratorTranslator:
    torch.manual_seed(0)
    return GeneratorTranslator(generator or UNetGenerator(channels=4, num_downs=3), source, target, image_size, **more)


def roundtrip(network: nn.Module) -> dict[str, Tensor]:
    """State dict as it comes out of a file of plain tensors."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# Sizes


@pytest.mark.parametrize(
    ("size", "multiple", "padded", "start"),
    [
        ((224, 224), 256, (256, 256), (16, 16)),
        ((12, 17), 8, (16, 24), (2, 3)),
        ((16, 24), 8, (16, 24), (0, 0)),
        ((5, 8), 4, (8, 8), (1, 0)),
    ],
    ids=str,
)
def test_images_are_padded_evenly_with_background_and_cropped_again(
    size: tuple[int, int], multiple: int, padded: tuple[int, int], start: tuple[int, int]
) -> None:
    generator = Same(multiple)
    source = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    result = translator(generator, image_size=size)(source)
    assert torch.equal(result, source)
    expected = torch.full((2, 1, *padded), -1.0)
    expected[..., start[0] : start[0] + size[0], start[1] : start[1] + size[1]] = source
    assert torch.equal(generator.seen, expected)


@pytest.mark.parametrize(
    "generator", [UNetGenerator(channels=4, num_downs=3), ResNetGenerator(channels=4, num_blocks=1)]
)
def test_both_generators_translate_a_size_they_do_not_take(generator: nn.Module) -> None:
    network = translator(generator)
    assert network.image_size == (12, 17)
    result = network(torch.zeros(2, 1, 12, 17))
    assert result.shape == (2, 1, 12, 17)
    assert result.abs().max() < 1
    network.check_ready()


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got images of \(17, 12\) pixels, built for \(12, 17\)"):
        translator()(torch.zeros(1, 1, 17, 12))


def test_the_result_is_in_full_precision_under_autocast() -> None:
    if not supports_bfloat16("cpu"):
        pytest.skip("this CPU has no fast bf16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert translator()(torch.zeros(1, 1, 12, 17)).dtype == torch.float32


# Checkpoints


def test_a_checkpoint_is_plain_tensors_and_gives_the_same_images() -> None:
    saved, loaded = translator().eval(), translator(UNetGenerator(channels=4, num_downs=3)).eval()
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1)
    loaded.load_state_dict(roundtrip(saved))
    source = torch.rand(2, 1, 12, 17, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(source), saved(source))


def test_one_message_names_every_setting_that_differs(tmp_path: Path) -> None:
    save_state(translator().state_dict(), tmp_path / "model.pt")
    other = translator(source="t2", image_size=(12, 16), hu_max=3000, mr_lower=1.0)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        load_weights(other, tmp_path / "model.pt")
    message = str(caught.value)
    for line in (
        str(tmp_path / "model.pt"),
        "source: checkpoint mr, this network t2",
        "height: checkpoint 17, this network 16",
        "hu_max: checkpoint 2000.0, this network 3000.0",
        "mr_lower: checkpoint 0.5, this network 1.0",
    ):
        assert line in message
    assert message.count(": checkpoint ") == 4
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    "variant",
    [
        {"target": "pet"},
        {"image_size": (13, 17)},
        {"fit": "crop"},
        {"hu_min": -1000},
        {"generator": ResNetGenerator(channels=4, num_blocks=1)},
    ],
    ids=lambda variant: next(iter(variant)),
)
def test_each_setting_is_recorded(variant: dict[str, Any]) -> None:
    name = {"image_size": "width"}.get(next(iter(variant)), next(iter(variant)))
    with pytest.raises(ValueError, match=rf"\n  {name}: checkpoint .*, this network"):
        translator(**variant).load_state_dict(translator().state_dict())


def test_weights_of_another_size_or_model_are_recognized() -> None:
    with pytest.raises(
        ValueError, match=r"generator\.downs\.0\.0\.weight: checkpoint \(4, 1, 4, 4\), this network \(8"
    ):
        translator(UNetGenerator(channels=8, num_downs=3)).load_state_dict(translator().state_dict())
    with pytest.raises(ValueError, match="it was not saved from a GeneratorTranslator"):
        translator().load_state_dict({"weight": torch.zeros(1)})


def test_a_network_inside_another_is_checked_too() -> None:
    outer = nn.ModuleDict({"to_target": translator()})
    outer.load_state_dict(nn.ModuleDict({"to_target": translator()}).state_dict())
    with pytest.raises(ValueError, match="fit: checkpoint crop, this network resize"):
        outer.load_state_dict(nn.ModuleDict({"to_target": translator(fit="crop")}).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "ct"}, "source and target are both 'ct'; name two modalities"),
        ({"image_size": (16,)}, "image_size must be two positive numbers"),
        ({"image_size": (0, 16)}, "image_size must be two positive numbers"),
        ({"hu_min": 2000}, "hu_min=2000 must be below hu_max=2000.0"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        translator(**options)
