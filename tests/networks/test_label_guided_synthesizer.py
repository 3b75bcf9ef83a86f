"""What a checkpoint of FQCDM holds and is refused for, where the label goes, and what stays frozen."""

import copy
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.engines.optimization import adamw
from common.handlers.ema import EMA
from common.networks.nets.label_guided_synthesizer import LabelGuidedSynthesizer
from common.networks.nets.pixel_space import PixelSpace

sys.path.insert(0, str(Path(__file__).parent))
from tiny_synthesizers import CLASSES, SIZE, WIDTHS, Estimate, autoencoder, images, labels, synthesizer

LATENT = (4, 6)


def saved(network: torch.nn.Module) -> dict[str, Tensor]:
    """Its state dict, through a file."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def inputs(network: LabelGuidedSynthesizer, number: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x_t = torch.randn(number, *network.latent_shape, generator=generator)
    return x_t, torch.arange(number) * 30, network.guide(labels(number))


# The chain


@pytest.mark.parametrize(("step", "left"), [(0, 0.99900), (24, 0.52792), (49, 0.07420), (74, 0.00258), (99, 2.04e-5)])
def test_the_default_schedule_ends_in_noise(step: int, left: float) -> None:
    network = synthesizer()
    assert network.schedule.num_steps == 100
    assert float(network.schedule.alpha_bar[step]) == pytest.approx(left, rel=1e-3)
    assert network.full_noise


def test_the_schedule_of_a_thousand_steps_does_not_end_in_noise_after_a_hundred() -> None:
    network = synthesizer(beta_start=1e-4, beta_end=0.02)
    assert float(network.schedule.alpha_bar[-1]) == pytest.approx(0.3636, rel=1e-3)
    assert not network.full_noise


def test_latents_are_standardized_per_channel_and_back() -> None:
    mean, std = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 3.0, 1.0])
    network = synthesizer(statistics=(mean, std))
    latent = mean[:, None, None] + std[:, None, None] * torch.randn(500, 3, *LATENT)
    x0 = network.standardize(latent)
    torch.testing.assert_close(x0.mean((0, 2, 3)), torch.zeros(3), atol=0.03, rtol=0)
    torch.testing.assert_close(x0.std((0, 2, 3)), torch.ones(3), atol=0.03, rtol=0)
    torch.testing.assert_close(network.destandardize(x0), latent)


def test_diffusion_works_on_what_was_not_quantized_and_the_decoder_on_what_was() -> None:
    network = synthesizer()
    space, image = network.autoencoder, images()
    latent = space.encode(image)
    torch.testing.assert_close(network.destandardize(network.encode(image)), latent)
    codes = network.autoencoder.quantizer.embed(network.autoencoder.quantizer.quantize(latent))
    assert not torch.allclose(codes, latent, atol=1e-3)
    torch.testing.assert_close(network.decode(network.encode(image)), space.reconstruct(image))
    torch.testing.assert_close(network.decode(network.encode(image), quantize=False), space.decode(latent, False))


# The guide


def test_the_nearest_guide_is_one_hot() -> None:
    """And each latent pixel takes the label of a pixel inside of its cell, next to the middle."""
    network, label = synthesizer(), labels(3)
    guide = network.guide(label)
    assert guide.shape == (3, 3, *LATENT)
    assert torch.equal(guide.sum(dim=1), torch.ones(3, *LATENT))
    assert torch.equal(guide.argmax(dim=1), label[:, 0, 2::4, 2::4].long())


def test_the_area_guide_keeps_the_share_of_every_class() -> None:
    label = labels(3)
    guide = synthesizer(label_resize="area").guide(label)
    shares = torch.stack([(label == index).float().mean((1, 2, 3)) for index in range(3)], dim=1)
    torch.testing.assert_close(guide.mean((2, 3)), shares)
    torch.testing.assert_close(guide.sum(dim=1), torch.ones(3, *LATENT))


def test_no_label_is_not_background() -> None:
    network = synthesizer()
    background = network.guide(torch.zeros(1, 1, *SIZE))
    assert background[:, 0].eq(1).all()
    assert network.null_guide(background).eq(0).all()


def test_the_label_reaches_the_decoder_of_the_denoiser_only() -> None:
    """Encoder and middle answer alike whatever the label; every block of the decoder does not."""
    network = synthesizer()
    seen: dict[str, list[Tensor]] = {}
    blocks = {
        "conv_in": network.backbone.conv_in,
        **{f"down {number}": block for number, block in enumerate(network.backbone.down_blocks)},
        "middle": network.backbone.middle_block,
        **{f"up {number}": block for number, block in enumerate(network.backbone.up_blocks)},
    }
    for name, block in blocks.items():
        block.register_forward_hook(
            lambda _, __, output, name=name: seen.setdefault(name, []).append(
                output[0] if isinstance(output, tuple) else output
            )
        )
    x_t, t, _ = inputs(network)
    for seed in (0, 1):
        network(x_t, t, network.guide(labels(2, seed)))
    same = {name: torch.equal(first, second) for name, (first, second) in seen.items()}
    assert same == {name: not name.startswith("up") for name in blocks}


def test_an_untrained_network_predicts_no_noise() -> None:
    network = LabelGuidedSynthesizer(
        autoencoder=autoencoder(), label_values=CLASSES, image_size=SIZE, spacing_mm=None, **WIDTHS
    )
    assert network(*inputs(network)).eq(0).all()


def test_the_label_is_never_left_out() -> None:
    """And with autocast on the prediction is float32 all the same."""
    network = synthesizer()
    x_t, t, guide = inputs(network)
    network.backbone = Estimate(lambda x, t, seg: (seg[:, :1] * x).bfloat16())
    assert network(x_t, t, guide).dtype == torch.float32
    (asked,) = network.backbone.calls
    assert all(ours is theirs for ours, theirs in zip(asked, (x_t, t, guide), strict=True))


# Frozen


def test_training_leaves_the_autoencoder_as_it_is() -> None:
    """Bit for bit, in training mode, with decoding in between; the denoiser does change."""
    network = synthesizer().train()
    assert network.backbone.training
    assert not any(module.training for module in network.autoencoder.modules())
    assert not any(weight.requires_grad for weight in network.autoencoder.parameters())
    before = copy.deepcopy(network.state_dict())
    optimizer = adamw(network, lr=0.1, weight_decay=0.1)
    x_t, t, guide = inputs(network)
    (network(x_t, t, guide) - 1).square().mean().backward()
    network.decode(x_t)
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("backbone.") for name in changed)


def test_an_average_of_the_weights_is_a_network_of_its_own() -> None:
    network = synthesizer()
    average = EMA(network).model
    arguments = inputs(network)
    expected = network(*arguments)
    torch.testing.assert_close(average(*arguments), expected)
    assert average.autoencoder is not network.autoencoder
    assert not average.autoencoder.training
    with torch.no_grad():
        network.backbone.out[-1].conv.weight.zero_()
    torch.testing.assert_close(average(*arguments), expected)


# Checkpoints


@pytest.mark.parametrize("space", ["quantized", "pixel"])
@pytest.mark.parametrize("spacing_mm", [None, 1.25])
def test_a_state_dict_alone_makes_the_whole_network(space: str, spacing_mm: float | None) -> None:
    network = synthesizer(
        autoencoder() if space == "quantized" else PixelSpace(),
        spacing_mm=spacing_mm,
        window=(-150.0, 650.0),
        label_resize="area",
        num_train_steps=20,
        beta_start=0.02,
    )
    torch.manual_seed(5)
    copied = LabelGuidedSynthesizer.from_state_dict(saved(network))
    assert not copied.training
    assert copied.settings() == network.settings()
    for name in ("label_values", "num_classes", "image_size", "spacing_mm", "window", "latent_shape", "label_resize"):
        assert getattr(copied, name) == getattr(network, name), name
    assert torch.equal(copied.schedule.alpha_bar, network.schedule.alpha_bar)
    x_t, t, guide = inputs(network)
    assert torch.equal(copied(x_t, t, guide), network(x_t, t, guide))
    assert torch.equal(copied.decode(x_t), network.decode(x_t))
    assert torch.equal(copied.encode(images()), network.encode(images()))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"label_values": {0: 0, 1: 1, 2: 2}}, r"label_values: checkpoint 0:0,420:2,421:2,500:1, this network 0:0,1:1"),
        ({"window": (-150, 650)}, r"window_low: checkpoint 0\.5, this network -150\.0\n.*window_high"),
        ({"space": autoencoder(seed=9)}, r"autoencoder: checkpoint quantized:\w+, this network quantized:"),
        ({"space": PixelSpace(), "image_size": (8, 8)}, r"space: checkpoint quantized, this network pixel"),
        ({"channels": (4, 16)}, r"channels: checkpoint 8,16, this network 4,16"),
        ({"beta_end": 0.1}, r"beta_end: checkpoint 0\.2, this network 0\.1"),
    ],
    ids=["labels", "window", "autoencoder", "space", "widths", "schedule"],
)
def test_a_checkpoint_of_another_network_is_refused_before_anything_is_loaded(
    other: dict[str, Any], message: str
) -> None:
    state = saved(synthesizer())
    network = synthesizer(**other)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=message):
        network.load_state_dict(state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_no_checkpoint_of_this_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LabelGuidedSynthesizer.*\n  space: not recorded"):
        LabelGuidedSynthesizer.from_state_dict(autoencoder().state_dict())
    state = synthesizer().state_dict()
    del state["latent_std"], state["backbone.conv_in.conv.bias"]
    with pytest.raises(ValueError, match=r"backbone\.conv_in\.conv\.bias: checkpoint absent.*\n  latent_std: not in"):
        synthesizer().load_state_dict(state)


def test_a_network_without_statistics_is_not_ready() -> None:
    network = synthesizer(statistics=None)
    with pytest.raises(ValueError, match=r"mean and standard deviation of the latents are not known"):
        network.check_ready()
    network.load_state_dict(synthesizer().state_dict())
    network.check_ready()


# Bad settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (16, 20)}, r"\[16, 20\] must be two multiples of 8: .* 4 pixels per latent pixel"),
        ({"label_values": {0: 0, 1: 2}}, r"label_values=\{0: 0, 1: 2\} must give the indices 0\.\.K-1"),
        ({"label_values": {0: 0}}, r"at least two"),
        ({"label_resize": "linear"}, r"label_resize='linear' must be 'nearest' or 'area'"),
        ({"spacing_mm": 0.0}, r"spacing_mm=0\.0 must be positive"),
        ({"channels": (8, 10)}, r"channels=\[8, 10\] must be multiples of norm_groups=4"),
        ({"num_head_channels": (0, 6)}, r"num_head_channels=\[0, 6\] must divide channels=\[8, 16\]"),
        ({"attention_levels": (False, False), "num_head_channels": (0, 0)}, r"and at the last level"),
        ({"attention_levels": (True,)}, r"have 2, 1 and 2 entries; each needs one per level"),
        ({"statistics": (torch.zeros(2), torch.ones(2))}, r"the autoencoder has 3 channels"),
        ({"statistics": (torch.zeros(3), torch.tensor([1.0, 0.0, 1.0]))}, r"cannot be standardized"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesizer(**options)


def test_a_guide_is_the_same_for_classes_in_any_number_type() -> None:
    network, label = synthesizer(), labels()
    expected = F.one_hot(label[:, 0, 2::4, 2::4].long(), 3).movedim(-1, 1).float()
    for dtype in (torch.float32, torch.int64, torch.uint8):
        assert torch.equal(network.guide(label.to(dtype)), expected)


def test_a_residual_prediction_is_the_best_guess_without_a_network_plus_a_share_of_its_output() -> None:
    """For latents of unit variance the best linear estimate of the noise is ``sqrt(1 - A) x_t``.

    An error of v gives one of x0 that is no larger, whatever the step.
    """
    network = synthesizer(prediction="v_prediction")
    x_t, t, guide = torch.randn(3, 3, 4, 6), torch.tensor([0, 40, 99]), network.guide(labels(3))
    a = network.schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    network.backbone = Estimate(lambda x, t, seg: torch.zeros_like(x))
    torch.testing.assert_close(network(x_t, t, guide), (1 - a).sqrt() * x_t)
    network.backbone = Estimate(lambda x, t, seg: torch.full_like(x, 0.3))
    noise = network(x_t, t, guide)
    x0 = (x_t - (1 - a).sqrt() * noise) / a.sqrt()
    torch.testing.assert_close(x0, a.sqrt() * x_t - (1 - a).sqrt() * 0.3, atol=1e-3, rtol=1e-3)


def test_the_kind_of_prediction_is_recorded() -> None:
    network = synthesizer(prediction="v_prediction")
    assert LabelGuidedSynthesizer.from_state_dict(network.state_dict()).prediction == "v_prediction"
    with pytest.raises(ValueError, match="prediction: checkpoint v_prediction, this network epsilon"):
        synthesizer().load_state_dict(network.state_dict())
    with pytest.raises(ValueError, match="prediction='v'"):
        synthesizer(prediction="v")
