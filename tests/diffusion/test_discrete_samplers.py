"""DDPM and DDIM on data whose best noise prediction is known: a single image, and Gaussians."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.diffusion.gaussian import NoiseSchedule, linear_schedule, respaced
from common.diffusion.samplers.ancestral import ddpm
from common.diffusion.samplers.grid import Point
from common.diffusion.samplers.implicit import ddim
from common.diffusion.samplers.steps import ode_step, sde_step

FULL = linear_schedule()
STD = 0.5
Prediction = tuple[Tensor, Tensor | None]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbered_noise(*shape: int) -> Callable[[int], Tensor]:
    return lambda i: normal(100 + i, *shape)


def shares(t: Tensor) -> Tensor:
    """A at the times that the network is told, which are those of the full schedule, (B, 1)."""
    return FULL.alpha_bar[t][:, None]


def point_model(x: Tensor, t: Tensor) -> Prediction:
    """The noise if all data are the image :data:`POINT`."""
    return (x - shares(t).sqrt() * POINT) / (1 - shares(t)).sqrt(), None


POINT = 3 * normal(7, 1, 6)


def gaussian_model(x: Tensor, t: Tensor) -> Prediction:
    """The expected noise for data N(0, STD^2)."""
    return (1 - shares(t)).sqrt() * x / (shares(t) * STD**2 + 1 - shares(t)), None


def exact_variance_model(schedule: NoiseSchedule) -> Callable[[Tensor, Tensor], Prediction]:
    """Gaussian model that also knows the variance of its steps: the posterior's plus that of x_0 given x_t."""

    def model(x: Tensor, t: Tensor) -> Prediction:
        i = int((schedule.timesteps == t[0]).nonzero())
        a, before = schedule.alpha_bar[i], schedule.alpha_bar_before[i]
        unknown = STD**2 * (1 - a) / (a * STD**2 + 1 - a)  # variance of x_0 given x_t
        variance = schedule.posterior_variance[i] + (schedule.beta[i] * before.sqrt() / (1 - a)) ** 2 * unknown
        low, high = schedule.posterior_log_variance[i], schedule.beta[i].log()
        v = 2 * (variance.log() - low) / (high - low) - 1
        return gaussian_model(x, t)[0], v.expand_as(x)

    return model


def output_std(sample: Callable[[Tensor, Callable[[int], Tensor]], Tensor], schedule: NoiseSchedule) -> float:
    """Exact standard deviation of what a linear sampler returns: its responses to the start and to each noise.

    Sample k = 1..N-1 of the batch gets noise in step k only; sample 0 gets the start, with the marginal's spread.
    """
    a = schedule.alpha_bar[-1]
    start = torch.zeros(schedule.num_steps, 1, dtype=torch.float64)
    start[0] = (a * STD**2 + 1 - a).sqrt()
    units = torch.eye(schedule.num_steps, dtype=torch.float64)[..., None]
    return sample(start, lambda i: units[i]).square().sum().sqrt().item()


@pytest.mark.parametrize("steps", [2, 3, 50, 250, 1000])
def test_ddim_with_the_true_noise_returns_the_clean_image(steps: int) -> None:
    x = ddim(point_model, normal(0, 4, 6), respaced(FULL, steps))
    torch.testing.assert_close(x, POINT.expand(4, 6), rtol=0, atol=1e-8)


@pytest.mark.parametrize("steps", [2, 50, 1000])
def test_random_samplers_with_the_true_noise_return_the_clean_image(steps: int) -> None:
    start, noise = normal(0, 4, 6), numbered_noise(4, 6)
    for x in (
        ddpm(point_model, start, respaced(FULL, steps), noise=noise),
        ddim(point_model, start, respaced(FULL, steps), eta=0.5, noise=noise),
    ):
        torch.testing.assert_close(x, POINT.expand(4, 6), rtol=0, atol=1e-8)


@pytest.mark.parametrize("steps", [2, 10, 50, 250])
def test_ddpm_with_the_exact_variance_keeps_the_std_of_gaussian_data_at_any_stride(steps: int) -> None:
    """What is returned is E[x_0 | x_i] at i = 0, of variance ``A_0 s^4 / (A_0 s^2 + 1 - A_0)``: 0.02 % short in std."""
    schedule = respaced(FULL, steps)
    std = output_std(lambda x, noise: ddpm(exact_variance_model(schedule), x, schedule, noise=noise), schedule)
    a = FULL.alpha_bar[0].item()
    assert std == pytest.approx(math.sqrt(a * STD**4 / (a * STD**2 + 1 - a)), rel=1e-9)
    assert std == pytest.approx(STD, rel=3e-4)


