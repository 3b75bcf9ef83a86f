"""DDIM, the first-order sampler."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..continuous import VPSchedule
from .grid import Spacing, default_t_end, make_grid
from .noise import Generators
from .prediction import Model, Predictor, Range
from .steps import ode_step


@torch.no_grad()
def ddim(
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
    """Deterministic first-order sampler (Song et al. 2021, "DDIM"; equally DPM-Solver-1).

    All samplers take these arguments; those that draw no noise ignore ``generator``.

    Args:
        model: ``noise = model(x, t)`` for x ``(B, ...)`` and t ``(B,)``; any callable.
        x: ``(B, ...)`` at t_start, usually :func:`.noise.draw_noise`; the result has its shape, dtype and device.
        schedule: the diffusion that the model was trained for.
        num_evaluations: calls of the model, all included.
        spacing: grid equidistant in ``"lambda"`` = log(alpha / sigma) or in ``"time"``.
        t_start: time of x.
        t_end: time at which to stop, > 0; if None 1e-4, or 1e-3 for 15 evaluations or fewer.
        clip_x0: lowest and highest value of the data, broadcast to x, to which predicted data are clipped.
        generator: source of the noise, see :func:`.noise.draw_noise`.
        denoise: spend the last evaluation on removing the noise left at t_end: return the data predicted there.
    """
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    grid = make_grid(schedule, num_evaluations - denoise, spacing=spacing, t_start=t_start, t_end=t_end)
    predict = Predictor(model, x, clip_x0)
    for a, b in pairwise(grid):
        x = ode_step(x, predict.x0(x, a), a, b)
    return predict.x0(x, grid[-1]) if denoise else x
