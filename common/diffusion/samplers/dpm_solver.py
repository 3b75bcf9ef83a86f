"""DPM-Solver of orders 2 and 3 and its mixture "fast": single steps that evaluate the network between grid points.

Source: Lu et al. 2022, "DPM-Solver: a fast ODE solver for diffusion probabilistic model sampling in around 10 steps",
algorithms 1 and 2 and the appendix on "fast".
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ..continuous import VPSchedule
from .grid import Point, Spacing, default_t_end, make_grid, points_at
from .noise import Generators
from .prediction import Model, Predictor, Range


@torch.no_grad()
def dpm_solver_2(
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
    """Steps of order 2, two evaluations each, one left over is a step of order 1; arguments as :func:`.ddim.ddim`."""
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    orders = _orders(num_evaluations - denoise, highest=2)
    grid = make_grid(schedule, len(orders), spacing=spacing, t_start=t_start, t_end=t_end)
    return _integrate(Predictor(model, x, clip_x0), x, schedule, grid, orders, denoise)


@torch.no_grad()
def dpm_solver_3(
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
    """Steps of order 3, three evaluations each, the rest is one of order 1 or 2; arguments as :func:`.ddim.ddim`."""
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    orders = _orders(num_evaluations - denoise, highest=3)
    grid = make_grid(schedule, len(orders), spacing=spacing, t_start=t_start, t_end=t_end)
    return _integrate(Predictor(model, x, clip_x0), x, schedule, grid, orders, denoise)


@torch.no_grad()
def dpm_solver_fast(
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
    """Order 3 with a last step of order 1 or 2 (or both) always; arguments as :func:`.ddim.ddim`."""
    t_end = default_t_end(num_evaluations) if t_end is None else t_end
    orders = fast_orders(num_evaluations - denoise)
    grid = make_grid(schedule, len(orders), spacing=spacing, t_start=t_start, t_end=t_end)
    return _integrate(Predictor(model, x, clip_x0), x, schedule, grid, orders, denoise)


def fast_orders(evaluations: int) -> list[int]:
    """Orders of the ``evaluations // 3 + 1`` steps of "fast": threes, then 2 and 1, or 1, or 2, so that they add up."""
    if evaluations > 0 and evaluations % 3 == 0:
        return [3] * (evaluations // 3 - 1) + [2, 1]
    return _orders(evaluations, highest=3)


def _orders(evaluations: int, *, highest: int) -> list[int]:
    """As many steps of the highest order as the evaluations allow, then one of what is left."""
    whole, rest = divmod(max(evaluations, 0), highest)
    return [highest] * whole + [rest] * (rest > 0)


def _integrate(
    predict: Predictor, x: Tensor, schedule: VPSchedule, grid: list[Point], orders: list[int], denoise: bool
) -> Tensor:
    """Run one step of the given order per interval of the grid."""
    nodes = [_nodes(schedule, a, b, order) for (a, b), order in zip(pairwise(grid), orders, strict=True)]
    step = {1: _step_1, 2: _step_2, 3: _step_3}
    for order, points in zip(orders, nodes, strict=True):
        x = step[order](predict, x, points)
    return predict.x0(x, grid[-1]) if denoise else x


def _nodes(schedule: VPSchedule, a: Point, b: Point, order: int) -> list[Point]:
    """The points a step of this order evaluates, equidistant in lambda from a to b, and b itself."""
    lam = torch.linspace(a.lam, b.lam, order + 1, dtype=torch.float64)[1:-1]
    return [a, *points_at(schedule, schedule.t_of_lambda(lam)), b]


def _step_1(predict: Predictor, x: Tensor, points: list[Point]) -> Tensor:
    """DPM-Solver-1, which is DDIM."""
    a, b = points
    return _hold(x, predict.noise(x, a), a, b)


def _step_2(predict: Predictor, x: Tensor, points: list[Point]) -> Tensor:
    """DPM-Solver-2: the noise of the middle, found by a half step, holds for the whole step."""
    a, s, b = points
    u = _hold(x, predict.noise(x, a), a, s)
    return _hold(x, predict.noise(u, s), a, b)


def _step_3(predict: Predictor, x: Tensor, points: list[Point]) -> Tensor:
    """DPM-Solver-3 with r1 = 1/3 and r2 = 2/3."""
    a, s1, s2, b = points
    e = predict.noise(x, a)
    u1 = _hold(x, e, a, s1)
    d1 = predict.noise(u1, s1) - e
    u2 = _hold(x, e, a, s2) - s2.sigma * 2 * _phi(s2.lam - a.lam) * d1  # r2 / r1 = 2
    d2 = predict.noise(u2, s2) - e
    return _hold(x, e, a, b) - b.sigma * 1.5 * _phi(b.lam - a.lam) * d2  # 1 / r2 = 3 / 2


def _hold(x: Tensor, noise: Tensor, a: Point, b: Point) -> Tensor:
    """``(alpha_b / alpha_a) x - sigma_b (e^h - 1) noise``: the ODE solved for noise that does not change on the way."""
    return b.alpha / a.alpha * x - b.sigma * math.expm1(b.lam - a.lam) * noise


def _phi(h: float) -> float:
    """``(e^h - 1) / h - 1``, the weight of the noise's change over a step of length h in lambda."""
    return math.expm1(h) / h - 1
