"""The latent space by name: a trained autoencoder or the pixels, or one error that says what to do."""

import sys
from pathlib import Path

import pytest
import torch

from common.networks.encoders.latent_spaces import latent_space
from common.networks.nets.pixel_space import PixelSpace
from common.networks.nets.quantized_autoencoder import QuantizedAutoencoder
from common.state_files import save_state

sys.path.insert(0, str(Path(__file__).parent))
from quantized_training import tiny_autoencoder


@pytest.mark.parametrize("wrapped", [False, True], ids=["weights", "checkpoint"])
def test_a_trained_autoencoder_comes_back_frozen(tmp_path: Path, wrapped: bool) -> None:
    trained = tiny_autoencoder()
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    trained(image)
    state = trained.state_dict()
    save_state({"model": state, "epoch": 3} if wrapped else state, tmp_path / "model.pt")
    space = latent_space("quantized", str(tmp_path / "model.pt"))
    assert isinstance(space, QuantizedAutoencoder)
    assert space.identity == trained.identity
    assert torch.equal(space.encode(image), trained.encode(image))
    assert not space.encode(image).requires_grad
    assert not space.training
    assert space.quantizer.frozen


def test_pixels_are_their_own_latents() -> None:
    space = latent_space("pixel")
    assert isinstance(space, PixelSpace)
    image = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3)
    assert space.encode(image).flatten().tolist() == [-1.0, -0.5, 1.0]
    assert torch.equal(space.reconstruct(image), image)
    assert space.decode(torch.tensor([-3.0, 3.0]), quantize=False).tolist() == [0.0, 1.0]
    assert (space.latent_channels, space.factor, space.identity) == (1, 1, "pixels")
    assert space.freeze() is space
    assert not space.training
    assert not space.state_dict()
    with pytest.raises(ValueError, match=r"images of shape \(2, 3, 4, 4\); needed are \(B, 1, X, Y\)"):
        space.encode(torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("path", [None, "nowhere/model.pt"])
def test_a_missing_autoencoder_is_one_error_that_names_the_stage(path: str | None) -> None:
    with pytest.raises(FileNotFoundError, match=r"no trained autoencoder at .*train_autoencoder\.json"):
        latent_space("quantized", path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_state({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt holds no autoencoder of train_autoencoder\.json"):
        latent_space("quantized", tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(RuntimeError, match=r"broken\.pt is not a readable checkpoint"):
        latent_space("quantized", tmp_path / "broken.pt")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind='vae' is unknown; choose one of quantized, pixel"):
        latent_space("vae")  # type: ignore[arg-type]
