"""A trained autoencoder by name, or one error that says what to do."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.networks.encoders.autoencoders import pretrained_autoencoder
from common.networks.nets.scratch_autoencoder import ScratchAutoencoder
from common.state_files import save_state

sys.path.insert(0, str(Path(__file__).parent))
from diffusers_files import SMALL, make_vae
from hub_cache import BREAKS

pytestmark = pytest.mark.usefixtures("network")

WINDOW = (-1024.0, 2000.0)


def trained(*, scaled: bool = True) -> ScratchAutoencoder:
    torch.manual_seed(0)
    autoencoder = ScratchAutoencoder(ct_window=WINDOW, channels=(4, 8), norm_groups=2)
    if scaled:
        autoencoder.set_scale(0.5)
    return autoencoder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What ``train_autoencoder.json`` writes."""
    save_state(trained().state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_a_trained_autoencoder_comes_back_frozen(path: Path) -> None:
    autoencoder = pretrained_autoencoder("scratch", path, ct_window=[-1024, 2000])
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = trained().encode_moments(image)[0]
    mean = autoencoder.encode_moments(image)[0]
    assert torch.equal(mean, expected)
    assert not mean.requires_grad
    assert not autoencoder.training
    assert autoencoder.scale == 2.0
    assert autoencoder.identity == trained().identity


def test_a_training_checkpoint_is_understood(tmp_path: Path) -> None:
    save_state({"model": trained().state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    autoencoder = pretrained_autoencoder("scratch", str(tmp_path / "checkpoint.pt"), ct_window=WINDOW)
    assert autoencoder.identity == trained().identity


def test_stable_diffusion_comes_from_a_folder(tmp_path: Path) -> None:
    make_vae(tmp_path / "vae", **SMALL)
    autoencoder = pretrained_autoencoder("sd-vae-ft-mse", tmp_path / "vae", ct_window=WINDOW)
    assert autoencoder.identity.startswith("sd-vae-ft-mse:")
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind='vqgan' is unknown; choose one of scratch, sd-vae-ft-mse"):
        pretrained_autoencoder("vqgan", ct_window=WINDOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [None, "models/autoencoder/model.pt", "."])
def test_a_missing_file_names_the_stage_that_makes_it(place: str | None, tmp_path: Path) -> None:
    given = None if place is None else tmp_path / place
    with pytest.raises(FileNotFoundError, match=r"train_autoencoder\.json") as error:
        pretrained_autoencoder("scratch", given, ct_window=WINDOW)
    assert f"no trained autoencoder at {given}." in str(error.value)


@pytest.mark.parametrize("given", [True, False], ids=["folder", "cache"])
@pytest.mark.parametrize("consent", [True, False], ids=["consent", "no consent"])
def test_missing_weights_name_the_places_tried_and_all_ways_out(
    given: bool, consent: bool, tmp_path: Path, network: list[Any]
) -> None:
    folder = tmp_path / "none" if given else None
    with pytest.raises(FileNotFoundError) as error:
        pretrained_autoencoder("sd-vae-ft-mse", folder, ct_window=WINDOW, allow_download=consent)
    text = str(error.value)
    places = [f"folder {folder}"] if given else ["Hugging Face cache", "no network" if consent else "not asked for"]
    ways = ["hf download stabilityai/sd-vae-ft-mse", "HF_HOME", "allow_download=True", "autoencoder 'scratch'"]
    for expected in ["config.json and diffusion_pytorch_model.safetensors", *places, *ways]:
        assert expected in text
    assert bool(network) == (consent and not given)


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_file_is_named(broken: Callable[[Path], None], path: Path) -> None:
    broken(path)
    with pytest.raises(RuntimeError, match=r"model\.pt is not a readable checkpoint"):
        pretrained_autoencoder("scratch", path, ct_window=WINDOW)


def test_weights_of_something_else_are_refused(path: Path) -> None:
    save_state(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ValueError, match=r"model\.pt holds no autoencoder of train_autoencoder\.json"):
        pretrained_autoencoder("scratch", path, ct_window=WINDOW)


def test_another_window_of_ct_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"CT between -1024 and 2000 HU, asked for is -1024 and 3000 HU\. Set hu_min"):
        pretrained_autoencoder("scratch", path, ct_window=(-1024, 3000))


def test_latents_without_a_scale_are_refused(path: Path) -> None:
    save_state(trained(scaled=False).state_dict(), path)
    with pytest.raises(ValueError, match="the scale of the latents is not set"):
        pretrained_autoencoder("scratch", path, ct_window=WINDOW)
