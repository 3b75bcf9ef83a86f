"""DDIM, the first-order sampler."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from .sampler import Problem, Sampler
from .steps import ode_step


def solve_ddim(x: Tensor, problem: Problem) -> Tensor:
    """Deterministic steps of first order (Song et al. 2021, "DDIM"; equally DPM-Solver-1)."""
    for a, b in pairwise(problem.grid):
        x = ode_step(x, problem.predict.x0(x, a), a, b)
    return x


ddim = Sampler(solve_ddim)
