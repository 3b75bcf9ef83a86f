"""The discrete schedule against its published values, and the laws of marginal, posterior and respacing."""

import copy
import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from common.diffusion.gaussian import (
    NoiseSchedule,
    clean_estimate,
    learned_log_variance,
    linear_schedule,
    marginal,
    posterior,
    respaced,
)

FULL = linear_schedule()
SCHEDULES = {
    "1000 steps": FULL,
    "250 of 1000": respaced(FULL, 250),
    "7 of 1000": respaced(FULL, 7),
    "100 steps, 10x betas": linear_schedule(100, 1e-3, 0.2),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_times(schedule: NoiseSchedule) -> Tensor:
    return torch.arange(schedule.num_steps)


def test_linear_schedule_has_the_published_signal_shares() -> None:
    expected = double(0.9999, 0.999780092, 0.0785872429, 4.03582977e-5)
    torch.testing.assert_close(FULL.alpha_bar[[0, 1, 499, 999]], expected, rtol=5e-9, atol=0)
    assert torch.equal(FULL.timesteps, torch.arange(1000))


def test_posterior_half_way_has_the_published_coefficients() -> None:
    one, zero, t = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64), torch.tensor([499])
    on_x0, log_variance = posterior(FULL, one, zero, t)
    on_xt, _ = posterior(FULL, zero, one, t)
    assert on_x0.item() == pytest.approx(0.00307007111, rel=2e-9)
    assert on_xt.item() == pytest.approx(0.99410667, rel=1e-8)
    assert log_variance.exp().item() == pytest.approx(0.0100313554, rel=1e-8)
    assert FULL.beta[499].item() == pytest.approx(0.01004004, rel=1e-7)


def test_hundred_steps_with_tenfold_betas_end_in_noise() -> None:
    shares = linear_schedule(100, 1e-3, 0.2).alpha_bar[[0, 24, 49, 74, 99]]
    torch.testing.assert_close(shares, double(0.99900, 0.52792, 0.07420, 0.00258, 2.04e-5), rtol=2e-3, atol=0)


@each_schedule
def test_signal_shares_are_the_running_product_of_one_minus_beta(schedule: NoiseSchedule) -> None:
    torch.testing.assert_close((1 - schedule.beta).cumprod(0), schedule.alpha_bar, rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [2, 3, 50, 250, 333, 999])
def test_respacing_keeps_the_marginals_of_the_kept_steps(steps: int) -> None:
    schedule = respaced(FULL, steps)
    kept = [round(Fraction(k * 999, steps - 1)) for k in range(steps)]
    assert schedule.timesteps.tolist() == kept
    torch.testing.assert_close((1 - schedule.beta).cumprod(0), FULL.alpha_bar[kept], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "first", "last", "last_beta"),
    [
        (250, [0, 4, 8, 12, 16], [991, 995, 999], 0.0775193449924),
        (50, [0, 20, 41, 61, 82], [958, 979, 999], 0.3298090660946),
    ],
)
def test_respacing_has_the_expected_steps(steps: int, first: list[int], last: list[int], last_beta: float) -> None:
    """The betas are from decimal arithmetic with 40 digits."""
    schedule = respaced(FULL, steps)
    assert schedule.timesteps[:5].tolist() == first
    assert schedule.timesteps[-3:].tolist() == last
    assert schedule.beta[-1].item() == pytest.approx(last_beta, rel=1e-10)


def test_respacing_to_all_steps_is_the_identity() -> None:
    schedule = respaced(FULL, 1000)
    assert torch.equal(schedule.alpha_bar, FULL.alpha_bar)
    assert torch.equal(schedule.timesteps, FULL.timesteps)


def test_respacing_twice_still_tells_the_network_the_original_steps() -> None:
    schedule = respaced(respaced(FULL, 250), 3)
    assert schedule.timesteps.tolist() == [0, 497, 999]  # 497 = round(124 * 999 / 249), kept number 124 of the 250
    assert torch.equal(schedule.alpha_bar, FULL.alpha_bar[schedule.timesteps])


@each_schedule
def test_marginal_mixes_each_sample_by_its_own_time(schedule: NoiseSchedule) -> None:
    t = torch.tensor([-1, 0, schedule.num_steps - 1])
    one, zero = torch.ones(3, 2, 2, dtype=torch.float64), torch.zeros(3, 2, 2, dtype=torch.float64)
    signal, noise = marginal(schedule, one, zero, t), marginal(schedule, zero, one, t)
    share = torch.cat([double(1), schedule.alpha_bar[[0, -1]]])[:, None, None].expand(3, 2, 2)
    torch.testing.assert_close(signal**2, share, rtol=1e-12, atol=0)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones_like(share), rtol=1e-12, atol=0)


