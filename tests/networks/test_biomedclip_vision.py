"""BiomedCLIP's vision tower from files in open_clip's format."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.networks.encoders.biomedclip import MODEL
from common.networks.encoders.biomedclip_vision import BiomedCLIPVision

sys.path.insert(0, str(Path(__file__).parent))
from biomedclip_files import CONFIG, MEAN, STD, WEIGHTS, make_tower
from hub_cache import BREAKS, as_cache

pytestmark = pytest.mark.usefixtures("network")

SIDE = 160  # of timm's test_vit


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with a small tower, and open_clip's network of it."""
    folder = tmp_path_factory.mktemp("model") / "biomedclip"
    return folder, make_tower(folder, "test_vit", 16)


@pytest.fixture
def folder(original: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original[0], tmp_path / "biomedclip"))


def images(side: int = SIDE) -> Tensor:
    return torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def as_the_tower_was_trained(image: Tensor) -> Tensor:
    """What CLIP's own preprocessing makes of a grey image in [0, 1]."""
    from torchvision.transforms import Normalize

    return Normalize(MEAN, STD)((image + 1) / 2 * torch.ones(3, 1, 1))


def seen_by_the_tower(encoder: BiomedCLIPVision, image: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = encoder.trunk.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    encoder(image)
    handle.remove()
    return seen[0]


def test_vectors_are_those_of_open_clip(original: tuple[Path, Any], network: list[Any]) -> None:
    folder, tower = original
    vectors = BiomedCLIPVision(folder)(images())
    with torch.no_grad():
        expected = tower(as_the_tower_was_trained(images()))
    assert vectors.shape == (2, 16)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors, expected)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    assert network == []


@pytest.mark.slow
def test_published_architecture_loads(tmp_path: Path) -> None:
    """The real tower's size with random weights: 151 tensors, 86,191,872 parameters, 512 numbers per image."""
    tower = make_tower(tmp_path / "whole", "vit_base_patch16_224", 512)
    weights = torch.load(tmp_path / "whole" / WEIGHTS, weights_only=True)
    assert sum(name.startswith("visual.") for name in weights) == 151
    encoder = BiomedCLIPVision(tmp_path / "whole")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 86_191_872
    vectors = encoder(images(224))
    assert vectors.shape == (2, 512)
    with torch.no_grad():
        torch.testing.assert_close(vectors, tower(as_the_tower_was_trained(images(224))))


def test_normalization_can_be_left_out(original: tuple[Path, Any]) -> None:
    raw = BiomedCLIPVision(original[0], normalize=False)
    assert torch.equal(seen_by_the_tower(raw, images()), images().expand(-1, 3, -1, -1))
    black = seen_by_the_tower(BiomedCLIPVision(original[0]), -torch.ones(1, 1, SIDE, SIDE))
    torch.testing.assert_close(black[0, :, 0, 0], -torch.tensor(MEAN) / torch.tensor(STD))


def test_images_of_any_size_come_to_the_towers_without_aliasing(original: tuple[Path, Any]) -> None:
    """Stripes finer than a pixel of the tower are grey, whichever of them lies in its middle."""
    encoder = BiomedCLIPVision(original[0], normalize=False)
    stripes = torch.tensor([1.0, -1.0, -1.0, 1.0]).repeat(SIDE)  # four to a pixel
    seen = seen_by_the_tower(encoder, stripes[None, None, :, None].expand(1, 1, -1, SIDE))
    assert seen.shape == (1, 3, SIDE, SIDE)
    assert seen[..., 1:-1, :].abs().max() < 1e-6
    assert (seen_by_the_tower(encoder, torch.ones(1, 1, 50, 70)) - 1).abs().max() < 1e-6


def test_autocast_changes_nothing(original: tuple[Path, Any]) -> None:
    encoder = BiomedCLIPVision(original[0])
    expected = encoder(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(images()), expected)


