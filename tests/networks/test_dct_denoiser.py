"""The denoiser on DCT tokens: its codec, the residual form, and what a checkpoint must agree on."""

import copy
import dataclasses
import io
import logging

import pytest
import torch
from torch import Tensor, nn

from common.diffusion.continuous import VPSchedule, gaussian_noise_prediction, marginal
from common.diffusion.samplers import SAMPLERS
from common.frequency.codec import encode_image
from common.frequency.statistics import CoefficientStatistics
from common.networks.blocks.recorded_settings import decode_setting, encode_setting
from common.networks.nets.dct_denoiser import DCTDenoiser, Prediction
from common.networks.nets.u_vit import MoELayers, UViT


def statistics(block: int = 2, dropped: int = 0) -> CoefficientStatistics:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 200, 16)
    images = (ramp[:, None] / 2 + ramp / 2 + 50 * torch.rand(20, 16, 16, generator=generator)).clamp(0, 255)
    return CoefficientStatistics.from_images([images], block=block, dropped=dropped)


def denoiser(
    prediction: Prediction = "eps",
    *,
    size: tuple[int, int] = (8, 12),
    block: int = 2,
    dropped: int = 0,
    snr_scale: float = 4.0,
    moe_layers: MoELayers = "first_last",
    num_heads: int = 2,
    hidden_size: int = 16,
    known: bool = True,
) -> DCTDenoiser:
    torch.manual_seed(0)
    grid = (-(-size[0] // (2 * block)), -(-size[1] // (2 * block)))
    backbone = UViT(
        num_features=4 * (block**2 - dropped),
        grid=grid,
        hidden_size=hidden_size,
        depth=2,
        num_heads=num_heads,
        moe_layers=moe_layers,
        router_noise=0.0,
    )
    stats = statistics(block, dropped) if known else None
    return DCTDenoiser(backbone, size, block, dropped, prediction=prediction, snr_scale=snr_scale, statistics=stats)


def silence(network: DCTDenoiser) -> DCTDenoiser:
    """The same with a backbone that returns 0."""
    nn.init.zeros_(network.backbone.output.weight)
    nn.init.zeros_(network.backbone.output.bias)
    return network


def per_feature(values: Tensor) -> Tensor:
    return torch.cat([values] * 4)


# Codec


@pytest.mark.parametrize("size", [(8, 12), (7, 9)], ids=["whole tokens", "padded"])
def test_decode_inverts_encode_whatever_the_size(size: tuple[int, int]) -> None:
    network = denoiser(size=size)
    image = 255 * torch.rand(3, 1, *size)
    tokens = network.encode(image)
    assert tokens.shape == (3, *network.token_shape)
    torch.testing.assert_close(network.decode(tokens), image, atol=1e-3, rtol=0)


def test_encode_equals_the_staged_codec_with_the_statistics_eta() -> None:
    network, stats = denoiser(dropped=1), statistics(dropped=1)
    image = 255 * torch.rand(2, 1, 8, 12)
    expected = encode_image(image[:, 0], block=2, eta=stats.eta, dropped=1, shift=128.0)
    torch.testing.assert_close(network.encode(image), expected)


def test_decode_clips_to_grey_levels_and_reports_tokens_out_of_range(caplog: pytest.LogCaptureFixture) -> None:
    network = denoiser()
    tokens = network.encode(torch.full((1, 1, 8, 12), 128.0))
    with caplog.at_level(logging.WARNING):
        network.decode(tokens)
        assert not caplog.records
        tokens[0, 0, 0], tokens[0, 1, 0] = 50.0, -50.0
        image = network.decode(tokens)
    assert (image.min(), image.max()) == (0, 255)
    assert "2 of 96 token values" in caplog.text
    tokens[0, 0, 0] = 2.0  # the same picture: values are clipped to [-2, 2] first
    tokens[0, 1, 0] = -2.0
    assert torch.equal(network.decode(tokens), image)


def test_tokens_that_are_not_finite_are_no_image() -> None:
    network = denoiser()
    tokens = torch.zeros(1, *network.token_shape)
    tokens[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        network.decode(tokens)


def test_x0_range_holds_every_training_token() -> None:
    network, stats = denoiser(), statistics()
    low, high = network.x0_range()
    assert low.shape == high.shape == (network.token_shape[1],)
    torch.testing.assert_close(low * stats.eta, per_feature(stats.minimum))
    torch.testing.assert_close(high * stats.eta, per_feature(stats.maximum))


# Prediction


def test_eps_is_what_the_backbone_says() -> None:
    network = denoiser("eps")
    x, t = torch.randn(2, *network.token_shape), torch.rand(2)
    torch.testing.assert_close(network(x, t), network.backbone(x, t))


def test_silent_backbone_predicts_the_noise_of_independent_gaussians() -> None:
    network, stats = silence(denoiser("eps_residual")), statistics()
    x, t = torch.randn(4, *network.token_shape), torch.tensor([1e-4, 0.1, 0.6, 1.0])
    mean, std = per_feature(stats.mean / stats.eta), per_feature(stats.std / stats.eta)
    expected = gaussian_noise_prediction(VPSchedule(snr_scale=4.0), x, t, mean, std)
    torch.testing.assert_close(network(x, t), expected)


def test_residual_form_adds_the_backbone_at_the_scale_of_what_is_left_to_predict() -> None:
    """``out**2 = alpha**2 s**2 / V`` is the variance of the noise given x_t for Gaussian data."""
    network, stats = denoiser("eps_residual"), statistics()
    x, t = torch.randn(3, *network.token_shape), torch.tensor([0.05, 0.4, 0.9])
    alpha, sigma = (v[:, None, None] for v in (network.schedule.alpha(t), network.schedule.sigma(t)))
    mean, std = per_feature(stats.mean / stats.eta), per_feature(stats.std / stats.eta)
    variance = (alpha * std) ** 2 + sigma**2
    added = network(x, t) - gaussian_noise_prediction(network.schedule, x, t, mean, std)
    backbone = network.backbone((x - alpha * mean) / variance.sqrt(), t)
    torch.testing.assert_close(added, alpha * std / variance.sqrt() * backbone, atol=1e-5, rtol=1e-4)


def test_silent_backbone_samples_the_closed_form_gaussian() -> None:
    """The probability-flow ODE keeps each coefficient's distance from the mean in standard deviations."""
    network, stats = silence(denoiser("eps_residual", snr_scale=4.0)).eval(), statistics()
    noise = torch.randn(16, *network.token_shape, generator=torch.Generator().manual_seed(1))
    sampled = SAMPLERS["dpm_solver_pp_2m"](network, noise, network.schedule, num_evaluations=100, denoise=False)
    mean, std = per_feature(stats.mean / stats.eta), per_feature(stats.std / stats.eta)
    deviations = []
    for t, x in ((1.0, noise), (1e-4, sampled)):
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = network.schedule.alpha(time).float(), network.schedule.sigma(time).float()
        deviations.append((x - alpha * mean) / torch.sqrt((alpha * std) ** 2 + sigma**2))
    torch.testing.assert_close(deviations[1], deviations[0], atol=0.03, rtol=0)


@pytest.mark.parametrize("prediction", ["eps", "eps_residual"])
def test_prediction_is_float32_under_autocast(prediction: Prediction) -> None:
    network = denoiser(prediction)
    x, t = torch.randn(2, *network.token_shape), torch.rand(2)
    exact = network(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, router = network(x, t, return_router=True)
    assert rounded.dtype == torch.float32
    assert len(router) == 2
    assert 0 < (rounded - exact).norm() < 0.03 * exact.norm()


def test_elementwise_part_of_the_residual_form_is_exact_under_autocast() -> None:
    network = silence(denoiser("eps_residual"))
    x, t = torch.randn(2, *network.token_shape), torch.rand(2)
    exact = network(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(x, t), exact)


def test_dense_network_returns_no_router_probabilities() -> None:
    network = denoiser(moe_layers="none")
    assert network(torch.randn(1, *network.token_shape), torch.rand(1), return_router=True)[1] == []


def test_a_denoising_step_reaches_every_parameter() -> None:
    network = denoiser("eps_residual")
    x0 = network.encode(255 * torch.rand(2, 1, 8, 12))
    noise, t = torch.randn_like(x0), torch.rand(2)
    (network(marginal(network.schedule, x0, noise, t), t) - noise).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


# Checkpoints


def test_checkpoint_brings_weights_settings_and_statistics() -> None:
    trained, empty = denoiser("eps_residual"), denoiser("eps_residual", known=False)
    nn.init.normal_(trained.backbone.output.weight)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    empty.load_state_dict(torch.load(file, weights_only=True))
    image = 255 * torch.rand(2, 1, 8, 12)
    x, t = trained.encode(image), torch.rand(2)
    assert torch.equal(empty.encode(image), x)
    assert torch.equal(empty(x, t), trained(x, t))
    assert torch.equal(empty.decode(x), trained.decode(x))
    assert all(torch.equal(a, b) for a, b in zip(empty.x0_range(), trained.x0_range(), strict=True))


def test_checkpoint_of_another_network_is_refused_with_all_differences_at_once() -> None:
    state = denoiser("eps").state_dict()
    other = denoiser("eps_residual", size=(16, 16), block=4, dropped=3, snr_scale=1.0, known=False)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="made for another network") as error:
        other.load_state_dict(state)
    lines = str(error.value).splitlines()
    assert [line.strip() for line in lines[1:8]] == [
        "height: checkpoint 8, this network 16",
        "width: checkpoint 12, this network 16",
        "block: checkpoint 2, this network 4",
        "dropped: checkpoint 0, this network 3",
        "prediction: checkpoint eps, this network eps_residual",
        "snr_scale: checkpoint 4.0, this network 1.0",
        "mean: shape (4,) in the checkpoint, (13,) in this network",
    ]
    assert "Build the network with the checkpoint's values" in lines[-1]
    after = other.state_dict()
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)


def test_heads_are_compared_though_no_weight_has_their_shape() -> None:
    with pytest.raises(ValueError, match="num_heads: checkpoint 2, this network 4"):
        denoiser(num_heads=4).load_state_dict(denoiser().state_dict())


def test_checkpoint_of_another_width_names_it() -> None:
    with pytest.raises(ValueError, match="hidden_size: checkpoint 16, this network 32"):
        denoiser(hidden_size=32).load_state_dict(denoiser().state_dict())


def test_lost_and_foreign_weights_are_named() -> None:
    state = denoiser().state_dict()
    del state["backbone.mid_block.norm1.weight"]
    state["backbone.extra"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"(?s)mid_block.norm1.weight: checkpoint absent, .*extra: checkpoint \(3,\)"):
        denoiser().load_state_dict(state)


def test_checkpoint_with_other_statistics_is_refused() -> None:
    network, state = denoiser(), denoiser().state_dict()
    state["eta"] = state["eta"] * 2
    with pytest.raises(ValueError, match=r"eta: checkpoint \d+\.?\d*, this network \d+") as error:
        network.load_state_dict(state)
    assert "mean" not in str(error.value)


def test_files_that_are_no_checkpoint_of_this_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"settings: absent; it was not saved from a DCTDenoiser"):
        denoiser().load_state_dict({"weight": torch.zeros(3)})
    state = denoiser().state_dict()
    del state["settings.num_heads"]
    with pytest.raises(ValueError, match="num_heads: checkpoint not recorded, this network 2"):
        denoiser().load_state_dict(state)


def test_wrapped_network_checks_its_checkpoint_too() -> None:
    """As inside DistributedDataParallel, where all names carry a prefix."""
    wrapper, state = nn.ModuleDict({"module": denoiser("eps")}), nn.ModuleDict({"module": denoiser("eps")}).state_dict()
    wrapper.load_state_dict(state)
    with pytest.raises(ValueError, match="prediction: checkpoint eps, this network eps_residual"):
        nn.ModuleDict({"module": denoiser("eps_residual")}).load_state_dict(state)


def test_nothing_works_without_statistics_and_the_message_says_what_to_do() -> None:
    network = denoiser("eps_residual", known=False)
    for use in (
        network.check_ready,
        network.x0_range,
        lambda: network.encode(torch.zeros(1, 1, 8, 12)),
        lambda: network.decode(torch.zeros(1, *network.token_shape)),
        lambda: network(torch.zeros(1, *network.token_shape), torch.rand(1)),
    ):
        with pytest.raises(RuntimeError, match=r"no coefficient statistics.* load a checkpoint"):
            use()


def test_copy_of_a_network_is_independent() -> None:
    """The moving average of the weights is such a copy."""
    network = denoiser("eps_residual")
    twin = copy.deepcopy(network)
    nn.init.zeros_(network.backbone.output.weight)
    twin.eta.fill_(1.0)
    assert twin.backbone.output.weight.abs().max() > 0
    assert network.eta.item() == pytest.approx(statistics().eta)


def test_statistics_of_another_codec_are_refused() -> None:
    stats = dataclasses.replace(statistics(), shift=0.0)
    with pytest.raises(ValueError, match=r"shift: statistics 0\.0, this network 128\.0"):
        denoiser(known=False).set_statistics(stats)


def test_backbone_of_another_grid_is_refused() -> None:
    backbone = denoiser(size=(8, 8)).backbone
    with pytest.raises(ValueError, match=r"grid of \(2, 3\) tokens of 16 features, .* grid=\(2, 2\), num_features=16"):
        DCTDenoiser(backbone, (8, 12), 2)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 1, 16, 12\); this network takes \(B, 1, 8, 12\)"):
        denoiser().encode(torch.zeros(1, 1, 16, 12))


def test_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="prediction='x0' is unknown; choose one of eps, eps_residual"):
        denoiser("x0")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 17, -3, 0.25, 4.0, "eps_residual"])
def test_recorded_settings_come_back_with_their_type(value: float | str) -> None:
    restored = decode_setting(encode_setting(value))
    assert restored == value
    assert type(restored) is type(value)
