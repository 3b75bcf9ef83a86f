"""The VP schedule against its closed forms, and what holds exactly for Gaussian data."""

import math

import pytest
import torch
from torch import Tensor

from common.diffusion.continuous import (
    VPSchedule,
    gaussian_noise_prediction,
    marginal,
    noise_from_x0,
    residual_coefficients,
    x0_from_noise,
)

SCALES = [1.0, 2.0, 3.0, 4.0]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("snr_scale", "expected"), [(1.0, [-5.02498, 4.55771, 5.75151]), (4.0, [-4.33183, 5.25086, 6.44466])]
)
def test_log_snr_has_the_published_values(snr_scale: float, expected: list[float]) -> None:
    lam = VPSchedule(snr_scale=snr_scale).log_snr(double(1.0, 1e-3, 1e-4))
    torch.testing.assert_close(lam, double(*expected), rtol=0, atol=6e-6)


@pytest.mark.parametrize(("snr_scale", "expected"), [(1.0, 4.319e-5), (4.0, 1.727e-4)])
def test_signal_left_at_the_end(snr_scale: float, expected: float) -> None:
    alpha_bar = VPSchedule(snr_scale=snr_scale).alpha_bar(double(1.0))
    torch.testing.assert_close(alpha_bar, double(expected), rtol=2e-4, atol=0)


@pytest.mark.parametrize(
    ("snr_scale", "expected"), [(1.0, 0.079064), (2.0, 0.146541), (3.0, 0.204806), (4.0, 0.255624)]
)
def test_signal_left_half_way(snr_scale: float, expected: float) -> None:
    alpha_bar = VPSchedule(snr_scale=snr_scale).alpha_bar(double(0.5))
    torch.testing.assert_close(alpha_bar, double(expected), rtol=0, atol=6e-7)


@pytest.mark.parametrize("snr_scale", SCALES)
def test_time_and_log_snr_are_inverse(snr_scale: float) -> None:
    schedule, t = VPSchedule(snr_scale=snr_scale), torch.logspace(-8, 0, 200, dtype=torch.float64)
    torch.testing.assert_close(schedule.t_of_lambda(schedule.log_snr(t)), t, rtol=1e-9, atol=0)


def test_time_and_log_snr_are_inverse_for_constant_beta() -> None:
    """beta_min = beta_max makes the quadratic for t linear, where the usual root formula divides by zero."""
    schedule, t = VPSchedule(beta_min=5.0, beta_max=5.0), double(1e-4, 0.3, 1.0)
    torch.testing.assert_close(schedule.t_of_lambda(schedule.log_snr(t)), t, rtol=1e-9, atol=0)


@pytest.mark.parametrize("snr_scale", SCALES)
def test_scaling_multiplies_the_snr_at_every_time(snr_scale: float) -> None:
    t = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    a, a_1 = VPSchedule(snr_scale=snr_scale).alpha_bar(t), VPSchedule().alpha_bar(t)
    torch.testing.assert_close(a / (1 - a), snr_scale * a_1 / (1 - a_1), rtol=1e-9, atol=0)


def test_unscaled_alpha_bar_is_the_exponential_of_the_integrated_beta() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(VPSchedule().alpha_bar(t), torch.exp(-(0.1 * t + 9.95 * t**2)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("snr_scale", SCALES)
def test_beta_is_the_rate_at_which_log_alpha_bar_falls(snr_scale: float) -> None:
    schedule, t, step = VPSchedule(snr_scale=snr_scale), torch.linspace(0.01, 0.99, 99, dtype=torch.float64), 1e-5
    slope = (schedule.alpha_bar(t - step).log() - schedule.alpha_bar(t + step).log()) / (2 * step)
    torch.testing.assert_close(schedule.beta(t), slope, rtol=1e-7, atol=0)


def test_alpha_and_sigma_are_the_roots_of_signal_and_noise_variance() -> None:
    schedule, t = VPSchedule(snr_scale=4.0), torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(alpha**2, schedule.alpha_bar(t))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    torch.testing.assert_close((alpha / sigma).log()[1:], schedule.log_snr(t)[1:])


def test_sigma_keeps_its_precision_where_one_minus_alpha_bar_has_none() -> None:
    """sigma^2 -> beta_min t / c as t -> 0; 1 - alpha_bar would be off by 1e-3 at t = 1e-12."""
    schedule, t = VPSchedule(snr_scale=4.0), double(1e-12)
    torch.testing.assert_close(schedule.sigma(t) ** 2, 0.1 * t / 4, rtol=1e-9, atol=0)


def test_time_zero_is_data() -> None:
    schedule, zero = VPSchedule(snr_scale=4.0), double(0.0)
    assert schedule.alpha(zero).item() == 1
    assert schedule.sigma(zero).item() == 0


@pytest.mark.parametrize("name", ["alpha_bar", "alpha", "sigma", "log_snr", "beta", "t_of_lambda"])
def test_single_precision_is_lost_only_in_the_last_rounding(name: str) -> None:
    function = getattr(VPSchedule(snr_scale=4.0), name)
    t = torch.logspace(-4, 0, 50, dtype=torch.float32)
    result = function(t)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), function(t.double()), rtol=2e-7, atol=0)


def test_integer_times_are_refused() -> None:
    with pytest.raises(TypeError, match=r"time must be a floating tensor.*int64"):
        VPSchedule().alpha(torch.tensor([10]))


