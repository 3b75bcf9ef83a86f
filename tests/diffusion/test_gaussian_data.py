"""Samplers on data N(mu, s^2), where noise prediction, ODE solution and final distribution are known exactly."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from common.diffusion.continuous import VPSchedule, gaussian_noise_prediction
from common.diffusion.samplers import SAMPLERS, dpm_solver_pp, euler, sampler
from common.diffusion.samplers.grid import make_grid
from common.diffusion.samplers.steps import sde_step

SCHEDULE = VPSchedule(snr_scale=4.0)
MEAN, STD = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)
X1 = torch.tensor([[1.234]], dtype=torch.float64)
T_END = 1e-3
EVALUATIONS_PER_STEP = {"dpm_solver_2": 2, "dpm_solver_3": 3}


def model(x: Tensor, t: Tensor) -> Tensor:
    return gaussian_noise_prediction(SCHEDULE, x, t, MEAN, STD)


def mean_and_std(t: float) -> tuple[float, float]:
    """Of x_t: ``alpha mu`` and ``sqrt(alpha^2 s^2 + sigma^2)``."""
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(time), SCHEDULE.sigma(time)
    return (alpha * MEAN).item(), torch.sqrt((alpha * STD) ** 2 + sigma**2).item()


def ode_error(name: str, steps: int, spacing: str = "lambda") -> float:
    """``|sampled - exact|`` at T_END; the ODE keeps the distance from the mean in units of the standard deviation."""
    (mean_1, std_1), (mean_end, std_end) = mean_and_std(1.0), mean_and_std(T_END)
    exact = mean_end + std_end / std_1 * (X1.item() - mean_1)
    evaluations = steps * EVALUATIONS_PER_STEP.get(name, 1)
    x = SAMPLERS[name](model, X1, SCHEDULE, num_evaluations=evaluations, spacing=spacing, t_end=T_END, denoise=False)
    return abs(x.item() - exact)


@pytest.mark.parametrize(
    ("name", "errors"),
    [  # at 10, 20, 40, 80, 160 steps; below 15 steps 2M ends with a step of first order, so 10 is left out
        ("ddim", {10: 6.5e-2, 20: 3.5e-2, 40: 1.8e-2, 80: 9.1e-3, 160: 4.6e-3}),
        ("dpm_solver_pp_2m", {20: 4.0e-3, 40: 1.1e-3, 80: 2.7e-4, 160: 6.9e-5}),
        ("dpm_solver_2", {10: 2.0e-2, 20: 4.8e-3, 40: 1.15e-3, 80: 2.8e-4, 160: 7.0e-5}),
        ("dpm_solver_3", {10: 5.9e-4, 20: 5.7e-5, 40: 6.0e-6, 80: 6.8e-7, 160: 8.1e-8}),
    ],
)
def test_error_of_the_ode_samplers(name: str, errors: dict[int, float]) -> None:
    for steps, expected in errors.items():
        assert ode_error(name, steps) == pytest.approx(expected, rel=0.05), f"{name}, {steps} steps"


@pytest.mark.parametrize(("steps", "expected"), [(20, 6.9e-2), (40, 2.4e-2), (80, 6.6e-3), (160, 1.6e-3)])
def test_error_of_2m_on_uniform_time(steps: int, expected: float) -> None:
    assert ode_error("dpm_solver_pp_2m", steps, spacing="time") == pytest.approx(expected, rel=0.05)


def test_2m_needs_uniform_lambda_to_beat_ddim_at_few_steps() -> None:
    assert ode_error("dpm_solver_pp_2m", 20, spacing="time") > ode_error("ddim", 20, spacing="time")
    assert ode_error("dpm_solver_pp_2m", 20) < ode_error("ddim", 20) / 5


@pytest.mark.parametrize(
    ("name", "spacing", "order"),
    [
        ("ddim", "lambda", 1),
        ("dpm_solver_pp_2m", "lambda", 2),
        ("dpm_solver_pp_2m", "time", 2),
        ("dpm_solver_2", "lambda", 2),
        ("dpm_solver_3", "lambda", 3),
        ("euler", "time", 1),  # on lambda its error changes sign, which makes the slope irregular
    ],
)
def test_order_of_convergence(name: str, spacing: str, order: int) -> None:
    slope = math.log2(ode_error(name, 80, spacing) / ode_error(name, 160, spacing))
    assert slope == pytest.approx(order, abs=0.15)


def test_fast_is_of_third_order_up_to_its_last_step() -> None:
    """Its error at 160 evaluations lies well below what a second-order solver makes of twice as many."""
    (mean_1, std_1), (mean_end, std_end) = mean_and_std(1.0), mean_and_std(T_END)
    exact = mean_end + std_end / std_1 * (X1.item() - mean_1)
    x = SAMPLERS["dpm_solver_fast"](model, X1, SCHEDULE, num_evaluations=161, t_end=T_END, denoise=False)
    assert abs(x.item() - exact) < ode_error("dpm_solver_2", 160) / 10


POINT = torch.tensor([[0.7, -0.4]], dtype=torch.float64)


@pytest.mark.parametrize("spacing", ["lambda", "time"])
@pytest.mark.parametrize("name", ["ddim", "dpm_solver_2", "dpm_solver_3", "dpm_solver_fast", "dpm_solver_pp_2m"])
def test_exponential_integrators_are_exact_for_a_single_image(name: str, spacing: str) -> None:
    """If all data are one point, noise and data stay the same along the ODE and no step makes an error."""
    schedule = VPSchedule(snr_scale=4.0)

    def point_model(x: Tensor, t: Tensor) -> Tensor:
        return gaussian_noise_prediction(schedule, x, t, POINT, torch.zeros_like(POINT))

    start, end = (SCHEDULE.alpha(torch.tensor(t).double()).item() for t in (1.0, T_END))
    noise = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    x1 = start * POINT + math.sqrt(1 - start**2) * noise
    x = SAMPLERS[name](point_model, x1, schedule, num_evaluations=7, spacing=spacing, t_end=T_END, denoise=False)
    torch.testing.assert_close(x, end * POINT + math.sqrt(1 - end**2) * noise, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        SAMPLERS[name](point_model, x1, schedule, num_evaluations=7, spacing=spacing), POINT, rtol=1e-9, atol=1e-9
    )


def impulses(steps: int) -> tuple[Tensor, list[Tensor]]:
    """Start ``(steps + 2, 1)`` and noise of each step; row 0 is silent, row j + 1 has a unit impulse in source j.

    The sampler is affine in its start (source 0) and in the noise of step i (source i), so the rows' results give its
    mean and its variance exactly.
    """
    rows = torch.cat([torch.zeros(1, steps + 1), torch.eye(steps + 1)]).double()
    start, *noises = rows.split(1, dim=1)
    return start, noises


def moments(rows: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the output for a start and noises from N(0, 1)."""
    return rows[0].item(), (rows[1:] - rows[0]).norm().item()


