"""DPM-Solver++(2M), deterministic and stochastic: second order at one network evaluation a step.

Source: Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models",
algorithm 2 (2M) and its SDE variant.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ..continuous import VPSchedule
from .grid import Point, Spacing, default_t_end, make_grid
from .noise import Generators, draw_noise
from .prediction import Model, Predictor, Range
from .steps import ode_step, sde_step


@torch.no_grad()
def dpm_solver_pp_2m(
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
    """Deterministic second-order multistep sampler; arguments as :func:`.ddim.ddim`."""
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    grid = make_grid(schedule, num_evaluations - denoise, spacing=spacing, t_start=t_start, t_end=t_end)
    predict = Predictor(model, x, clip_x0)
    last_x0 = x
    for (a, b), extrapolation in zip(pairwise(grid), _extrapolations(grid), strict=True):
        x0 = predict.x0(x, a)
        x = ode_step(x, x0 + extrapolation * (x0 - last_x0), a, b)
        last_x0 = x0
    return predict.x0(x, grid[-1]) if denoise else x


@torch.no_grad()
def sde_dpm_solver_pp_2m(
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
    """Stochastic second-order multistep sampler of the reverse-time SDE; arguments as :func:`.ddim.ddim`."""
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    grid = make_grid(schedule, num_evaluations - denoise, spacing=spacing, t_start=t_start, t_end=t_end)
    predict = Predictor(model, x, clip_x0)
    last_x0 = x
    for (a, b), extrapolation in zip(pairwise(grid), _extrapolations(grid), strict=True):
        x0 = predict.x0(x, a)
        noise = draw_noise(x.shape, generator, dtype=x.dtype, device=x.device)
        x = sde_step(x, x0 + extrapolation * (x0 - last_x0), noise, a, b)
        last_x0 = x0
    return predict.x0(x, grid[-1]) if denoise else x


def _extrapolations(grid: list[Point]) -> Iterator[float]:
    """Per step the factor 1 / (2r), ``r = h_(i-1) / h_i``, on the last change of the predicted data.

    0, a step of first order, at the start, where there is no last change, and at the end of fewer than 15 steps,
    where extrapolation over long steps does harm.
    """
    h = [b.lam - a.lam for a, b in pairwise(grid)]
    yield 0.0
    for i in range(1, len(h)):
        first_order = len(h) < 15 and i == len(h) - 1
        yield 0.0 if first_order else h[i] / (2 * h[i - 1])
