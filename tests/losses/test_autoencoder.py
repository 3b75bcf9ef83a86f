"""The loss of the autoencoder at reconstructions and latents whose cost is known."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from common.losses.autoencoder import AutoencoderLoss


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGE = normal(0, 2, 1, 8, 6)
STANDARD = {"mean": torch.zeros(2, 4, 2, 3), "logvar": torch.zeros(2, 4, 2, 3)}


def test_reconstruction_costs_its_mean_absolute_error() -> None:
    pred = IMAGE.clone()
    pred[1, 0, 2, 3] -= 4.8
    loss = AutoencoderLoss(kl_weight=1.0)({"image": pred, **STANDARD}, IMAGE)
    assert loss.item() == pytest.approx(4.8 / 96, rel=1e-5)  # a standard normal latent costs nothing


def test_divergence_is_summed_over_a_latent_and_averaged_over_the_batch() -> None:
    mean, logvar = normal(1, 2, 4, 2, 3), normal(2, 2, 4, 2, 3)
    posterior, prior = Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)
    expected = kl_divergence(posterior, prior).sum(dim=(1, 2, 3)).mean()
    terms = AutoencoderLoss().terms({"image": IMAGE, "mean": mean, "logvar": logvar}, IMAGE)
    assert terms["kl"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["reconstruction"].item() == 0


def test_divergence_counts_with_its_weight() -> None:
    pred = {"image": IMAGE + 0.25, "mean": torch.full((2, 4, 2, 3), 2.0), "logvar": torch.zeros(2, 4, 2, 3)}
    assert AutoencoderLoss(kl_weight=0.01)(pred, IMAGE).item() == pytest.approx(0.25 + 0.01 * 24 * 2, rel=1e-5)
    assert AutoencoderLoss()(pred, IMAGE).item() == pytest.approx(0.25 + 1e-6 * 48, rel=1e-5)


def test_loss_of_half_precision_predictions_is_computed_in_float32() -> None:
    pred = {"image": normal(3, 2, 1, 8, 6), "mean": normal(1, 2, 4, 2, 3), "logvar": normal(2, 2, 4, 2, 3)}
    half = {name: value.bfloat16() for name, value in pred.items()}
    rounded = {name: value.float() for name, value in half.items()}
    loss = AutoencoderLoss(kl_weight=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, IMAGE)
    assert value.dtype == torch.float32
    assert value.item() == loss(rounded, IMAGE).item()


def test_unusable_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"kl_weight=-1\.0 must not be negative"):
        AutoencoderLoss(kl_weight=-1.0)
    with pytest.raises(ValueError, match=r"reconstruction \(2, 8, 6\) and image \(2, 1, 8, 6\) differ"):
        AutoencoderLoss()({"image": IMAGE[:, 0], **STANDARD}, IMAGE)
