"""Spaces of features that need weights: latents of an autoencoder, and what a report asks for by path."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.networks.encoders.feature_spaces import EncoderFeatures, feature_spaces
from common.networks.nets.quantized_autoencoder import QuantizedAutoencoder


@pytest.fixture
def autoencoder() -> QuantizedAutoencoder:
    torch.manual_seed(0)
    return QuantizedAutoencoder(channels=(4, 8), num_res_layers=1, num_embeddings=8, embedding_dim=3)


def images(size: int = 32) -> Tensor:
    return torch.rand(5, 1, size, size, generator=torch.Generator().manual_seed(0))


def test_features_are_area_means_of_the_continuous_latents(autoencoder: QuantizedAutoencoder) -> None:
    space = EncoderFeatures(autoencoder, cells=4)
    features = space(images())
    latent = autoencoder.encode(images())  # (5, 3, 8, 8)
    assert features.shape == (5, 3 * 4 * 4)
    assert features.dtype == torch.float64
    torch.testing.assert_close(features.reshape(5, 3, 4, 4)[2, 1, 3, 0], latent[2, 1, 6:8, 0:2].double().mean())
    assert not features.requires_grad
    assert space.name == "frechet_distance_encoder"
    assert space.identity == f"{autoencoder.identity}-4x4"


def test_codebook_does_not_move(autoencoder: QuantizedAutoencoder) -> None:
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    EncoderFeatures(autoencoder.train())(images())
    for name, value in autoencoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not autoencoder.training


def test_too_small_images_are_refused(autoencoder: QuantizedAutoencoder) -> None:
    with pytest.raises(ValueError, match="hold no 4x4 grid"):
        EncoderFeatures(autoencoder)(images(12))


def test_spaces_are_made_as_asked_for(
    autoencoder: QuantizedAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert feature_spaces() == ()
    torch.save({"model": autoencoder.state_dict()}, tmp_path / "model.pt")
    (space,) = feature_spaces(encoder_path=tmp_path / "model.pt")
    torch.testing.assert_close(space(images()), EncoderFeatures(autoencoder)(images()))
    with pytest.raises(FileNotFoundError, match=r"train_autoencoder\.json"):
        feature_spaces(encoder_path=tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="no weights of Inception-v3"):
        feature_spaces(fid=True)
