"""Residual shifting (ResShift): a diffusion of few steps from a target image to its noisy source.

``x_t = x_0 + eta_t (y_0 - x_0) + kappa sqrt(eta_t) noise`` with target x_0, source y_0 and t = 1..T. Times are 1-based
throughout, as in the papers; x_0 itself is the clean target.

Source: Yue et al. 2023, "ResShift"; Xu et al., "Structure-Accurate Medical Image Translation via Dynamic Frequency
Balance and Knowledge Guidance", eqs. 2-4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .tables import rows


@dataclass(frozen=True, eq=False)
class ResidualShiftSchedule:
    """How far the residual is shifted, and how much noise is added, after each of T steps.

    Properties are tables ``(T,)`` in float64 on the CPU; row t - 1 belongs to time t.

    Args:
        eta: ``(T,)`` float64, share of the residual in x_1..x_T; strictly increasing inside (0, 1], T >= 2.
        kappa: noise strength; x_t has the standard deviation ``kappa sqrt(eta_t)``.
    """

    eta: Tensor
    kappa: float

    def __post_init__(self) -> None:
        eta = self.eta
        if eta.dtype != torch.float64 or eta.ndim != 1 or len(eta) < 2 or eta.device.type != "cpu":
            raise ValueError(
                f"ResidualShiftSchedule: eta must be a float64 CPU tensor (T,) of at least two steps, got {eta.dtype} "
                f"of shape {tuple(eta.shape)} on {eta.device}."
            )
        if not (eta[0] > 0 and eta[-1] <= 1 and bool((eta.diff() > 0).all())):
            values = ", ".join(f"{value:.6g}" for value in eta.tolist())
            raise ValueError(f"ResidualShiftSchedule: eta must increase strictly inside (0, 1], got {values}.")
        if not self.kappa > 0:
            raise ValueError(f"ResidualShiftSchedule: kappa={self.kappa} must be positive.")

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.eta)

    @property
    def eta_before(self) -> Tensor:
        """``eta_{t-1}``, with ``eta_0 = 0``."""
        return torch.cat([self.eta.new_zeros(1), self.eta[:-1]])

    @property
    def alpha(self) -> Tensor:
        """``eta_t - eta_{t-1}``, the shift of step t."""
        return self.eta - self.eta_before

    @property
    def noise_std(self) -> Tensor:
        """Standard deviation of x_t given target and source, ``kappa sqrt(eta_t)``."""
        return self.kappa * self.eta.sqrt()

    @property
    def posterior_std(self) -> Tensor:
        """Standard deviation of x_{t-1} given x_t and x_0, ``kappa sqrt(alpha_t eta_{t-1} / eta_t)``; 0 at t = 1."""
        return self.kappa * (self.alpha * self.eta_before / self.eta).sqrt()

    def at(self, table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """Rows t of a table ``(T,)`` in the dtype, rank and on the device of ``like`` (B, ...): ``(B, 1, ..., 1)``.

        Does not wait for an accelerator, hence checks the range of t on the CPU only.

        Raises:
            TypeError: t is not integer.
            IndexError: t on the CPU is outside 1..T.
        """
        return rows(table, t, like, first=1)


def residual_shift_schedule(
    num_steps: int = 4,
    kappa: float = 2.0,
    min_noise: float = 0.2,
    power: float = 0.3,
    sqrt_eta_end: float = 0.99,
) -> ResidualShiftSchedule:
    """ResShift's schedule: sqrt(eta) grows geometrically along a bent time.

    ``sqrt(eta_t) = s_1 (s_T / s_1)^(((t - 1) / (T - 1))^power)`` with ``s_1 = min(min_noise / kappa, min_noise)``.

    Args:
        num_steps: T, at least 2.
        kappa: noise strength.
        min_noise: standard deviation of the noise at t = 1 (for kappa >= 1).
        power: bend of the time; below 1, large steps come first.
        sqrt_eta_end: ``sqrt(eta_T) = s_T``, at most 1; the original configurations call this ``etas_end``.
    """
    if num_steps < 2 or not power > 0 or not kappa > 0:
        raise ValueError(
            f"residual_shift_schedule: need num_steps >= 2, power > 0 and kappa > 0, got num_steps={num_steps}, "
            f"power={power}, kappa={kappa}."
        )
    start = min(min_noise / kappa, min_noise)
    if not 0 < start < sqrt_eta_end <= 1:
        raise ValueError(
            f"residual_shift_schedule: need 0 < min(min_noise / kappa, min_noise) < sqrt_eta_end <= 1, "
            f"got {start} from min_noise={min_noise} and kappa={kappa}, and sqrt_eta_end={sqrt_eta_end}."
        )
    time = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    return ResidualShiftSchedule(eta=(start * (sqrt_eta_end / start) ** time**power) ** 2, kappa=kappa)


def marginal(schedule: ResidualShiftSchedule, x0: Tensor, y0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Sample of q(x_t | x_0, y_0) made with standard normal ``noise``; x0, y0, noise ``(B, ...)``, t ``(B,)``."""
    eta, std = schedule.at(schedule.eta, t, x0), schedule.at(schedule.noise_std, t, x0)
    return x0 + eta * (y0 - x0) + std * noise


