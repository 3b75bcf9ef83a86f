"""Training and sampling around a denoiser."""

import pytest
import torch
from torch import Tensor, nn

from common.diffusion.continuous import VPSchedule, gaussian_noise_prediction
from common.inferers.diffusion import NoisePredictionInferer, SamplingInferer, unwrap
from common.inferers.precision import autocast, supports_bfloat16

MEAN, STD = 0.3, 0.2


class GaussianDenoiser(nn.Module):
    """Exact denoiser of independent Gaussian pixels; "decodes" by adding nothing."""

    schedule = VPSchedule(snr_scale=4.0)
    token_shape = (16, 4)

    def check_ready(self) -> None:
        pass

    def forward(self, x: Tensor, t: Tensor, *, return_router: bool = False) -> Tensor | tuple[Tensor, list]:
        mean, std = torch.full((1, 4), MEAN), torch.full((1, 4), STD)
        noise = gaussian_noise_prediction(self.schedule, x, t, mean, std)
        return (noise, []) if return_router else noise

    def x0_range(self) -> tuple[Tensor, Tensor]:
        return torch.full((4,), MEAN - 2 * STD), torch.full((4,), MEAN + 2 * STD)

    def decode(self, x0: Tensor) -> Tensor:
        return x0.reshape(-1, 1, 8, 8) * 255


@pytest.mark.parametrize("sampler", ["dpm_solver_pp_2m", "sde_dpm_solver_pp_2m", "euler_maruyama"])
def test_samples_do_not_depend_on_the_batch(sampler: str) -> None:
    inferer = SamplingInferer(sampler, num_steps=12, seed=5)
    network = GaussianDenoiser()
    together = inferer(torch.zeros(6, 1), network)
    numbers = torch.tensor([4, 1])
    torch.testing.assert_close(inferer(torch.zeros(2, 1), network, index=numbers), together[numbers])
    other_seed = SamplingInferer(sampler, num_steps=12, seed=6)(torch.zeros(6, 1), network)
    assert (other_seed - together).abs().mean() > 0.1 * STD


def test_samples_have_the_moments_of_the_data() -> None:
    images = SamplingInferer(num_steps=30, clip_x0=False)(torch.zeros(400, 1), GaussianDenoiser())
    assert images.shape == (400, 1, 8, 8)
    assert abs(images.mean().item() - MEAN) < 0.005
    assert abs(images.std().item() - STD) < 0.005


def test_clipping_keeps_samples_in_the_range_of_the_data() -> None:
    clipped = SamplingInferer(num_steps=30, clip_x0=True)(torch.zeros(50, 1), GaussianDenoiser())
    free = SamplingInferer(num_steps=30, clip_x0=False)(torch.zeros(50, 1), GaussianDenoiser())
    assert clipped.max() <= MEAN + 2 * STD + 1e-5 < free.max()


def test_training_mixes_data_and_noise() -> None:
    """With the true noise of one point the exact denoiser's error is that of the Gaussian posterior."""
    network, schedule = GaussianDenoiser(), GaussianDenoiser.schedule
    x0 = MEAN + STD * torch.randn(4000, 16, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    t = torch.full((4000,), 0.4)
    pred = NoisePredictionInferer()(x0, network, noise=noise, t=t)
    alpha2 = schedule.alpha_bar(torch.tensor(0.4)).item()
    expected = alpha2 * STD**2 / (alpha2 * STD**2 + 1 - alpha2)
    assert (pred["noise"] - noise).square().mean().item() == pytest.approx(expected, rel=0.02)
    assert pred["router"] == []


def test_unknown_sampler_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'dpm' is unknown; choose one of .*dpm_solver_pp_2m"):
        SamplingInferer("dpm")


def test_wrappers_are_taken_off() -> None:
    network = nn.Linear(1, 1)
    outer, middle = nn.Module(), nn.Module()
    middle._orig_mod = network
    outer.module = middle
    assert unwrap(outer) is network
    assert unwrap(network) is network


def test_autocast_is_off_unless_asked_for_and_available() -> None:
    weight = torch.ones(8, 8)
    with autocast("cpu", amp=False):
        assert (weight @ weight).dtype == torch.float32
    with autocast("cpu", amp=True):
        assert (weight @ weight).dtype == (torch.bfloat16 if supports_bfloat16("cpu") else torch.float32)