def test_time_before_the_first_step_is_clean_data() -> None:
    x0 = normal(0, 2, 5)
    assert torch.equal(marginal(FULL, x0, normal(1, 2, 5), torch.tensor([-1, -1])), x0)


@each_schedule
def test_clean_image_is_recovered_from_the_marginal(schedule: NoiseSchedule) -> None:
    """Far outside [-1, 1] too: estimates are not clamped."""
    x0, noise = 20 * normal(0, schedule.num_steps, 6), normal(1, schedule.num_steps, 6)
    t = all_times(schedule)
    torch.testing.assert_close(clean_estimate(schedule, marginal(schedule, x0, noise, t), noise, t), x0)


@each_schedule
def test_posterior_leads_from_marginal_to_marginal(schedule: NoiseSchedule) -> None:
    """x_{i-1} drawn from the posterior of x_i has the mean and the variance of q(x_{i-1} | x_0), at any stride."""
    t = all_times(schedule)[1:]
    one, zero = torch.ones(len(t), 1, dtype=torch.float64), torch.zeros(len(t), 1, dtype=torch.float64)
    on_x0, log_variance = posterior(schedule, one, zero, t)
    on_xt, _ = posterior(schedule, zero, one, t)
    a, before = schedule.alpha_bar[1:, None], schedule.alpha_bar[:-1, None]
    torch.testing.assert_close(on_x0 + on_xt * a.sqrt(), before.sqrt(), rtol=1e-11, atol=0)
    torch.testing.assert_close(on_xt**2 * (1 - a) + log_variance.exp(), 1 - before, rtol=1e-9, atol=0)


@each_schedule
def test_posterior_is_what_bayes_says(schedule: NoiseSchedule) -> None:
    """Precisions add: 1/var = alpha/beta + 1/(1 - A_before), from q(x_i | x_{i-1}) and q(x_{i-1} | x_0)."""
    t = all_times(schedule)[1:]
    x0, x_t = normal(0, len(t), 1), normal(1, len(t), 1)
    mean, log_variance = posterior(schedule, x0, x_t, t)
    before = schedule.alpha_bar[:-1, None]
    beta = 1 - schedule.alpha_bar[1:, None] / before
    precision = (1 - beta) / beta + 1 / (1 - before)
    expected = ((1 - beta).sqrt() / beta * x_t + before.sqrt() / (1 - before) * x0) / precision
    torch.testing.assert_close(log_variance, -precision.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-10)


@each_schedule
def test_posterior_of_the_first_step_is_the_clean_image(schedule: NoiseSchedule) -> None:
    x0 = normal(0, 1, 7)
    mean, log_variance = posterior(schedule, x0, normal(1, 1, 7), torch.tensor([0]))
    assert torch.equal(mean, x0)
    assert schedule.posterior_variance[0] == 0
    assert log_variance.item() == schedule.posterior_variance[1].log().item()


@each_schedule
def test_posterior_of_the_estimate_by_the_true_noise_is_the_true_posterior(schedule: NoiseSchedule) -> None:
    t = all_times(schedule)
    x0, noise = normal(0, len(t), 5), normal(1, len(t), 5)
    x_t = marginal(schedule, x0, noise, t)
    expected, _ = posterior(schedule, x0, x_t, t)
    torch.testing.assert_close(posterior(schedule, clean_estimate(schedule, x_t, noise, t), x_t, t)[0], expected)


