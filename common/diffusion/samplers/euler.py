"""Euler's method for the probability-flow ODE and, with noise, for the reverse-time SDE.

With ``f = -beta x / 2``, ``g^2 = beta`` and the score ``s = -noise / sigma``:
ODE ``dx = (f - g^2 s / 2) dt``, SDE ``dx = (f - g^2 s) dt + g dw``, both run from t_start down to t_end.
Source: Song et al. 2021, "Score-based generative modeling through SDEs", eqs. 6 and 13.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from .sampler import Problem, Sampler


def solve_euler(x: Tensor, problem: Problem) -> Tensor:
    """The ODE; a baseline of first order."""
    for a, b in pairwise(problem.grid):
        drift = -a.beta / 2 * x + a.beta / (2 * a.sigma) * problem.predict.noise(x, a)
        x = x + (b.t - a.t) * drift
    return x


def solve_euler_maruyama(x: Tensor, problem: Problem) -> Tensor:
    """The SDE, without noise in the last step."""
    for a, b in pairwise(problem.grid):
        drift = -a.beta / 2 * x + a.beta / a.sigma * problem.predict.noise(x, a)
        x = x + (b.t - a.t) * drift
        if b is not problem.grid[-1]:
            x = x + math.sqrt(a.beta * (a.t - b.t)) * problem.fresh_noise()
    return x


euler = Sampler(solve_euler)
euler_maruyama = Sampler(solve_euler_maruyama)