@pytest.mark.parametrize(("steps", "loss"), [(50, 0.12), (250, 0.03), (500, 0.016)])
def test_std_lost_with_the_smallest_variance_shrinks_with_the_stride(steps: int, loss: float) -> None:
    """The variance of x_0 given x_t is left out of each step, which is of first order in the stride."""
    schedule = respaced(FULL, steps)
    std = output_std(lambda x, noise: ddpm(gaussian_model, x, schedule, noise=noise), schedule)
    assert STD * (1 - loss) < std < STD


@pytest.mark.parametrize(("steps", "loss"), [(50, 0.06), (250, 0.013), (500, 0.0065)])
def test_ddim_keeps_the_std_of_gaussian_data_up_to_first_order_in_the_stride(steps: int, loss: float) -> None:
    schedule = respaced(FULL, steps)
    std = output_std(lambda x, noise: ddim(gaussian_model, x, schedule), schedule)
    assert STD * (1 - loss) < std < STD


def wavy_model(x: Tensor, t: Tensor) -> Prediction:
    """Not a good prediction of anything, but not linear either."""
    return torch.sin(3 * x) + 0.001 * t[:, None], None


def points(schedule: NoiseSchedule) -> list[Point]:
    """The steps of a schedule, and clean data before them, as points of continuous time."""
    table = [1.0, *schedule.alpha_bar.tolist()]
    log_snr = [math.inf, *(0.5 * math.log(a / (1 - a)) for a in table[1:])]
    return [
        Point(t=math.nan, alpha=math.sqrt(a), sigma=math.sqrt(1 - a), lam=lam, beta=math.nan)
        for a, lam in zip(table, log_snr, strict=True)
    ]


