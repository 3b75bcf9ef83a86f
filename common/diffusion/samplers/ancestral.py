"""Ancestral sampling of DDPM: step by step through the learned reverse chain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..gaussian import NoiseSchedule, clean_estimate, learned_log_variance, posterior

Denoiser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""``(x_t (B, ...), t (B,) int64) -> (noise, v)``, both ``(B, ...)``; v is None where the variance is not learned."""


@torch.no_grad()
def ddpm(denoise: Denoiser, x: Tensor, schedule: NoiseSchedule, *, noise: Callable[[int], Tensor]) -> Tensor:
    """Draw samples with one call of ``denoise`` for each step of the schedule.

    The variance of a step is the learned one, or that of the posterior where ``denoise`` gives no v. The last step adds
    no noise. Nothing is clamped, and no step waits for an accelerator.

    Args:
        denoise: the network; gets the entries of ``schedule.timesteps`` from the last to the first.
        x: noise at the last step ``(B, ...)``; the result has its shape, dtype and device.
        schedule: of the training, or a respacing of it.
        noise: ``noise(i)`` returns the standard normal noise of the step from x_i to x_{i-1}, of x's shape or
            broadcasting to it. Called with i = N-1, ..., 1.
    Source: Ho et al. 2020, algorithm 2; Nichol and Dhariwal 2021, eq. 15.
    """
    for i in reversed(range(schedule.num_steps)):
        index, time = torch.tensor([i]), int(schedule.timesteps[i])
        noise_estimate, v = denoise(x, torch.full((len(x),), time, dtype=torch.int64, device=x.device))
        x0 = clean_estimate(schedule, x, noise_estimate.to(x.dtype), index)
        x, log_variance = posterior(schedule, x0, x, index)
        if i > 0:
            if v is not None:
                log_variance = learned_log_variance(schedule, v.to(x.dtype), index)
            x = x + (0.5 * log_variance).exp() * noise(i)
    return x
