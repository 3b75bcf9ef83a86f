"""DPM-Solver++(2M), deterministic and stochastic: second order at one network evaluation a step.

Source: Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models",
algorithm 2 (2M) and its SDE variant.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from .grid import Point
from .sampler import Problem, Sampler
from .steps import ode_step, sde_step


def solve_2m(x: Tensor, problem: Problem) -> Tensor:
    """Deterministic second-order multistep solver."""
    last_x0 = x
    for (a, b), extrapolation in zip(pairwise(problem.grid), _extrapolations(problem.grid), strict=True):
        x0 = problem.predict.x0(x, a)
        x = ode_step(x, x0 + extrapolation * (x0 - last_x0), a, b)
        last_x0 = x0
    return x


def solve_sde_2m(x: Tensor, problem: Problem) -> Tensor:
    """Stochastic second-order multistep solver of the reverse-time SDE."""
    last_x0 = x
    for (a, b), extrapolation in zip(pairwise(problem.grid), _extrapolations(problem.grid), strict=True):
        x0 = problem.predict.x0(x, a)
        x = sde_step(x, x0 + extrapolation * (x0 - last_x0), problem.fresh_noise(), a, b)
        last_x0 = x0
    return x


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


dpm_solver_pp_2m = Sampler(solve_2m)
sde_dpm_solver_pp_2m = Sampler(solve_sde_2m)