def single_step(
    schedule: ResidualShiftSchedule, x_prev: Tensor, x0: Tensor, y0: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """One forward step from x_{t-1} to x_t (eq. 2): ``x_{t-1} + alpha_t (y_0 - x_0) + kappa sqrt(alpha_t) noise``."""
    alpha, std = schedule.at(schedule.alpha, t, x0), schedule.at(schedule.kappa * schedule.alpha.sqrt(), t, x0)
    return x_prev + alpha * (y0 - x0) + std * noise


def posterior(schedule: ResidualShiftSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, ...)`` and standard deviation ``(B, 1, ..., 1)`` of q(x_{t-1} | x_t, x_0, y_0); y_0 drops out (eq. 3).

    At t = 1 they are x_0 and 0.
    """
    on_xt = schedule.at(schedule.eta_before / schedule.eta, t, x0)
    on_x0 = schedule.at(schedule.alpha / schedule.eta, t, x0)
    return on_xt * x_t + on_x0 * x0, schedule.at(schedule.posterior_std, t, x0)


def prior_sample(schedule: ResidualShiftSchedule, y0: Tensor, noise: Tensor) -> Tensor:
    """Where sampling starts, ``x_T = y_0 + kappa sqrt(eta_T) noise``.

    The target being unknown, the mean is y_0 in place of the marginal's ``eta_T y_0 + (1 - eta_T) x_0``.
    """
    return y0 + float(schedule.noise_std[-1]) * noise


def input_scale(
    schedule: ResidualShiftSchedule, t: Tensor, like: Tensor, kind: Literal["pixel", "latent"] = "pixel"
) -> Tensor:
    """The c_t that the network's input x_t is divided by, ``(B, 1, ..., 1)``.

    ``pixel``: ``1 + 3 kappa sqrt(eta_t)``, three standard deviations beyond an image in [-1, 1], so that inputs stay in
    about [-1, 1]. ``latent``: ``sqrt(1 + kappa^2 eta_t)``, unit variance for latents of unit variance.
    """
    if kind == "pixel":
        return schedule.at(1 + 3 * schedule.noise_std, t, like)
    if kind == "latent":
        return schedule.at((1 + schedule.noise_std**2).sqrt(), t, like)
    raise ValueError(f"input_scale: kind={kind!r} is unknown; choose 'pixel' or 'latent'.")


def loss_weights(schedule: ResidualShiftSchedule) -> Tensor:
    """Weight ``(T,)`` in float64 of the squared error of x_0 in the variational bound (eq. 4), kept finite at t = 1.

    ``(alpha_t / eta_t)^2 / (2 posterior variance) = alpha_t / (2 kappa^2 eta_t eta_{t-1})``, where the variance at
    t = 1, which is 0, is replaced by that at t = 2.
    """
    std = schedule.posterior_std
    std[0] = std[1]
    return (schedule.alpha / schedule.eta / std) ** 2 / 2


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    schedule: ResidualShiftSchedule,
    *,
    noise: Callable[[int], Tensor],
    deterministic: bool = False,
    clamp: tuple[float, float] | None = (-1.0, 1.0),
) -> Tensor:
    """Translate sources: T calls of ``denoise`` lead from y_0 plus noise to the estimate of x_0 that is returned.

    Args:
        denoise: ``denoise(x_t (B, ...), t (B,) int64)`` -> estimate of x_0 ``(B, ...)``; called with t = T, ..., 1.
        y0: sources ``(B, ...)``.
        schedule: the table.
        noise: ``noise(t)`` returns the standard normal noise in x_t, of y0's shape or broadcasting to it (one noise
            for all slices of a volume). Called with t = T for the start, then with T - 1, ..., 1.
        deterministic: take the mean of each posterior; then ``noise`` is called for the start only.
        clamp: range that estimates are clamped to; ``None`` leaves them.
    """

    def estimate(x_t: Tensor, t: int) -> Tensor:
        x0 = denoise(x_t, torch.full((len(y0),), t, dtype=torch.int64, device=y0.device))
        return x0 if clamp is None else x0.clamp(*clamp)

    x_t = prior_sample(schedule, y0, noise(schedule.num_steps))
    for t in range(schedule.num_steps, 1, -1):
        x0 = estimate(x_t, t)
        mean, std = posterior(schedule, x0, x_t, torch.full((1,), t, dtype=torch.int64))
        x_t = mean if deterministic else mean + std * noise(t - 1)
    return estimate(x_t, 1)  # the posterior at t = 1 has no spread about x_0
