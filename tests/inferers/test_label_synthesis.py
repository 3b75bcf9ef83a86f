"""Images for label maps: the chain ends where a perfect denoiser knows it must, by the label, number by number."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.inferers.label_synthesis import GuidedNoiseInferer, LabelSynthesisInferer, SameLabelDraws
from common.inferers.precision import supports_bfloat16
from common.networks.nets.label_guided_synthesizer import LabelGuidedSynthesizer
from common.networks.nets.pixel_space import PixelSpace

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from tiny_synthesizers import Estimate, Wrapper, images, labels, synthesizer

SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "ddpm"},
    {"sampler": "ddpm", "num_steps": 7},
    {"sampler": "ddim"},
    {"sampler": "ddim", "num_steps": 7, "eta": 0.6},
    {"sampler": "ddim", "num_steps": 2, "eta": 1.0},
]
every_sampler = pytest.mark.parametrize("options", SAMPLERS, ids=str)


def single_point(network: LabelGuidedSynthesizer, point: Tensor, left: Tensor | None = None) -> Estimate:
    """Give the network the exact noise of a data set of one latent; its estimates for no label miss it by ``left``."""

    def noise(x_t: Tensor, t: Tensor, seg: Tensor) -> Tensor:
        a = network.schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        exact = ((x_t - a.sqrt() * point) / (1 - a).sqrt()).float()
        if left is None:
            return exact
        return exact + left * (seg.flatten(1).sum(dim=1) == 0)[:, None, None, None]

    network.backbone = Estimate(noise)
    return network.backbone


def pixels(**options: Any) -> LabelGuidedSynthesizer:
    """A synthesizer without autoencoder: its latents, and hence the ends of its chains, can be seen."""
    return synthesizer(PixelSpace(), statistics=(torch.tensor([0.2]), torch.tensor([0.7])), **options)


# The chain


@every_sampler
@pytest.mark.parametrize("start", [None, 1, 2, 25, 100])
def test_a_perfect_denoiser_leads_to_the_only_latent_there_is(options: dict[str, Any], start: int | None) -> None:
    """From pure noise and from any step between, with any number of steps of either sampler."""
    network, goal = pixels(), images(1, seed=7)
    single_point(network, network.encode(goal))
    result = LabelSynthesisInferer(start=start, **options)(labels(3), network, image=images(3))
    torch.testing.assert_close(result, goal.expand(3, -1, -1, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("start", "num_steps", "expected"),
    [
        (None, None, range(99, -1, -1)),
        (None, 3, [99, 50, 0]),
        (5, None, [4, 3, 2, 1, 0]),
        (5, 3, [4, 2, 0]),
        (2, 30, [1, 0]),
        (1, None, [0]),
        (0, None, []),
    ],
    ids=str,
)
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_the_network_is_told_the_steps_of_its_training(
    sampler: Any, start: int | None, num_steps: int | None, expected: range | list[int]
) -> None:
    network = pixels()
    backbone = single_point(network, network.encode(images(1)))
    LabelSynthesisInferer(start=start, num_steps=num_steps, sampler=sampler)(labels(2), network, image=images(2))
    assert [t.tolist() for _, t, _ in backbone.calls] == [[step, step] for step in expected]


@pytest.mark.parametrize("start", [1, 25, 100])
def test_a_reconstruction_starts_from_the_noised_latent(start: int) -> None:
    """``sqrt(A) x0 + sqrt(1 - A) noise`` with one noise for all starts, that of the sample's number."""
    network, image = pixels(), images(64)
    backbone = single_point(network, network.encode(images(1)))
    inferer = LabelSynthesisInferer(start=start, sampler="ddim", num_steps=2)
    inferer(labels(64), network, image=image)
    a = float(network.schedule.alpha_bar[start - 1])
    noise = (backbone.calls[0][0] - a**0.5 * network.encode(image)) / (1 - a) ** 0.5
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    calls = len(backbone.calls)
    LabelSynthesisInferer(sampler="ddim", num_steps=2)(labels(64), network)
    torch.testing.assert_close(noise, backbone.calls[calls][0], atol=1e-3, rtol=1e-3)


def test_without_noise_a_reconstruction_is_that_of_the_autoencoder() -> None:
    network, image = synthesizer(), images()
    space = network.autoencoder
    result = LabelSynthesisInferer(start=0)(labels(), network, image=image)
    standardized = network.destandardize(network.standardize(space.encode(image)))
    assert torch.equal(space.quantizer.quantize(standardized), space.quantizer.quantize(space.encode(image)))
    assert torch.equal(result, space.decode(space.quantizer.embed(space.quantizer.quantize(space.encode(image)))))
    assert torch.equal(result, space.reconstruct(image))


