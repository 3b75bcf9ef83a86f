"""Autoencoder and denoiser in one call: each part's own result, running statistics, and where gradients go."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.handlers.ema import EMA
from common.networks.nets import joint_synthesizer as module
from common.networks.nets.joint_synthesizer import JointSynthesizer
from common.networks.nets.label_guided_synthesizer import LabelGuidedSynthesizer
from common.networks.nets.pixel_space import PixelSpace

sys.path.insert(0, str(Path(__file__).parent))
from tiny_synthesizers import autoencoder, images, labels, synthesizer


def joint(seed: int = 0, *, mode: str = "gradient", **options: Any) -> JointSynthesizer:
    return JointSynthesizer(synthesizer(autoencoder(seed, mode=mode), statistics=None), **options)


def arguments(network: JointSynthesizer, number: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(number, *network.synthesizer.latent_shape, generator=generator)
    return images(number), network.synthesizer.guide(labels(number)), noise, torch.arange(number) * 20


def moments(latent: Tensor) -> tuple[Tensor, Tensor]:
    return latent.mean((0, 2, 3)), latent.std((0, 2, 3), correction=0)


def test_one_call_gives_what_the_parts_give() -> None:
    network = joint()
    image, guide, noise, t = arguments(network)
    output = network(image, guide, noise, t)
    network.eval()
    alone = network.autoencoder(image)
    assert output.keys() == {*alone, "noise_prediction"}
    assert all(torch.equal(output[name], alone[name]) for name in alone)
    mean, std = moments(network.autoencoder.encode(image))
    x0 = (network.autoencoder.encode(image) - mean[:, None, None]) / std[:, None, None]
    a = network.synthesizer.schedule.alpha_bar.float()[t].reshape(-1, 1, 1, 1)
    expected = network.synthesizer(a.sqrt() * x0 + (1 - a).sqrt() * noise, t, guide)
    torch.testing.assert_close(output["noise_prediction"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("detach", [True, False])
def test_the_noise_loss_reaches_the_encoder_only_where_it_is_let(detach: bool) -> None:
    network = joint(detach=detach)
    network(*arguments(network))["noise_prediction"].square().mean().backward()
    reached = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert any(name.startswith("synthesizer.backbone.") for name in reached)
    assert any(name.startswith("synthesizer.autoencoder.encoder.") for name in reached) is not detach
    assert not any(".decoder." in name or "codebook" in name for name in reached if "autoencoder" in name)


def test_the_autoencoder_learns_from_its_own_losses() -> None:
    """As if it were trained alone, which the frozen one of a synthesizer does not."""
    network = joint()
    image, *rest = arguments(network)
    alone = copy.deepcopy(network.autoencoder)
    for output in (network(image, *rest), alone(image)):
        ((output["image"] - image).abs().mean() + output["codebook_loss"]).backward()
    for (name, ours), theirs in zip(network.autoencoder.named_parameters(), alone.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_all_of_it_is_in_training_mode_or_none() -> None:
    network = joint()
    assert all(part.training for part in network.modules())
    assert not any(part.training for part in network.eval().modules())
    assert all(part.training for part in network.train().modules())
    assert not any(part.training for part in EMA(network).model.modules())


@pytest.mark.parametrize("mode", ["gradient", "ema"])
def test_the_codebook_learns_by_its_own_rules(mode: str) -> None:
    network = joint(mode=mode)
    assert not network.autoencoder.quantizer.frozen
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == ({"synthesizer.autoencoder.quantizer.codebook"} if mode == "ema" else set())


# Running statistics


def test_the_first_statistics_are_those_of_the_first_batch() -> None:
    network = joint()
    network(*arguments(network))
    mean, std = moments(network.autoencoder.encode(images(4)))
    torch.testing.assert_close(network.synthesizer.latent_mean, mean)
    torch.testing.assert_close(network.synthesizer.latent_std, std)


def test_few_batches_count_alike() -> None:
    """The statistics after n <= 1 / momentum calls are those of all their latents together."""
    network = joint()
    batches = [torch.randn(2, 3, 4, 6) * (1 + n) + 5 - n for n in range(7)]
    for batch in batches:
        network.update_statistics(batch)
    mean, std = moments(torch.cat(batches))
    torch.testing.assert_close(network.synthesizer.latent_mean, mean)
    torch.testing.assert_close(network.synthesizer.latent_std, std)


def test_later_batches_move_mean_and_mean_square_by_the_momentum() -> None:
    network = joint(momentum=0.25)
    batches = [torch.randn(2, 3, 4, 6) * (1 + n) + 5 - n for n in range(9)]
    mean = square = torch.zeros(3)
    for number, batch in enumerate(batches, start=1):
        network.update_statistics(batch)
        rate = max(1 / number, 0.25)
        mean = (1 - rate) * mean + rate * batch.mean((0, 2, 3))
        square = (1 - rate) * square + rate * batch.square().mean((0, 2, 3))
    torch.testing.assert_close(network.synthesizer.latent_mean, mean)
    torch.testing.assert_close(network.synthesizer.latent_std, (square - mean.square()).sqrt())


def test_two_processes_measure_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = joint(), joint()
    latent = torch.randn(6, 3, 4, 6) + torch.arange(6.0).reshape(-1, 1, 1, 1)
    whole.update_statistics(latent)
    other = latent[1::2].double()
    theirs = torch.stack([other.mean((0, 2, 3)), other.square().mean((0, 2, 3))])
    monkeypatch.setattr(module, "process_count", lambda: 2)
    monkeypatch.setattr(module, "sum_over_processes", lambda values: values + theirs)
    part.update_statistics(latent[0::2])
    torch.testing.assert_close(part.synthesizer.latent_mean, whole.synthesizer.latent_mean)
    torch.testing.assert_close(part.synthesizer.latent_std, whole.synthesizer.latent_std)


def test_a_constant_latent_leaves_finite_numbers() -> None:
    network = joint()
    network.update_statistics(torch.full((2, 3, 4, 6), 1000.1))
    assert network.synthesizer.standardize(torch.full((2, 3, 4, 6), 1000.1)).isfinite().all()


def test_evaluation_changes_nothing() -> None:
    network = joint()
    network(*arguments(network))
    before = copy.deepcopy(network.state_dict())
    network.eval()(images(4).square(), *arguments(network)[1:])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# Checkpoints


def test_the_weights_are_those_of_an_ordinary_synthesizer() -> None:
    network = joint()
    image, guide, noise, t = arguments(network)
    network(image, guide, noise, t)
    with torch.no_grad():
        network.autoencoder.last_layer.mul_(1.5)
    average = EMA(network).model
    assert isinstance(average, JointSynthesizer)
    copied = LabelGuidedSynthesizer.from_state_dict(average.weights())
    copied.check_ready()
    assert copied.settings()["autoencoder"] == network.autoencoder.identity
    assert torch.equal(copied(noise, t, guide), network.synthesizer(noise, t, guide))
    torch.testing.assert_close(copied.encode(image), network.eval().synthesizer.encode(image))
    assert torch.equal(copied.decode(noise), network.synthesizer.decode(noise))


def test_a_run_goes_on_from_its_state_whatever_it_was_built_with() -> None:
    network, other = joint(), joint(seed=5)
    for _ in range(2):
        network(*arguments(network))
    other.load_state_dict(network.state_dict())
    first, second = (one(*arguments(one)) for one in (network, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())


def test_a_frozen_run_and_one_that_trains_along_do_not_mix() -> None:
    with pytest.raises(ValueError, match=r"autoencoder: checkpoint quantized:\w+, this network trained along"):
        joint().synthesizer.load_state_dict(synthesizer().state_dict())


# Bad settings


def test_pixels_have_no_autoencoder_to_train() -> None:
    with pytest.raises(ValueError, match=r"diffuses pixels; there is no autoencoder to train along"):
        JointSynthesizer(synthesizer(PixelSpace()))


@pytest.mark.parametrize("momentum", [0.0, 1.5])
def test_the_momentum_is_a_share(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"momentum=.* must lie in \(0, 1\]"):
        joint(momentum=momentum)