def test_it_is_frozen(original: tuple[Path, Any]) -> None:
    encoder = BiomedCLIPVision(original[0])
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_identity_is_that_of_the_vectors(original: tuple[Path, Any], folder: Path, tmp_path: Path) -> None:
    """Pickle, safetensors and cache hold the same weights; without normalization the same weights say another thing."""
    from safetensors.torch import save_file

    identity = BiomedCLIPVision(original[0]).identity
    save_file(torch.load(folder / WEIGHTS, weights_only=True), folder / "open_clip_model.safetensors")
    (folder / WEIGHTS).unlink()
    as_cache(original[0], tmp_path / "cache", MODEL)
    assert identity.startswith("biomedclip:")
    assert BiomedCLIPVision(folder).identity == BiomedCLIPVision().identity == identity
    assert BiomedCLIPVision(folder, normalize=False).identity == identity.replace("biomedclip", "biomedclip-raw")
    change_weights(original[0], folder, lambda weights: {**weights, NAME: weights[NAME] + 1})
    (folder / "open_clip_model.safetensors").unlink()
    assert BiomedCLIPVision(folder).identity != identity


@pytest.mark.parametrize("shape", [(1, 3, SIDE, SIDE), (1, SIDE, SIDE)])
def test_other_than_grey_images_are_refused(shape: tuple[int, ...], original: tuple[Path, Any]) -> None:
    with pytest.raises(ValueError, match=r"needed are \(B, 1, X, Y\)"):
        BiomedCLIPVision(original[0])(torch.zeros(shape))


@pytest.mark.parametrize("consent", [True, False], ids=["consent", "no consent"])
def test_missing_weights_name_the_places_tried_and_all_ways_out(consent: bool) -> None:
    with pytest.raises(FileNotFoundError) as error:
        BiomedCLIPVision(allow_download=consent)
    text = str(error.value)
    tried = ["Hugging Face cache", "no network in tests" if consent else "not asked for"]
    for expected in [*tried, f"hf download {MODEL.repository}", "HF_HOME", "allow_download=True", "'small_cnn'"]:
        assert expected in text


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_broken_files_are_named(name: str, broken: Callable[[Path], None], folder: Path) -> None:
    broken(folder / name)
    with pytest.raises(RuntimeError, match="BiomedCLIP's files cannot be used") as error:
        BiomedCLIPVision(folder)
    assert str(folder / name) in str(error.value)
    assert "git-lfs pointer" in str(error.value)


NAME = "visual.head.proj.weight"


def change_weights(source: Path, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    torch.save(change(torch.load(source / WEIGHTS, weights_only=True)), folder / WEIGHTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: {name: value for name, value in weights.items() if name != NAME},
            f"{NAME}: checkpoint absent",
        ),
        (lambda weights: {**weights, "visual.extra": torch.zeros(1)}, r"visual\.extra: checkpoint \(1,\), .* absent"),
        (lambda weights: {**weights, NAME: weights[NAME][:8]}, rf"{NAME}: checkpoint \(8, 64\)"),
        (lambda weights: {**weights, NAME: torch.full_like(weights[NAME], torch.nan)}, f"{NAME} is not finite"),
        (lambda weights: {"text.proj.weight": weights["text.proj.weight"]}, "and [0-9]+ more"),
    ],
    ids=["lacking", "more", "shape", "nan", "text only"],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, folder: Path
) -> None:
    change_weights(folder, folder, change)
    with pytest.raises(RuntimeError, match=message):
        BiomedCLIPVision(folder)


@pytest.mark.parametrize("change", [{"timm_proj": "mlp"}, {"timm_pool": "avg"}])
def test_other_towers_are_refused(change: dict[str, str], folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["model_cfg"]["vision_cfg"] |= change
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="describes another vision tower"):
        BiomedCLIPVision(folder)


def test_a_missing_package_is_named(original: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="BiomedCLIP needs `pip install timm`"):
        BiomedCLIPVision(original[0])