def test_less_of_the_image_is_left_from_later_starts() -> None:
    """With the best denoiser of latents that are standard normal, ``sqrt(1 - A) x_t``."""
    network, image = pixels(), images(4)
    a = network.schedule.alpha_bar.float()
    network.backbone = Estimate(lambda x, t, seg: (1 - a[t]).sqrt().reshape(-1, 1, 1, 1) * x)
    errors = []
    for start in (0, 5, 25, 50, 100):
        result = LabelSynthesisInferer(start=start)(labels(4), network, image=image)
        errors.append(float((result - image).square().mean()))
    assert errors == sorted(errors)
    assert errors[0] < 1e-10 < errors[1]


@pytest.mark.parametrize("requantize", [True, False])
def test_the_end_of_the_chain_is_snapped_to_the_codebook_unless_told_otherwise(requantize: bool) -> None:
    network, point = synthesizer(), torch.randn(1, 3, 4, 6)
    single_point(network, point)
    inferer = LabelSynthesisInferer(requantize=requantize, sampler="ddim", num_steps=5, clip_x0=False)
    result = inferer(labels(2), network)
    expected = network.decode(point, quantize=requantize).expand(2, -1, -1, -1)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)
    assert not torch.allclose(network.decode(point, quantize=not requantize), expected, atol=1e-2)


@every_sampler
def test_estimates_stay_within_the_bounds_of_clean_latents(options: dict[str, Any]) -> None:
    """A denoiser that sees no noise lets the start grow 220-fold, 1 / sqrt(A_T), unless bounded."""
    network = pixels()
    network.backbone = Estimate(lambda x, t, seg: torch.zeros_like(x))
    network.decode = lambda x0, quantize=True: x0  # type: ignore[method-assign]
    wild, bounded = (LabelSynthesisInferer(clip_x0=clip, **options)(labels(4), network) for clip in (False, True))
    low, high = network.x0_range()
    torch.testing.assert_close(torch.cat([low, high]).flatten(), torch.tensor([-1.2, 0.8]) / 0.7)
    assert float(wild.abs().max()) > 200
    assert bool(((bounded >= low - 1e-5) & (bounded <= high + 1e-5)).all())


def test_bounds_do_not_matter_where_the_estimates_are_inside() -> None:
    network, goal = pixels(), images(1, seed=7)
    single_point(network, network.encode(goal))
    results = [LabelSynthesisInferer(clip_x0=clip)(labels(2), network) for clip in (False, True)]
    torch.testing.assert_close(results[0], results[1], atol=1e-3, rtol=0)


def test_drawing_leaves_the_network_as_it_is() -> None:
    network = synthesizer()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = LabelSynthesisInferer(num_steps=2)(labels(), network)
    assert not result.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# The label


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 3.0])
def test_guidance_weighs_the_label_against_none(guidance: float) -> None:
    """``null + w (label - null)``: with w = 1 the network is not asked about no label at all."""
    network, left = pixels(), 0.3
    estimate = single_point(network, network.encode(images(1)), left=torch.tensor(left))
    inferer = LabelSynthesisInferer(guidance=guidance, start=1)
    image = torch.full_like(images(2), 0.5)
    result = inferer(labels(2), network, image=image)
    a = float(network.schedule.alpha_bar[0])
    miss = -((1 / a - 1) ** 0.5) * (1 - guidance) * left * 0.7 / 2  # of the noise, in gray levels
    torch.testing.assert_close(result, (images(1) + miss).clamp(0, 1).expand(2, -1, -1, -1), atol=1e-5, rtol=0)
    assert [len(x) for x, _, _ in estimate.calls] == [2 if guidance == 1 else 4]


