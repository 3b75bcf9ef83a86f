"""The two exact steps for constant predicted data, from which the first and second order samplers are built."""

from __future__ import annotations

import math

from torch import Tensor

from .grid import Point


def ode_step(x: Tensor, x0: Tensor, a: Point, b: Point) -> Tensor:
    """``(sigma_b / sigma_a) x - alpha_b (e^-h - 1) x0``, h = lambda_b - lambda_a.

    Solves the probability-flow ODE from a to b if the predicted data x0 do not change on the way.
    Source: Lu et al. 2022, "DPM-Solver++", first order; the same as DDIM.
    """
    h = b.lam - a.lam
    return b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * x0


def sde_step(x: Tensor, x0: Tensor, noise: Tensor, a: Point, b: Point) -> Tensor:
    """``(sigma_b / sigma_a) e^-h x + alpha_b (1 - e^-2h) x0 + sigma_b sqrt(1 - e^-2h) noise``.

    Draws from the reverse-time SDE from a to b if the predicted data x0 do not change on the way; this is also the
    posterior q(x_b | x_a, x0) of the forward process.
    Source: Lu et al. 2022, "DPM-Solver++", the SDE variant of first order.
    """
    h = b.lam - a.lam
    fresh = -math.expm1(-2 * h)
    return b.sigma / a.sigma * math.exp(-h) * x + b.alpha * fresh * x0 + b.sigma * math.sqrt(fresh) * noise
