"""Variance-preserving diffusion in continuous time: the schedule and what can be said exactly about Gaussian data.

``x_t = alpha(t) x_0 + sigma(t) noise`` with ``alpha^2 + sigma^2 = 1`` and t in [0, 1]; t = 0 is data, t = 1 is noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class VPSchedule:
    """Linear beta(t) of the VP-SDE, its signal-to-noise ratio multiplied by ``snr_scale`` at every t.

    With ``B(t)`` the integral of beta from 0 to t, all quantities follow from half the log-SNR,
    ``lambda(t) = log(alpha / sigma) = (ln c - ln(e^B - 1)) / 2``, which keeps both ends exact in floating point:
    ``alpha^2 = sigmoid(2 lambda)`` and ``sigma^2 = sigmoid(-2 lambda)``.

    Methods map a floating tensor of any shape to one of the same shape and dtype; they compute in float64.

    Args:
        beta_min: beta(0), per unit of t.
        beta_max: beta(1), per unit of t.
        snr_scale: the factor c on alpha^2 / sigma^2; 1 is the original schedule.
    Source: Song et al. 2021, "Score-based generative modeling through SDEs", appendix B (c = 1);
        Ning et al., "DCTdiff" (SNR scaling).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    snr_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"VPSchedule: need 0 < beta_min <= beta_max, got beta_min={self.beta_min}, beta_max={self.beta_max}."
            )
        if not self.snr_scale > 0:
            raise ValueError(
                f"VPSchedule: snr_scale={self.snr_scale} must be positive; 1 leaves the schedule as it is."
            )

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Share of signal in the variance, ``alpha^2``: the product of (1 - beta) of discrete diffusion."""
        return torch.sigmoid(2 * self._lambda(t)).to(t.dtype)

    def alpha(self, t: Tensor) -> Tensor:
        """Factor on the data in x_t."""
        return torch.sigmoid(2 * self._lambda(t)).sqrt().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise in x_t."""
        return torch.sigmoid(-2 * self._lambda(t)).sqrt().to(t.dtype)

    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda = log(alpha / sigma)``, half of the log signal-to-noise ratio; infinite at t = 0."""
        return self._lambda(t).to(t.dtype)

    def t_of_lambda(self, lam: Tensor) -> Tensor:
        """Inverse of :meth:`log_snr`: ``B = ln(1 + c e^(-2 lambda))``, then the quadratic ``B(t)`` solved for t."""
        half_log_c = 0.5 * math.log(self.snr_scale)
        exponent = 2 * (half_log_c - lam.double())
        integral = torch.logaddexp(exponent, torch.zeros_like(exponent))
        slope = self.beta_max - self.beta_min
        return (2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * integral))).to(lam.dtype)

    def beta(self, t: Tensor) -> Tensor:
        """Rate of noising, ``beta_c = -d ln(alpha_bar) / dt = beta(t) / (1 + (c - 1) e^(-B))``.

        The forward SDE is ``dx = -beta_c x / 2 dt + sqrt(beta_c) dw``.
        """
        time = t.double()
        beta = self.beta_min + (self.beta_max - self.beta_min) * time
        return (beta / (1 + (self.snr_scale - 1) * torch.exp(-self._integral(time)))).to(t.dtype)

    def _integral(self, time: Tensor) -> Tensor:
        """``B(t)``, the integral of the unscaled beta from 0 to t."""
        return self.beta_min * time + 0.5 * (self.beta_max - self.beta_min) * time**2

    def _lambda(self, t: Tensor) -> Tensor:
        """:meth:`log_snr` in float64."""
        if not t.is_floating_point():
            raise TypeError(f"VPSchedule: time must be a floating tensor in [0, 1], got {t.dtype}; use t.float().")
        return 0.5 * (math.log(self.snr_scale) - torch.log(torch.expm1(self._integral(t.double()))))


def marginal(schedule: VPSchedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Noisy ``x_t = alpha x_0 + sigma noise``; x0 and noise ``(B, ...)``, t ``(B,)``."""
    return _per_sample(schedule.alpha, t, x0) * x0 + _per_sample(schedule.sigma, t, x0) * noise


def x0_from_noise(schedule: VPSchedule, x_t: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The data that :func:`marginal` turned into x_t, given its noise."""
    return (x_t - _per_sample(schedule.sigma, t, x_t) * noise) / _per_sample(schedule.alpha, t, x_t)


def noise_from_x0(schedule: VPSchedule, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """The noise that :func:`marginal` added, given the data; t > 0."""
    return (x_t - _per_sample(schedule.alpha, t, x_t) * x0) / _per_sample(schedule.sigma, t, x_t)


class ResidualCoefficients(NamedTuple):
    """Terms of ``noise = skip * z + out * network(z, t)`` with ``z = (x_t - shift) * scale``; each ``(B, *S)``."""

    shift: Tensor
    scale: Tensor
    skip: Tensor
    out: Tensor


def residual_coefficients(schedule: VPSchedule, t: Tensor, mean: Tensor, std: Tensor) -> ResidualCoefficients:
    """Coefficients of the residual form of the noise prediction.

    If the data were independent Gaussians N(mean, std^2), x_t would have the variance ``V = alpha^2 std^2 + sigma^2``
    and the best noise prediction would be ``sigma (x_t - alpha mean) / V``. The network then only learns what departs
    from it, and sees and is asked for quantities of unit variance:

    ``noise = sigma (x_t - alpha mean) / V + (alpha std / sqrt V) network((x_t - alpha mean) / sqrt V, t)``.

    ``out**2`` is the variance of what is left to predict, hence the unit-variance loss weight is ``1 / out**2``.

    Args:
        schedule: the diffusion.
        t: ``(B,)``.
        mean: shape S, which has the rank of one sample and broadcasts to it: ``(1, F)`` for tokens ``(B, T, F)``.
        std: as ``mean``.
    """
    alpha, sigma = _per_sample(schedule.alpha, t, mean[None]), _per_sample(schedule.sigma, t, mean[None])  # (B, 1...)
    root = torch.sqrt((alpha * std) ** 2 + sigma**2)  # (B, *S)
    return ResidualCoefficients(shift=alpha * mean, scale=1 / root, skip=sigma / root, out=alpha * std / root)


def gaussian_noise_prediction(schedule: VPSchedule, x: Tensor, t: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Exact expected noise in x ``(B, ...)`` at t ``(B,)`` for data N(mean, std^2), independent per element.

    ``mean`` and ``std`` broadcast to one sample, so a model for the samplers is
    ``lambda x, t: gaussian_noise_prediction(schedule, x, t, mean, std)``.
    """
    alpha, sigma = _per_sample(schedule.alpha, t, x), _per_sample(schedule.sigma, t, x)
    return sigma * (x - alpha * mean) / ((alpha * std) ** 2 + sigma**2)


def _per_sample(function: Callable[[Tensor], Tensor], t: Tensor, x: Tensor) -> Tensor:
    """``function(t)`` in x's precision and rank: (B,) -> (B, 1, ..., 1); float64 up to the last rounding."""
    return function(t.double()).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