@each_schedule
def test_learned_variance_goes_from_the_posterior_to_beta(schedule: NoiseSchedule) -> None:
    t, ones = all_times(schedule), torch.ones(schedule.num_steps, 1, dtype=torch.float64)
    low, middle, high = (learned_log_variance(schedule, v * ones, t) for v in (-1, 0, 1))
    torch.testing.assert_close(low, posterior(schedule, ones, ones, t)[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(high.exp()[:, 0], schedule.beta, rtol=1e-12, atol=0)
    torch.testing.assert_close(middle.exp(), (low.exp() * high.exp()).sqrt(), rtol=1e-12, atol=0)  # geometric mean
    assert (low < high).all()


def test_learned_variance_goes_on_outside_its_two_ends() -> None:
    """Not clamped, so that a network that overshoots is still taught."""
    t, ones = torch.tensor([500]), torch.ones(1, 1, dtype=torch.float64)
    low, high, beyond = (learned_log_variance(FULL, v * ones, t).item() for v in (-1, 1, 3))
    assert beyond - high == pytest.approx(high - low, rel=1e-9)


def test_float32_coefficients_are_rounded_once() -> None:
    t, one = all_times(FULL), torch.ones(1000, 1)
    for index, exact in enumerate((FULL.alpha_bar.sqrt(), (1 - FULL.alpha_bar).sqrt())):
        x0, noise = (one, 0 * one) if index == 0 else (0 * one, one)
        result = marginal(FULL, x0, noise, t)
        assert result.dtype == torch.float32
        assert torch.equal(result[:, 0], exact.float())


@pytest.mark.parametrize("device", ["cpu", "meta"], ids=["times on the host", "times on the device"])
def test_no_value_on_the_device_is_read(device: str) -> None:
    """Tensors without data refuse to be read, as an accelerator would make the host wait."""
    x, t = torch.zeros(2, 1, 4, 4, device="meta"), torch.ones(2, dtype=torch.int64, device=device)
    mean, log_variance = posterior(FULL, x, x, t)
    for result in (marginal(FULL, x, x, t), clean_estimate(FULL, x, x, t), mean, learned_log_variance(FULL, x, t)):
        assert result.is_meta
        assert result.shape == x.shape
    assert log_variance.shape == (2, 1, 1, 1)


def test_schedule_survives_a_copy() -> None:
    assert FULL.beta is FULL.beta  # tables are computed once
    assert torch.equal(copy.deepcopy(FULL).beta, FULL.beta)


@pytest.mark.parametrize("t", [-2, 1000])
def test_time_outside_the_schedule_is_refused(t: int) -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(IndexError, match=rf"time \[{t}\] is outside -1\.\.999"):
        marginal(FULL, x, x, torch.tensor([t]))


def test_clean_data_have_no_step_that_leads_to_them_from_before() -> None:
    x, t = torch.zeros(1, 1), torch.tensor([-1])
    for function in (posterior, clean_estimate):
        with pytest.raises(IndexError, match=r"time \[-1\] is outside 0\.\.999"):
            function(FULL, x, x, t)


def test_time_must_be_integer() -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(TypeError, match=r"integer tensor, got torch\.float32"):
        marginal(FULL, x, x, torch.tensor([0.5]))


@pytest.mark.parametrize(
    "alpha_bar",
    [double(0.5, 0.5), double(0.2, 0.5), double(1.0, 0.5), double(0.5, 0.0), double(0.5), double(0.9, 0.5).float()],
    ids=["equal", "rising", "starts clean", "ends without signal", "single step", "float32"],
)
def test_table_that_is_no_schedule_is_refused(alpha_bar: Tensor) -> None:
    with pytest.raises(ValueError, match="NoiseSchedule: alpha_bar must"):
        NoiseSchedule(alpha_bar, torch.arange(len(alpha_bar)))


@pytest.mark.parametrize(
    "timesteps",
    [torch.tensor([0, 0]), torch.tensor([3, 1]), torch.tensor([-1, 1]), torch.arange(3), torch.tensor([0.0, 1.0])],
    ids=["equal", "falling", "negative", "other number", "floating"],
)
def test_timesteps_that_do_not_fit_are_refused(timesteps: Tensor) -> None:
    with pytest.raises(ValueError, match="NoiseSchedule: timesteps must"):
        NoiseSchedule(double(0.9, 0.5), timesteps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 1}, "num_steps=1,"),
        ({"beta_start": 0.0}, r"beta_start=0\.0"),
        ({"beta_start": 0.03}, r"beta_start=0\.03, beta_end=0\.02"),
        ({"beta_end": 1.0}, r"beta_end=1\.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_schedule(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 1001])
def test_impossible_respacing_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"respaced: num_steps={steps} must lie in 2\.\.1000"):
        respaced(FULL, steps)


def test_default_betas_leave_signal_after_a_hundred_steps() -> None:
    """Why the betas must be scaled with the number of steps: an amplitude of 0.6 would be left."""
    assert math.sqrt(linear_schedule(100).alpha_bar[-1].item()) == pytest.approx(0.603, abs=5e-4)
