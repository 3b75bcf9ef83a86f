"""DPM-Solver of orders 2 and 3 and its mixture "fast": single steps that evaluate the network between grid points.

Source: Lu et al. 2022, "DPM-Solver: a fast ODE solver for diffusion probabilistic model sampling in around 10 steps",
algorithms 1 and 2 and the appendix on "fast".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..continuous import VPSchedule
from .grid import Point, points_at
from .prediction import Predictor
from .sampler import Problem, Sampler


def whole_orders(highest: int) -> Callable[[int], list[int]]:
    """Rule: as many steps of the highest order as the evaluations allow, then one of what is left."""

    def orders(evaluations: int) -> list[int]:
        whole, rest = divmod(max(evaluations, 0), highest)
        return [highest] * whole + [rest] * (rest > 0)

    return orders


def fast_orders(evaluations: int) -> list[int]:
    """Orders of the ``evaluations // 3 + 1`` steps of "fast": threes, then 2 and 1, or 1, or 2, so that they add up."""
    if evaluations > 0 and evaluations % 3 == 0:
        return [3] * (evaluations // 3 - 1) + [2, 1]
    return whole_orders(3)(evaluations)


def single_step_sampler(orders: Callable[[int], list[int]]) -> Sampler:
    """Sampler whose steps have the orders, and evaluate the network as often, that ``orders(evaluations)`` says."""

    def solve(x: Tensor, problem: Problem) -> Tensor:
        step = {1: _step_1, 2: _step_2, 3: _step_3}
        chosen = orders(problem.evaluations)
        nodes = [
            _nodes(problem.schedule, a, b, order) for (a, b), order in zip(pairwise(problem.grid), chosen, strict=True)
        ]  # before the loop, so that it needs no schedule
        for order, points in zip(chosen, nodes, strict=True):
            x = step[order](problem.predict, x, points)
        return x

    return Sampler(solve, intervals=lambda evaluations: len(orders(evaluations)))


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


dpm_solver_2 = single_step_sampler(whole_orders(2))
dpm_solver_3 = single_step_sampler(whole_orders(3))
dpm_solver_fast = single_step_sampler(fast_orders)
