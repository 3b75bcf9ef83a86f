"""Residual shifting against its published table, and the laws that forward process, posterior and sampler obey."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.diffusion.residual_shift import (
    ResidualShiftSchedule,
    input_scale,
    loss_weights,
    marginal,
    posterior,
    prior_sample,
    residual_shift_schedule,
    sample,
    single_step,
)

SCHEDULES = {
    "four steps": residual_shift_schedule(),
    "fifteen steps": residual_shift_schedule(15, kappa=2.0, min_noise=0.04, power=0.3),
    "two steps, weak noise": residual_shift_schedule(2, kappa=0.5, min_noise=0.1, power=0.7, sqrt_eta_end=1.0),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def all_times(schedule: ResidualShiftSchedule) -> Tensor:
    return torch.arange(1, schedule.num_steps + 1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded_noise(y0: Tensor, seed: int) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda t: torch.randn(y0.shape, generator=generator, dtype=y0.dtype)


def test_four_step_table_has_the_published_values() -> None:
    schedule = residual_shift_schedule()
    expected = {
        "eta": double(0.01, 0.27050024, 0.57970254, 0.98010000),
        "alpha": double(0.01, 0.26050024, 0.30920230, 0.40039746),
        "noise_std": double(0.2, 1.04019274, 1.52276398, 1.98),
        "posterior_std": double(0, 0.19626833, 0.75968330, 0.97329179),
    }
    for name, values in expected.items():
        torch.testing.assert_close(getattr(schedule, name), values, rtol=0, atol=1e-7, msg=name)
    torch.testing.assert_close(schedule.eta.sqrt(), double(0.1, 0.52009637, 0.76138199, 0.99), rtol=0, atol=1e-8)


def test_fifteen_step_schedule_starts_at_min_noise_and_ends_at_sqrt_eta_end() -> None:
    root = SCHEDULES["fifteen steps"].eta.sqrt()
    torch.testing.assert_close(root[[0, 1, -1]], double(0.02, 0.11716508, 0.99), rtol=0, atol=1e-8)


@each_schedule
def test_shifts_are_positive_and_add_up_to_the_last_eta(schedule: ResidualShiftSchedule) -> None:
    assert (schedule.alpha > 0).all()
    torch.testing.assert_close(schedule.alpha.cumsum(0), schedule.eta, rtol=0, atol=1e-14)


def test_unit_kappa_bounds_the_first_root_by_min_noise_itself() -> None:
    """s_1 = min(m / kappa, m): below kappa = 1 it is m that counts, not m / kappa."""
    assert float(residual_shift_schedule(kappa=0.5, min_noise=0.2).eta[0].sqrt()) == pytest.approx(0.2, abs=1e-15)


@each_schedule
def test_noiseless_sample_lies_on_the_segment_at_fraction_eta(schedule: ResidualShiftSchedule) -> None:
    t, x0, y0 = all_times(schedule), normal(0, schedule.num_steps, 1, 3, 2), normal(1, schedule.num_steps, 1, 3, 2)
    x_t = marginal(schedule, x0, y0, torch.zeros_like(x0), t)
    fraction = (x_t - x0) / (y0 - x0)
    torch.testing.assert_close(fraction, schedule.eta.reshape(-1, 1, 1, 1).expand_as(x0), rtol=1e-9, atol=1e-9)


@each_schedule
def test_mean_stays_where_source_equals_target(schedule: ResidualShiftSchedule) -> None:
    x0 = normal(0, schedule.num_steps, 5)
    assert torch.equal(marginal(schedule, x0, x0, torch.zeros_like(x0), all_times(schedule)), x0)


@each_schedule
def test_single_steps_compose_to_the_marginal(schedule: ResidualShiftSchedule) -> None:
    """x_T is linear in the noises of the steps; its mean and the sum of squared coefficients are those of q(x_T)."""
    steps = schedule.num_steps
    x0, y0 = double(0.3).reshape(1, 1), double(-0.5).reshape(1, 1)
    noises = torch.cat([torch.zeros(steps, 1, dtype=torch.float64), torch.eye(steps, dtype=torch.float64)], 1)
    x = x0.expand(1, steps + 1)  # column 0: no noise; column k: unit noise in step k
    for t in range(1, steps + 1):
        x = single_step(schedule, x, x0, y0, noises[t - 1][None], torch.tensor([t]))
        mean = marginal(schedule, x0, y0, torch.zeros_like(x0), torch.tensor([t]))
        variance = (x[:, 1:] - x[:, :1]).square().sum()
        torch.testing.assert_close(x[:, :1], mean, rtol=0, atol=1e-13)
        torch.testing.assert_close(variance, schedule.kappa**2 * schedule.eta[t - 1], rtol=1e-12, atol=0)


@each_schedule
def test_posterior_leads_from_marginal_to_marginal(schedule: ResidualShiftSchedule) -> None:
    """x_{t-1} drawn from the posterior of x_t has the mean and the variance of q(x_{t-1} | x_0, y_0)."""
    t = all_times(schedule)
    one, zero = torch.ones(len(t), 1, dtype=torch.float64), torch.zeros(len(t), 1, dtype=torch.float64)
    on_x0, std = posterior(schedule, one, zero, t)
    on_xt, _ = posterior(schedule, zero, one, t)
    eta, before = schedule.eta[:, None], torch.cat([double(0), schedule.eta[:-1]])[:, None]
    variance = on_xt**2 * schedule.kappa**2 * eta + std**2
    torch.testing.assert_close(variance, schedule.kappa**2 * before, rtol=0, atol=1e-12)
    x0, y0 = 0.3 * one, -0.5 * one
    mean_t, mean_before = x0 + eta * (y0 - x0), x0 + before * (y0 - x0)
    torch.testing.assert_close(on_x0 * x0 + on_xt * mean_t, mean_before, rtol=0, atol=1e-12)


def test_posterior_samples_have_the_moments_of_the_marginal() -> None:
    schedule, count = residual_shift_schedule(), 500_000
    x0, y0 = torch.full((count,), 0.3), torch.full((count,), -0.5)
    generator = torch.Generator().manual_seed(0)
    x = marginal(schedule, x0, y0, torch.randn(count, generator=generator), torch.tensor([4]))
    for t, expected_mean, expected_std in [(4, -0.1638, 1.5228), (3, 0.0836, 1.0402), (2, 0.2920, 0.2000)]:
        mean, std = posterior(schedule, x0, x, torch.tensor([t]))
        x = mean + std * torch.randn(count, generator=generator)
        assert float(x.mean()) == pytest.approx(expected_mean, abs=5 * expected_std / count**0.5)
        assert float(x.std()) == pytest.approx(expected_std, rel=0.005)


@each_schedule
def test_posterior_of_the_first_step_is_the_target_itself(schedule: ResidualShiftSchedule) -> None:
    x0, x_1 = normal(0, 2, 7), normal(1, 2, 7)
    mean, std = posterior(schedule, x0, x_1, torch.tensor([1, 1]))
    assert torch.equal(mean, x0)
    assert not std.any()


def test_prior_is_the_source_with_noise_of_the_last_step() -> None:
    y0 = normal(0, 2, 3)
    start = prior_sample(residual_shift_schedule(), y0, torch.ones_like(y0))
    torch.testing.assert_close(start, y0 + 1.98, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("pixel", (1.6, 4.12057823, 5.56829194, 6.94)), ("latent", (1.0198, 1.4429, 1.8218, 2.2182))],
)
def test_input_scale_has_the_published_values(kind: str, expected: tuple[float, ...]) -> None:
    schedule = residual_shift_schedule()
    scale = input_scale(schedule, all_times(schedule), torch.zeros(4, 1, 2, 2, dtype=torch.float64), kind)  # type: ignore[arg-type]
    assert scale.shape == (4, 1, 1, 1)
    torch.testing.assert_close(scale.flatten(), double(*expected), rtol=0, atol=1e-8 if kind == "pixel" else 5e-5)


def test_clipped_loss_weights_have_the_published_values() -> None:
    expected = double(12.97985, 12.03789, 0.2464790, 0.0880898)
    torch.testing.assert_close(loss_weights(residual_shift_schedule()), expected, rtol=1e-6, atol=0)


@each_schedule
def test_loss_weights_are_those_of_the_bound_after_the_first_step(schedule: ResidualShiftSchedule) -> None:
    eta, before = schedule.eta[1:], schedule.eta[:-1]
    bound = (eta - before) / (2 * schedule.kappa**2 * eta * before)
    torch.testing.assert_close(loss_weights(schedule)[1:], bound, rtol=1e-10, atol=0)


@each_schedule
@pytest.mark.parametrize("deterministic", [False, True])
def test_perfect_denoiser_is_returned_bit_exactly(schedule: ResidualShiftSchedule, deterministic: bool) -> None:
    x0, y0 = normal(0, 2, 1, 4, 4).clamp(-1, 1).float(), normal(1, 2, 1, 4, 4).float()
    for seed in range(3):
        noise = seeded_noise(y0, seed)
        assert torch.equal(sample(lambda x, t: x0, y0, schedule, noise=noise, deterministic=deterministic), x0)


def test_denoiser_is_called_once_a_step_in_falling_order() -> None:
    times: list[list[int]] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64
        times.append(t.tolist())
        return torch.zeros_like(x)

    y0 = normal(0, 2, 1, 4, 4)
    sample(denoise, y0, residual_shift_schedule(), noise=seeded_noise(y0, 0))
    assert times == [[4, 4], [3, 3], [2, 2], [1, 1]]


@pytest.mark.parametrize(("deterministic", "expected"), [(False, [4, 3, 2, 1]), (True, [4])])
def test_noise_is_asked_for_by_the_state_it_enters(deterministic: bool, expected: list[int]) -> None:
    asked: list[int] = []

    def noise(t: int) -> Tensor:
        asked.append(t)
        return torch.zeros(1, 1, 4, 4)

    sample(lambda x, t: x, torch.zeros(2, 1, 4, 4), residual_shift_schedule(), noise=noise, deterministic=deterministic)
    assert asked == expected


def test_states_of_the_sampler_have_the_moments_of_the_marginals() -> None:
    """With the true target as estimate, x_{T-1}, ..., x_1 are (but for the start's mean) distributed as q(x_t)."""
    schedule, x0, y0 = residual_shift_schedule(), torch.full((200_000,), 0.3), torch.full((200_000,), -0.5)
    generator, spread = torch.Generator().manual_seed(0), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        spread.append(float(x.std()))
        return x0

    sample(denoise, y0, schedule, noise=lambda t: torch.randn(y0.shape, generator=generator))
    assert spread == pytest.approx([1.98, 1.522764, 1.040193, 0.2], rel=0.01)


def test_estimates_are_clamped_unless_told_otherwise() -> None:
    y0 = torch.zeros(1, 1, 2, 2)
    noise = seeded_noise(y0, 0)
    assert sample(lambda x, t: torch.full_like(x, 3.0), y0, residual_shift_schedule(), noise=noise).unique() == 1
    free = sample(lambda x, t: torch.full_like(x, 3.0), y0, residual_shift_schedule(), noise=noise, clamp=None)
    assert free.unique() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_of_the_images_is_kept(dtype: torch.dtype) -> None:
    schedule, x = residual_shift_schedule(), torch.zeros(2, 1, 4, 4, dtype=dtype)
    t = torch.tensor([1, 4])
    assert marginal(schedule, x, x, x, t).dtype == dtype
    assert posterior(schedule, x, x, t)[0].dtype == dtype
    assert sample(lambda x_t, _: x_t, x, schedule, noise=lambda _: x).dtype == dtype


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_value_on_the_device_is_read(deterministic: bool) -> None:
    """Tensors without data refuse to be read, as an accelerator would make the host wait."""
    schedule, x, t = (
        residual_shift_schedule(),
        torch.zeros(2, 1, 4, 4, device="meta"),
        torch.zeros(2, device="meta").long(),
    )
    for result in (
        marginal(schedule, x, x, x, t),
        single_step(schedule, x, x, x, x, t),
        posterior(schedule, x, x, t)[0],
        x / input_scale(schedule, t, x),
        sample(lambda x_t, _: x_t, x, schedule, noise=lambda _: x, deterministic=deterministic),
    ):
        assert result.is_meta
        assert result.shape == x.shape


@pytest.mark.parametrize("t", [0, 5, -1])
def test_time_outside_the_table_is_refused(t: int) -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(IndexError, match=r"outside 1\.\.4"):
        marginal(residual_shift_schedule(), x, x, x, torch.tensor([t]))


def test_time_must_be_integer() -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(TypeError, match="integer"):
        marginal(residual_shift_schedule(), x, x, x, torch.tensor([0.5]))


@pytest.mark.parametrize(
    "eta",
    [double(0.1, 0.1), double(0.5, 0.2), double(0.0, 0.5), double(0.5, 1.01), double(0.5), double(0.1, 0.5).float()],
    ids=["equal", "falling", "zero", "beyond 1", "single step", "float32"],
)
def test_table_that_is_no_schedule_is_refused(eta: Tensor) -> None:
    with pytest.raises(ValueError, match="ResidualShiftSchedule: eta"):
        ResidualShiftSchedule(eta, kappa=2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 1}, "num_steps=1"),
        ({"kappa": 0.0}, "kappa=0.0"),
        ({"power": 0.0}, "power=0.0"),
        ({"min_noise": 0.0}, "min_noise=0.0"),
        ({"sqrt_eta_end": 1.1}, "sqrt_eta_end=1.1"),
        ({"kappa": 1.0, "min_noise": 0.99}, "min_noise=0.99"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        residual_shift_schedule(**settings)  # type: ignore[arg-type]


def test_unknown_input_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="kind='voxel'"):
        input_scale(residual_shift_schedule(), torch.tensor([1]), torch.zeros(1, 1), "voxel")  # type: ignore[arg-type]
