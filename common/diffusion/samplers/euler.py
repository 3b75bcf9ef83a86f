"""Euler's method for the probability-flow ODE and, with noise, for the reverse-time SDE.

With ``f = -beta x / 2``, ``g^2 = beta`` and the score ``s = -noise / sigma``:
ODE ``dx = (f - g^2 s / 2) dt``, SDE ``dx = (f - g^2 s) dt + g dw``, both run from t_start down to t_end.
Source: Song et al. 2021, "Score-based generative modeling through SDEs", eqs. 6 and 13.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ..continuous import VPSchedule
from .grid import Spacing, default_t_end, make_grid
from .noise import Generators, draw_noise
from .prediction import Model, Predictor, Range


@torch.no_grad()
def euler(
    model: Model,
    x: Tensor,
    schedule: VPSchedule,
    *,
    num_evaluations: int,
    spacing: Spacing = "lambda",
    t_start: float = 1.0,
    t_end: float | None = None,
    clip_x0: Range | None = None,
    generator: Generators = None,
    denoise: bool = True,
) -> Tensor:
    """Euler's method for the ODE, a baseline of first order; arguments as :func:`.ddim.ddim`."""
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    grid = make_grid(schedule, num_evaluations - denoise, spacing=spacing, t_start=t_start, t_end=t_end)
    predict = Predictor(model, x, clip_x0)
    for a, b in pairwise(grid):
        drift = -a.beta / 2 * x + a.beta / (2 * a.sigma) * predict.noise(x, a)
        x = x + (b.t - a.t) * drift
    return predict.x0(x, grid[-1]) if denoise else x


@torch.no_grad()
def euler_maruyama(
    model: Model,
    x: Tensor,
    schedule: VPSchedule,
    *,
    num_evaluations: int,
    spacing: Spacing = "lambda",
    t_start: float = 1.0,
    t_end: float | None = None,
    clip_x0: Range | None = None,
    generator: Generators = None,
    denoise: bool = True,
) -> Tensor:
    """Euler-Maruyama for the SDE, without noise in the last step; arguments as :func:`.ddim.ddim`."""
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    grid = make_grid(schedule, num_evaluations - denoise, spacing=spacing, t_start=t_start, t_end=t_end)
    predict = Predictor(model, x, clip_x0)
    for a, b in pairwise(grid):
        drift = -a.beta / 2 * x + a.beta / a.sigma * predict.noise(x, a)
        x = x + (b.t - a.t) * drift
        if b is not grid[-1]:
            noise = draw_noise(x.shape, generator, dtype=x.dtype, device=x.device)
            x = x + math.sqrt(a.beta * (a.t - b.t)) * noise
    return predict.x0(x, grid[-1]) if denoise else x