def scripted(noises: list[Tensor]) -> Callable[..., Tensor]:
    source: Iterator[Tensor] = iter(noises)
    return lambda *_, **__: next(source)


def sde_errors(monkeypatch: pytest.MonkeyPatch, steps: int) -> tuple[float, float]:
    start, noises = impulses(steps)
    monkeypatch.setattr(sampler, "draw_noise", scripted(noises))
    rows = dpm_solver_pp.sde_dpm_solver_pp_2m(model, start, SCHEDULE, num_evaluations=steps, t_end=T_END, denoise=False)
    return tuple(got - exact for got, exact in zip(moments(rows), mean_and_std(T_END), strict=True))


def first_order_sde_errors(steps: int) -> tuple[float, float]:
    x, noises = impulses(steps)
    for (a, b), noise in zip(pairwise(make_grid(SCHEDULE, steps, t_end=T_END)), noises, strict=True):
        eps = model(x, torch.full((len(x),), a.t, dtype=torch.float64))
        x = sde_step(x, (x - a.sigma * eps) / a.alpha, noise, a, b)
    return tuple(got - exact for got, exact in zip(moments(x), mean_and_std(T_END), strict=True))


def test_sde_2m_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The final standard deviation is of second order; the mean is off by what N(0, 1) is off the marginal at t = 1."""
    mean_error, std_error = sde_errors(monkeypatch, 100)
    assert abs(mean_error) == pytest.approx(3.2e-6, rel=0.05)
    assert abs(std_error) == pytest.approx(3.8e-4, rel=0.05)
    assert math.log2(std_error / sde_errors(monkeypatch, 200)[1]) == pytest.approx(2, abs=0.15)


def test_sde_without_extrapolation_is_of_first_order() -> None:
    mean_error, std_error = first_order_sde_errors(100)
    assert abs(mean_error) == pytest.approx(3.2e-6, rel=0.05)
    assert abs(std_error) == pytest.approx(1.15e-2, rel=0.05)
    assert math.log2(std_error / first_order_sde_errors(200)[1]) == pytest.approx(1, abs=0.15)


def test_sde_step_returns_to_the_forward_marginal() -> None:
    """x_a drawn from q(x_a | x0) becomes x_b distributed as q(x_b | x0), however long the step."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    a, *_, b = make_grid(SCHEDULE, 3)
    on_x, on_x0, on_noise = (sde_step(*[one if i == j else zero for j in range(3)], a, b) for i in range(3))
    torch.testing.assert_close(on_x * a.alpha + on_x0, b.alpha * one)
    torch.testing.assert_close(on_x**2 * a.sigma**2 + on_noise**2, b.sigma**2 * one)


def euler_maruyama_errors(monkeypatch: pytest.MonkeyPatch, steps: int) -> tuple[float, float]:
    start, noises = impulses(steps)
    monkeypatch.setattr(sampler, "draw_noise", scripted(noises[:-1]))  # the last step must not ask for noise
    rows = euler.euler_maruyama(
        model, start, SCHEDULE, num_evaluations=steps, spacing="time", t_end=T_END, denoise=False
    )
    return tuple(got - exact for got, exact in zip(moments(rows), mean_and_std(T_END), strict=True))


def test_euler_maruyama_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean is of first order; the standard deviation, whose error changes sign, is right to 0.2 %."""
    (mean_error, std_error), (half_error, _) = (euler_maruyama_errors(monkeypatch, steps) for steps in (200, 400))
    assert math.log2(mean_error / half_error) == pytest.approx(1, abs=0.15)
    assert abs(mean_error) < 2e-3 * mean_and_std(T_END)[0]
    assert abs(std_error) < 2e-3 * mean_and_std(T_END)[1]