@pytest.mark.parametrize("arguments", [{"beta_min": 0.0}, {"beta_min": 3.0, "beta_max": 2.0}, {"snr_scale": 0.0}])
def test_impossible_schedules_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="VPSchedule: .*" + next(iter(arguments))):
        VPSchedule(**arguments)


@pytest.mark.parametrize("t_dtype", [torch.float32, torch.float64])
def test_data_and_noise_are_recovered_from_the_marginal(t_dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    schedule, t = VPSchedule(snr_scale=4.0), torch.tensor([1e-3, 0.4, 1.0], dtype=t_dtype)
    x_t = marginal(schedule, x0, noise, t)
    torch.testing.assert_close(x0_from_noise(schedule, x_t, noise, t), x0, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(noise_from_x0(schedule, x_t, x0, t), noise, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t_dtype", [torch.float32, torch.float64])
def test_marginal_mixes_each_sample_by_its_own_time(t_dtype: torch.dtype) -> None:
    """In the precision of the data, also where times are given in float32."""
    schedule, t = VPSchedule(), torch.tensor([0.1, 0.9], dtype=t_dtype)
    one, zero = torch.ones(2, 3, 4, dtype=torch.float64), torch.zeros(2, 3, 4, dtype=torch.float64)
    alpha, sigma = (f(t.double())[:, None, None].expand(2, 3, 4) for f in (schedule.alpha, schedule.sigma))
    torch.testing.assert_close(marginal(schedule, one, zero, t), alpha, rtol=1e-14, atol=0)
    torch.testing.assert_close(marginal(schedule, zero, one, t), sigma, rtol=1e-14, atol=0)


@pytest.mark.parametrize("std", [0.01, 0.25, 1.0])
def test_best_loss_on_white_gaussian_data(std: float) -> None:
    """The error of the exact noise prediction has variance ``alpha^2 s^2 / (alpha^2 s^2 + sigma^2)``.

    The prediction is linear in data and noise, so its responses to one standard deviation of each give the variance.
    """
    schedule, t = VPSchedule(snr_scale=4.0), torch.linspace(1e-3, 1, 50, dtype=torch.float64)
    one, zero = torch.ones_like(t)[:, None], torch.zeros_like(t)[:, None]
    mean, spread = double(0.0), double(std)

    def error(x0: Tensor, noise: Tensor) -> Tensor:
        return gaussian_noise_prediction(schedule, marginal(schedule, x0, noise, t), t, mean, spread) - noise

    variance = (error(std * one, zero) ** 2 + error(zero, one) ** 2).flatten()
    signal = schedule.alpha_bar(t) * std**2
    torch.testing.assert_close(variance, signal / (signal + 1 - schedule.alpha_bar(t)))
    left_over = residual_coefficients(schedule, t, mean, spread).out.flatten()
    torch.testing.assert_close(variance, left_over**2)


def test_exact_noise_prediction_is_minus_sigma_times_the_score() -> None:
    """The score of N(alpha mu, V) is found here by differentiating its logarithm."""
    schedule, t = VPSchedule(snr_scale=4.0), double(0.05, 0.5, 1.0)
    mean, std = double(0.3, -0.2), double(0.25, 0.7)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    density = torch.distributions.Normal(alpha * mean, torch.sqrt((alpha * std) ** 2 + sigma**2))
    (score,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    torch.testing.assert_close(gaussian_noise_prediction(schedule, x.detach(), t, mean, std), -sigma * score)


def test_zero_network_in_residual_form_is_the_gaussian_answer() -> None:
    schedule, t = VPSchedule(snr_scale=4.0), double(1e-3, 0.5, 1.0)
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(1, 6, generator=generator).double(), torch.rand(1, 6, generator=generator).double() + 0.01
    x = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    terms = residual_coefficients(schedule, t, mean, std)
    z = (x - terms.shift) * terms.scale
    torch.testing.assert_close(terms.skip * z, gaussian_noise_prediction(schedule, x, t, mean, std))


def test_residual_form_shows_the_network_unit_variance() -> None:
    """x_t of N(mean, std^2) data, taken ``mean +- one standard deviation`` apart, becomes z = +-1."""
    schedule, t = VPSchedule(snr_scale=4.0), double(1e-3, 0.5, 1.0)
    mean, std = double(0.3, -1.0)[None], double(0.25, 0.002)[None]
    terms = residual_coefficients(schedule, t, mean, std)
    alpha, sigma = schedule.alpha(t)[:, None, None], schedule.sigma(t)[:, None, None]
    x = alpha * mean + torch.sqrt(alpha**2 * std**2 + sigma**2)
    torch.testing.assert_close((x - terms.shift) * terms.scale, torch.ones(3, 1, 2, dtype=torch.float64))


def test_residual_form_reaches_every_noise() -> None:
    """``skip^2 + out^2 = 1``: with a network output of unit variance the prediction has the noise's variance."""
    t = torch.linspace(1e-4, 1, 20)
    terms = residual_coefficients(VPSchedule(snr_scale=4.0), t, torch.zeros(1, 2), torch.tensor([[0.01, 0.5]]))
    assert terms.out.shape == (20, 1, 2)
    torch.testing.assert_close(terms.skip**2 + terms.out**2, torch.ones(20, 1, 2))
    assert math.isclose(terms.out[0, 0, 1].item(), 1, rel_tol=1e-3)  # little noise: nearly all is left to the network
