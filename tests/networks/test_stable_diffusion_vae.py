"""Stable Diffusion's autoencoder from small files of its format."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.networks.encoders.stable_diffusion_vae import FILES, StableDiffusionVAE

sys.path.insert(0, str(Path(__file__).parent))
from diffusers_files import PUBLISHED, SMALL, WEIGHTS, make_vae
from hub_cache import BREAKS, as_cache

pytestmark = pytest.mark.usefixtures("network")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder as the published one, and the network it holds."""
    folder = tmp_path_factory.mktemp("model") / "vae"
    return folder, make_vae(folder, **SMALL)


@pytest.fixture
def folder(original: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original[0], tmp_path / "vae"))


def images() -> Tensor:
    return torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def change_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_grey_images_go_in_as_three_equal_channels(original: tuple[Path, Any]) -> None:
    folder, vae = original
    mean, logvar = StableDiffusionVAE(folder).encode_moments(images())
    with torch.no_grad():
        expected = vae.encode(torch.cat([images()] * 3, dim=1)).latent_dist
    assert mean.shape == (2, 4, 2, 3)
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(logvar, expected.std.square().log(), atol=1e-5, rtol=1e-5)


def test_the_mean_of_three_channels_comes_out(original: tuple[Path, Any]) -> None:
    folder, vae = original
    z = 3 * torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        red, green, blue = vae.decode(z).sample.unbind(1)
    assert (red - green).abs().max() > 0.01
    image = StableDiffusionVAE(folder).decode(z)
    assert image.shape == (2, 1, 8, 12)
    torch.testing.assert_close(image[:, 0], ((red + green + blue) / 3).clamp(-1, 1))


def test_scale_and_factor_are_those_of_the_configuration(original: tuple[Path, Any]) -> None:
    autoencoder = StableDiffusionVAE(original[0])
    assert autoencoder.scale == 0.25
    assert autoencoder.factor == 4
    assert autoencoder.latent_channels == 4


def test_it_is_frozen(original: tuple[Path, Any]) -> None:
    autoencoder = StableDiffusionVAE(original[0])
    assert not autoencoder.training
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())
    assert not autoencoder.decode(autoencoder.encode_moments(images())[0]).requires_grad


def test_autocast_changes_nothing(original: tuple[Path, Any]) -> None:
    autoencoder = StableDiffusionVAE(original[0])
    mean, logvar = autoencoder.encode_moments(images())
    image = autoencoder.decode(mean)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(autoencoder.encode_moments(images())[0], mean)
        assert torch.equal(autoencoder.encode_moments(images())[1], logvar)
        assert torch.equal(autoencoder.decode(mean), image)


def test_folder_and_cache_are_one_autoencoder(original: tuple[Path, Any], tmp_path: Path, network: list[Any]) -> None:
    as_cache(original[0], tmp_path / "cache", FILES)
    given, cached = StableDiffusionVAE(original[0]), StableDiffusionVAE()
    assert given.identity == cached.identity
    assert given.identity.startswith("sd-vae-ft-mse:")
    assert network == []


def test_published_names_of_the_attention_are_understood(folder: Path) -> None:
    """The file on the hub is older than diffusers' present names for these layers."""
    expected = StableDiffusionVAE(folder).identity
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        for new, old in older.items():
            weights = {name.replace(f".attentions.0.{new}.", f".attentions.0.{old}."): w for name, w in weights.items()}
        return weights

    change_weights(folder, renamed)
    assert sum(".attentions.0.query." in name for name in load_file(folder / WEIGHTS)) == 4
    assert StableDiffusionVAE(folder).identity == expected


def test_half_precision_files_are_used_in_full_precision(folder: Path) -> None:
    change_weights(folder, lambda weights: {name: value.half() for name, value in weights.items()})
    autoencoder = StableDiffusionVAE(folder)
    assert {parameter.dtype for parameter in autoencoder.parameters()} == {torch.float32}
    assert autoencoder.encode_moments(images())[0].dtype == torch.float32


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_broken_files_are_named(name: str, broken: Callable[[Path], None], folder: Path) -> None:
    broken(folder / name)
    with pytest.raises(RuntimeError, match="stabilityai/sd-vae-ft-mse's files cannot be used") as error:
        StableDiffusionVAE(folder)
    assert str(folder / name) in str(error.value)
    assert "git-lfs pointer" in str(error.value)


NAME = "decoder.conv_out.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {name: value for name, value in weights.items() if name != NAME}, f"missing_keys .*{NAME}"),
        (lambda weights: {**weights, "extra": torch.zeros(1)}, "unexpected_keys .*extra"),
        (lambda weights: {**weights, NAME: weights[NAME].repeat(1, 2, 1, 1)}, NAME),
        (lambda weights: {**weights, NAME: torch.full_like(weights[NAME], torch.nan)}, f"{NAME} is not finite"),
    ],
    ids=["lacking", "more", "shape", "nan"],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, folder: Path
) -> None:
    """diffusers alone would fill what is lacking with random numbers and go on."""
    change_weights(folder, change)
    with pytest.raises(RuntimeError, match=message):
        StableDiffusionVAE(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"shift_factor": 0.1}, "another autoencoder"), ({"scaling_factor": 0.0}, r"scaling_factor=0\.0 .* is no scale")],
)
def test_other_latent_spaces_are_refused(settings: dict[str, float], message: str, folder: Path) -> None:
    change_config(folder, **settings)
    with pytest.raises(RuntimeError, match=message):
        StableDiffusionVAE(folder)


def test_grey_autoencoders_are_refused(tmp_path: Path) -> None:
    make_vae(tmp_path / "grey", **SMALL, in_channels=1)
    with pytest.raises(RuntimeError, match="not three channels to three"):
        StableDiffusionVAE(tmp_path / "grey")


def test_a_missing_package_is_named(original: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match="sd-vae-ft-mse needs `pip install diffusers`"):
        StableDiffusionVAE(original[0])


@pytest.mark.slow
def test_published_architecture_loads(tmp_path: Path) -> None:
    """The real network's size with random weights: 83,653,863 parameters, factor 8, scale 0.18215."""
    vae = make_vae(tmp_path, **PUBLISHED)
    autoencoder = StableDiffusionVAE(tmp_path)
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == 83_653_863
    assert autoencoder.scale == pytest.approx(0.18215, rel=1e-6)
    image = torch.rand(1, 1, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, _ = autoencoder.encode_moments(image)
    assert mean.shape == (1, 4, 8, 6)
    with torch.no_grad():
        torch.testing.assert_close(mean, vae.encode(image.expand(-1, 3, -1, -1)).latent_dist.mean)
