"""The scale of latents is one over their standard deviation, measured when the weights are saved."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.handlers import latent_scale as module
from common.handlers.ema import EMA
from common.handlers.latent_scale import LatentScale
from common.networks.encoders.autoencoders import pretrained_autoencoder
from common.networks.nets.scratch_autoencoder import ScratchAutoencoder
from common.state_files import save_state

WINDOW = (-1024.0, 2000.0)


class Slices:
    """Pairs of images, as ``SliceDataset`` gives them; keeps which were asked for."""

    def __init__(self, number: int = 70) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = {
            "source": torch.rand(number, 1, 4, 6, generator=generator),
            "target": 2 * torch.rand(number, 1, 4, 6, generator=generator) ** 2 - 1,
        }
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images["target"])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        self.asked += indices
        return {key: images[list(indices)] for key, images in self.images.items()}


def average() -> EMA:
    """Of an autoencoder whose latents are far from centered."""
    torch.manual_seed(0)
    network = ScratchAutoencoder(ct_window=WINDOW, channels=(4, 8), norm_groups=2)
    nn.init.constant_(network.network.quant_conv_mu.conv.bias, 3.0)
    return EMA(network)


def latents(ema: EMA, images: Tensor) -> Tensor:
    with torch.no_grad():
        return ema.model.encode_moments(images)[0]


@pytest.mark.parametrize("key", ["target", "source"])
@pytest.mark.parametrize("number", [70, 512])
def test_scaled_latents_have_unit_deviation(key: str, number: int) -> None:
    """Of all elements together, around their mean, in uneven batches of slices."""
    ema, slices = average(), Slices()
    handler = LatentScale(ema, slices, key, number)
    means = latents(ema, slices.images[key])
    assert means.mean() > 1
    assert handler.deviation() == pytest.approx(means.double().std(unbiased=False).item(), rel=1e-5)
    scale = handler.state_dict()["latent_scale"].item()
    assert scale == pytest.approx(1 / means.double().std(unbiased=False).item(), rel=1e-5)
    assert (scale * means).std().item() == pytest.approx(1, abs=1e-3)


def test_slices_are_spread_over_the_data() -> None:
    ema, slices = average(), Slices()
    deviation = LatentScale(ema, slices, number=8).deviation()
    assert slices.asked == [0, 10, 20, 30, 39, 49, 59, 69]
    chosen = latents(ema, slices.images["target"][slices.asked])
    assert deviation == pytest.approx(chosen.std(unbiased=False).item(), rel=1e-5)


def test_the_average_s_weights_count_and_each_save_measures_anew() -> None:
    ema = average()
    handler = LatentScale(ema, Slices())
    first = handler.state_dict()["latent_scale"].clone()
    with torch.no_grad():
        ema.network.network.quant_conv_mu.conv.weight.mul_(100)
    assert torch.equal(handler.state_dict()["latent_scale"], first)
    with torch.no_grad():
        ema.model.network.quant_conv_mu.conv.weight.mul_(2)
    state = handler.state_dict()
    torch.testing.assert_close(state["latent_scale"], first / 2)
    assert state.keys() == ema.network.state_dict().keys()
    assert ema.network.latent_scale.isnan()  # the trained network has none


def test_training_goes_on_after_a_save() -> None:
    """The average takes the buffers of the network, then measures again."""
    ema = average()
    handler = LatentScale(ema, Slices())
    first = handler.state_dict()["latent_scale"].clone()
    ema.update(1)
    assert torch.equal(handler.state_dict()["latent_scale"], first)


def test_the_saved_weights_are_what_the_next_stage_needs(tmp_path: Path) -> None:
    ema, slices = average(), Slices()
    save_state(LatentScale(ema, slices).state_dict(), tmp_path / "model.pt")
    autoencoder = pretrained_autoencoder("scratch", tmp_path / "model.pt", ct_window=WINDOW)
    means = latents(ema, slices.images["target"])
    assert (autoencoder.scale * means).std().item() == pytest.approx(1, abs=1e-3)


def test_only_the_process_that_writes_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "process_rank", lambda: 1)
    slices = Slices()
    assert LatentScale(average(), slices).state_dict()["latent_scale"].isnan()
    assert slices.asked == []


def test_an_autoencoder_with_one_latent_for_all_is_not_saved() -> None:
    ema = average()
    nn.init.zeros_(ema.model.network.quant_conv_mu.conv.weight)
    with pytest.raises(ValueError, match=r"standard deviation is 0\.0; it must be positive"):
        LatentScale(ema, Slices()).state_dict()