def by_points(
    step: Callable[[Tensor, Tensor, int, Point, Point], Tensor], x: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """Walk down the points of a schedule with :func:`wavy_model`."""
    grid = points(schedule)
    for i in reversed(range(schedule.num_steps)):
        a, b = grid[i + 1], grid[i]
        noise, _ = wavy_model(x, schedule.timesteps[i].expand(len(x)))
        x = step(x, (x - a.sigma * noise) / a.alpha, i, a, b)
    return x


def test_ddim_is_the_first_order_step_of_the_continuous_ode() -> None:
    schedule, start = respaced(FULL, 9), normal(0, 4, 6)
    expected = by_points(lambda x, x0, i, a, b: ode_step(x, x0, a, b), start, schedule)
    torch.testing.assert_close(ddim(wavy_model, start, schedule), expected, rtol=1e-7, atol=1e-9)


def test_ddpm_and_ddim_with_full_noise_are_the_first_order_step_of_the_continuous_sde() -> None:
    """Hence DDIM at eta = 1 has the variance of the posterior of the spaced chain."""
    schedule, start, noise = respaced(FULL, 9), normal(0, 4, 6), numbered_noise(4, 6)

    def step(x: Tensor, x0: Tensor, i: int, a: Point, b: Point) -> Tensor:
        return sde_step(x, x0, noise(i), a, b) if i else x0

    expected = by_points(step, start, schedule)
    torch.testing.assert_close(ddpm(wavy_model, start, schedule, noise=noise), expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(ddim(wavy_model, start, schedule, eta=1.0, noise=noise), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_noise_of_ddim_is_eta_times_that_of_the_posterior(eta: float) -> None:
    """Seen in the last noise of a chain that then goes on without change: x_0 of the last step is x / sqrt(A_0)."""
    schedule = respaced(FULL, 50)

    def blind(x: Tensor, t: Tensor) -> Prediction:
        return torch.zeros_like(x), None

    def response(level: float) -> Tensor:
        noise = lambda i: torch.full((1, 1), level if i == 1 else 0.0, dtype=torch.float64)  # noqa: E731
        return ddim(blind, torch.zeros(1, 1, dtype=torch.float64), schedule, eta=eta, noise=noise)

    a, before = schedule.alpha_bar[1].item(), schedule.alpha_bar[0].item()
    deviation = ((response(1.0) - response(0.0)) * math.sqrt(before)).item()
    expected = eta * math.sqrt((1 - before) / (1 - a)) * math.sqrt(1 - a / before)
    assert deviation == pytest.approx(expected, rel=1e-9)


def test_learned_variance_sets_the_noise_of_each_step() -> None:
    """v = 1 makes the variance beta, v = -1 that of the posterior, which is also what no v means."""
    schedule, start, noise = respaced(FULL, 5), normal(0, 2, 3), numbered_noise(2, 3)
    states: dict[str, list[Tensor]] = {}

    def sampled(name: str, v: float | None) -> Tensor:
        def model(x: Tensor, t: Tensor) -> Prediction:
            states.setdefault(name, []).append(x)
            return torch.zeros_like(x), None if v is None else torch.full_like(x, v)

        return ddpm(model, start, schedule, noise=noise)

    torch.testing.assert_close(sampled("low", -1.0), sampled("none", None), rtol=1e-12, atol=0)
    sampled("high", 1.0)
    difference = states["high"][1] - states["low"][1]  # after the first step, i = 4
    spread = schedule.beta[4].sqrt() - schedule.posterior_variance[4].sqrt()
    torch.testing.assert_close(difference, spread * noise(4), rtol=1e-9, atol=1e-12)


def test_network_is_told_the_original_steps_and_asked_once_a_step() -> None:
    asked: list[list[int]] = []

    def model(x: Tensor, t: Tensor) -> Prediction:
        assert t.dtype == torch.int64
        asked.append(t.tolist())
        return torch.zeros_like(x), None

    start, expected = normal(0, 2, 3), [[999, 999], [666, 666], [333, 333], [0, 0]]
    ddpm(model, start, respaced(FULL, 4), noise=numbered_noise(2, 3))
    assert asked == expected
    asked.clear()
    ddim(model, start, respaced(FULL, 4))
    assert asked == expected


def test_noise_is_asked_for_by_the_step_it_enters_and_never_for_the_last() -> None:
    asked: list[int] = []

    def noise(i: int) -> Tensor:
        asked.append(i)
        return torch.zeros(1, 3)  # one for the whole batch

    start = normal(0, 2, 3)
    ddpm(wavy_model, start, respaced(FULL, 4), noise=noise)
    assert asked == [3, 2, 1]
    asked.clear()
    ddim(wavy_model, start, respaced(FULL, 4), eta=0.5, noise=noise)
    assert asked == [3, 2, 1]
    asked.clear()
    ddim(wavy_model, start, respaced(FULL, 4), eta=0.0, noise=noise)
    assert asked == []


def test_chain_from_an_intermediate_step_uses_the_first_rows() -> None:
    part = NoiseSchedule(FULL.alpha_bar[:300], FULL.timesteps[:300])
    x_t = FULL.alpha_bar[299].sqrt() * POINT + (1 - FULL.alpha_bar[299]).sqrt() * normal(1, 4, 6)
    torch.testing.assert_close(ddim(point_model, x_t, part), POINT.expand(4, 6), rtol=0, atol=1e-8)


def test_estimates_far_outside_the_image_range_are_not_clamped() -> None:
    def model(x: Tensor, t: Tensor) -> Prediction:
        return (x - shares(t).sqrt() * 50) / (1 - shares(t)).sqrt(), None

    x = ddpm(model, normal(0, 1, 2), respaced(FULL, 10), noise=numbered_noise(1, 2))
    torch.testing.assert_close(x, torch.full((1, 2), 50.0, dtype=torch.float64))


def test_predictions_in_half_precision_leave_the_state_in_its_own() -> None:
    start = normal(0, 2, 3).float()

    def model(x: Tensor, t: Tensor) -> Prediction:
        return x.bfloat16(), x.bfloat16()

    for x in (ddpm(model, start, respaced(FULL, 3), noise=lambda i: start), ddim(model, start, respaced(FULL, 3))):
        assert x.dtype == torch.float32


def test_no_value_on_the_device_is_read_while_sampling() -> None:
    """Tensors without data refuse to be read, as an accelerator would make the host wait."""
    x = torch.zeros(2, 1, 4, 4, device="meta")
    schedule = respaced(FULL, 5)
    for result in (
        ddpm(lambda x, t: (x, x), x, schedule, noise=lambda i: x),
        ddim(lambda x, t: (x, None), x, schedule, eta=0.5, noise=lambda i: x),
    ):
        assert result.is_meta
        assert result.shape == x.shape


def test_sampling_records_no_gradients() -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    start = normal(0, 2, 3)
    assert not ddim(lambda x, t: (weight * x, None), start, respaced(FULL, 3)).requires_grad
    assert not ddpm(lambda x, t: (weight * x, None), start, respaced(FULL, 3), noise=lambda i: start).requires_grad


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_impossible_eta_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match=rf"ddim: eta={eta} must lie in 0\.\.1"):
        ddim(wavy_model, normal(0, 1, 2), FULL, eta=eta, noise=numbered_noise(1, 2))


def test_random_ddim_asks_for_its_noise() -> None:
    with pytest.raises(ValueError, match=r"ddim: eta=0\.5 needs `noise`"):
        ddim(wavy_model, normal(0, 1, 2), FULL, eta=0.5)
