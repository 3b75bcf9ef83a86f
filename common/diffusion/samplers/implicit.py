"""DDIM: fewer and, if wanted, deterministic steps with a network trained for DDPM."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..gaussian import NoiseSchedule, clean_estimate
from .ancestral import Denoiser


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Draw samples with one call of ``denoise`` for each step of the schedule, usually a respaced one.

    ``x_{i-1} = sqrt(A_{i-1}) x_0 + sqrt(1 - A_{i-1} - s^2) e + s noise`` with the predicted noise e, the x_0 that
    follows from it and s = ``eta`` times the standard deviation of the posterior, 0 in the last step. A learned
    variance is not used. Nothing is clamped, and no step waits for an accelerator.

    Args:
        denoise: the network; gets the entries of ``schedule.timesteps`` from the last to the first.
        x: noise at the last step ``(B, ...)``; the result has its shape, dtype and device.
        schedule: of the training, or a respacing of it.
        eta: 0: deterministic; 1: the steps of DDPM with the variance of the posterior.
        noise: as for :func:`.ancestral.ddpm`; needed for eta > 0 only.
    Source: Song et al. 2021, "Denoising diffusion implicit models", eqs. 12 and 16.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"ddim: eta={eta} must lie in 0..1, from deterministic to the noise of DDPM.")
    if eta > 0 and noise is None:
        raise ValueError(f"ddim: eta={eta} needs `noise`; only eta=0 does without.")
    before = schedule.alpha_bar_before.tolist()
    variances = (eta**2 * schedule.posterior_variance).tolist()
    for i in reversed(range(schedule.num_steps)):
        index, time = torch.tensor([i]), int(schedule.timesteps[i])
        noise_estimate = denoise(x, torch.full((len(x),), time, dtype=torch.int64, device=x.device))[0].to(x.dtype)
        x0 = clean_estimate(schedule, x, noise_estimate, index)
        x = math.sqrt(before[i]) * x0 + math.sqrt(1 - before[i] - variances[i]) * noise_estimate
        if noise is not None and variances[i] > 0:
            x = x + math.sqrt(variances[i]) * noise(i)
    return x
