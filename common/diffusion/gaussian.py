"""Gaussian diffusion in discrete steps: schedule, forward marginal, posterior, learned variance, respacing.

``x_i = sqrt(A_i) x_0 + sqrt(1 - A_i) noise`` with ``A_i = prod_{s <= i} (1 - beta_s)`` and i = 0..N-1, also written t.
i = -1 is clean data, ``A_{-1} = 1``.

Source: Ho et al. 2020, "Denoising diffusion probabilistic models" (DDPM), eqs. 4-7; Nichol and Dhariwal 2021, "Improved
denoising diffusion probabilistic models", eqs. 10-13 and 15 and section 4 (respacing).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .tables import rows


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """How much of the signal is left after each of N steps. Properties are tables ``(N,)`` in float64 on the CPU.

    A chain that starts at an intermediate step, from a partly noised image, has the first rows of both fields only.

    Args:
        alpha_bar: ``(N,)`` float64, A; strictly falling inside (0, 1), N >= 2.
        timesteps: ``(N,)`` int64, strictly increasing, what the network is told at each step: the step of the schedule
            that it was trained on.
    """

    alpha_bar: Tensor
    timesteps: Tensor

    def __post_init__(self) -> None:
        a, steps = self.alpha_bar, self.timesteps
        if a.dtype != torch.float64 or a.ndim != 1 or len(a) < 2 or a.device.type != "cpu":
            raise ValueError(
                f"NoiseSchedule: alpha_bar must be a float64 CPU tensor (N,) of at least two steps, got {a.dtype} of "
                f"shape {tuple(a.shape)} on {a.device}."
            )
        if not (a[0] < 1 and a[-1] > 0 and bool((a.diff() < 0).all())):
            raise ValueError(
                "NoiseSchedule: alpha_bar must fall strictly inside (0, 1), but goes from "
                f"{a[0].item():.6g} to {a[-1].item():.6g} with a largest step of {a.diff().max().item():+.3g}."
            )
        if steps.dtype != torch.int64 or steps.shape != a.shape or steps.device.type != "cpu":
            raise ValueError(
                f"NoiseSchedule: timesteps must be an int64 CPU tensor of alpha_bar's shape {tuple(a.shape)}, got "
                f"{steps.dtype} of shape {tuple(steps.shape)} on {steps.device}."
            )
        if not (steps[0] >= 0 and bool((steps.diff() > 0).all())):
            raise ValueError(f"NoiseSchedule: timesteps must increase strictly from 0 or more, got {steps.tolist()}.")

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.alpha_bar)

    @cached_property
    def alpha_bar_before(self) -> Tensor:
        """``A_{i-1}``, starting with ``A_{-1} = 1``."""
        return torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])

    @cached_property
    def alpha(self) -> Tensor:
        """``A_i / A_{i-1}``, the share of the signal's variance that step i leaves."""
        return self.alpha_bar / self.alpha_bar_before

    @cached_property
    def beta(self) -> Tensor:
        """``1 - alpha_i``, the variance of the noise that step i adds."""
        return 1 - self.alpha

    @cached_property
    def posterior_variance(self) -> Tensor:
        """Variance of x_{i-1} given x_i and x_0, ``beta_i (1 - A_{i-1}) / (1 - A_i)``; 0 at i = 0."""
        return self.beta * (1 - self.alpha_bar_before) / (1 - self.alpha_bar)

    @cached_property
    def posterior_log_variance(self) -> Tensor:
        """Logarithm of :attr:`posterior_variance`, kept finite at i = 0, where it takes the value of i = 1."""
        variance = self.posterior_variance
        return torch.cat([variance[1:2], variance[1:]]).log()


def linear_schedule(num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2) -> NoiseSchedule:
    """DDPM's schedule: beta_0..beta_{N-1} equidistant from ``beta_start`` to ``beta_end``.

    With the default betas fewer than about 1000 steps leave signal in the last one; scale the betas by
    ``1000 / num_steps``.
    """
    if num_steps < 2 or not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            "linear_schedule: need num_steps >= 2 and 0 < beta_start <= beta_end < 1, got "
            f"num_steps={num_steps}, beta_start={beta_start}, beta_end={beta_end}."
        )
    beta = torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)
    return NoiseSchedule(alpha_bar=(1 - beta).cumprod(0), timesteps=torch.arange(num_steps))


def respaced(schedule: NoiseSchedule, num_steps: int) -> NoiseSchedule:
    """The chain over ``num_steps`` of the N steps, ``S_k = round(k (N - 1) / (num_steps - 1))``.

    The marginals of the steps that are kept stay as they are; the betas follow from them.
    """
    if not 2 <= num_steps <= schedule.num_steps:
        raise ValueError(
            f"respaced: num_steps={num_steps} must lie in 2..{schedule.num_steps}, the number of steps of the schedule."
        )
    span = torch.arange(num_steps, dtype=torch.float64) * (schedule.num_steps - 1)
    kept = (span / (num_steps - 1)).round().long()
    return NoiseSchedule(alpha_bar=schedule.alpha_bar[kept], timesteps=schedule.timesteps[kept])


def marginal(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Sample of q(x_t | x_0) made with standard normal ``noise``; x0, noise ``(B, ...)``, t ``(B,)`` in -1..N-1.

    At t = -1 it is x_0 itself.
    """
    alpha_bar = torch.cat([schedule.alpha_bar.new_ones(1), schedule.alpha_bar])
    return rows(alpha_bar.sqrt(), t, x0, first=-1) * x0 + rows((1 - alpha_bar).sqrt(), t, x0, first=-1) * noise


def clean_estimate(schedule: NoiseSchedule, x_t: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The x_0 that :func:`marginal` turned into x_t, given its noise ``(B, ...)``; t ``(B,)`` in 0..N-1.

    Not clamped: latents have no bounds.
    """
    a = schedule.alpha_bar
    return rows(a.rsqrt(), t, x_t) * x_t - rows((1 / a - 1).sqrt(), t, x_t) * noise


def noise_of(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The noise that turned x_0 into x_t in :func:`marginal`; t ``(B,)`` in 0..N-1."""
    a = schedule.alpha_bar
    return (x_t - rows(a.sqrt(), t, x_t) * x0) / rows((1 - a).sqrt(), t, x_t)


def posterior(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, ...)`` and log-variance ``(B, 1, ..., 1)`` of q(x_{t-1} | x_t, x_0); t ``(B,)`` in 0..N-1.

    At t = 0 the mean is x_0 and the log-variance, of which there is none, that at t = 1.
    """
    a, before = schedule.alpha_bar, schedule.alpha_bar_before
    on_x0 = rows(schedule.beta * before.sqrt() / (1 - a), t, x0)
    on_xt = rows((1 - before) * schedule.alpha.sqrt() / (1 - a), t, x0)
    return on_x0 * x0 + on_xt * x_t, rows(schedule.posterior_log_variance, t, x0)


def learned_log_variance(schedule: NoiseSchedule, v: Tensor, t: Tensor) -> Tensor:
    """Log-variance of the learned step from x_t to x_{t-1}, by a network's output v ``(B, ...)``; t ``(B,)`` in 0..N-1.

    ``f log beta_t + (1 - f) log(posterior variance)`` with ``f = (v + 1) / 2``: between the largest variance a step can
    need (v = 1, data of unit variance) and the smallest (v = -1, data that are a single point). v is not clamped.
    """
    share = (v + 1) / 2
    return share * rows(schedule.beta.log(), t, v) + (1 - share) * rows(schedule.posterior_log_variance, t, v)