def test_each_image_follows_its_own_label() -> None:
    network = pixels()

    def painted(x_t: Tensor, t: Tensor, seg: Tensor) -> Tensor:
        a = network.schedule.alpha_bar.float()[t].reshape(-1, 1, 1, 1)
        classes = torch.tensor([0.1, 0.5, 0.9]).reshape(1, 3, 1, 1)
        point = network.encode((seg * classes).sum(dim=1, keepdim=True))
        return (x_t - a.sqrt() * point) / (1 - a).sqrt()

    network.backbone = Estimate(painted)
    result = LabelSynthesisInferer(num_steps=10)(labels(4), network)
    torch.testing.assert_close(result, 0.1 + 0.4 * labels(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_label_reaches_a_network_in_any_wrapper(guidance: float) -> None:
    """MONAI's own inferers leave it out when the network is wrapped."""
    network = synthesizer()
    inferer = LabelSynthesisInferer(num_steps=3, guidance=guidance)
    expected = inferer(labels(), network)
    assert torch.equal(inferer(labels(), Wrapper(Wrapper(network))), expected)
    assert not torch.equal(inferer(labels(seed=5), Wrapper(network)), expected)
    x_t, t, guide = torch.randn(2, 3, 4, 6), torch.tensor([3, 50]), network.guide(labels())
    noise = GuidedNoiseInferer()(x_t, Wrapper(network), t=t, guide=guide)
    assert torch.equal(noise, network(x_t, t, guide))


# The numbers


@pytest.mark.parametrize("start", [None, 25])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_an_image_depends_on_its_number_and_the_seed_alone(sampler: Any, start: int | None) -> None:
    network, label, image = synthesizer(), labels(5), images(5)
    options = {"sampler": sampler, "num_steps": 4, "eta": 0.0 if sampler == "ddpm" else 0.5, "requantize": False}
    inferer = LabelSynthesisInferer(start=start, **options)
    together = inferer(label, network, image=image, index=torch.arange(10, 15))
    for row in (0, 3):
        alone = inferer(label[[row]], network, image=image[[row]], index=[10 + row])
        torch.testing.assert_close(alone[0], together[row], atol=1e-4, rtol=0)
    torch.manual_seed(3)
    assert torch.equal(inferer(label, network, image=image, index=range(10, 15)), together)
    assert not torch.allclose(inferer(label, network, image=image), together, atol=1e-3)
    other = LabelSynthesisInferer(start=start, seed=1, **options)
    assert not torch.allclose(other(label, network, image=image, index=range(10, 15)), together, atol=1e-3)


def test_further_draws_of_the_same_labels_are_further_numbers() -> None:
    network, label = synthesizer(), labels(1).expand(3, -1, -1, -1)
    inferer = LabelSynthesisInferer(num_steps=3, requantize=False, clip_x0=False)
    draws = SameLabelDraws(inferer, network)
    assert torch.equal(draws(label, 20), inferer(label, network, index=range(20, 23)))
    assert not torch.allclose(draws(label, 20)[0], draws(label, 20)[1], atol=1e-3)


def test_the_mode_is_named() -> None:
    assert LabelSynthesisInferer().mode == "S"
    assert LabelSynthesisInferer(start=0).mode == "R"


def test_images_are_plain_float32_tensors_between_0_and_1() -> None:
    label = MetaTensor(labels()).to(torch.int64)
    result = LabelSynthesisInferer(num_steps=2)(label, synthesizer())
    assert type(result) is Tensor
    assert result.dtype == torch.float32
    assert 0 <= result.min() < result.max() <= 1


@pytest.mark.skipif(not supports_bfloat16(torch.device("cpu")), reason="no bfloat16 here")
def test_half_precision_is_for_the_denoiser_only() -> None:
    network = synthesizer()
    seen: list[torch.dtype] = []
    for part in (network.backbone.conv_in.conv, network.autoencoder.decoder.blocks[0].conv):
        part.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    result = LabelSynthesisInferer(num_steps=2, amp=True)(labels(), network)
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert result.dtype == torch.float32


# Refusals


def test_a_chain_from_noise_needs_a_schedule_that_ends_in_it() -> None:
    network = synthesizer(beta_start=1e-4, beta_end=0.02)
    with pytest.raises(ValueError, match=r"after all 100 steps 0\.364 of the signal's variance is left"):
        LabelSynthesisInferer()(labels(), network)
    assert LabelSynthesisInferer(start=100, num_steps=2)(labels(), network, image=images()).isfinite().all()


@pytest.mark.parametrize(
    ("label", "kwargs", "message"),
    [
        (labels()[:, :, :8], {}, r"paints slices of 16 x 24 pixels"),
        (labels().unsqueeze(-1), {}, r"paints slices of 16 x 24 pixels"),
        (labels() + 2, {}, r"hold \[3\.0, 4\.0\]; classes are 0\.\.2"),
        (labels() - 0.5, {}, r"hold \[-0\.5, 0\.5, 1\.5\]"),
        (labels(), {"start": 101, "image": images()}, r"start=101 must lie in 0\.\.100"),
        (labels(), {"start": 5}, r"start=5 reconstructs real images.*got none"),
        (labels(), {"start": 5, "image": images(3)}, r"got shape \(3, 1, 16, 24\)"),
    ],
    ids=["size", "volume", "class", "no integer", "start", "no image", "other images"],
)
def test_labels_and_images_that_do_not_fit_are_refused(label: Tensor, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSynthesisInferer(start=kwargs.pop("start", None))(label, synthesizer(), **kwargs)


def test_a_network_that_is_not_ready_is_refused() -> None:
    with pytest.raises(ValueError, match="deviation of the latents are not known"):
        LabelSynthesisInferer()(labels(), synthesizer(statistics=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, r"sampler='euler' is unknown; choose one of ddpm, ddim"),
        ({"start": -1}, r"start=-1 is a number of steps"),
        ({"num_steps": 1}, r"num_steps=1 must be at least 2"),
        ({"eta": 1.5}, r"eta=1\.5 must lie in \[0, 1\]"),
        ({"guidance": -1.0}, r"guidance=-1\.0 must not be negative"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSynthesisInferer(**options)
