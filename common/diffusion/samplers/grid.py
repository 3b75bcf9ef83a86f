"""The times a sampler visits, with everything it needs to know there as plain numbers."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..continuous import VPSchedule

Spacing = Literal["lambda", "time"]


class Point(NamedTuple):
    """One time and its schedule values, Python floats of float64 origin: no device is asked for them in the loop."""

    t: float
    alpha: float
    sigma: float
    lam: float
    beta: float


def points_at(schedule: VPSchedule, t: Tensor) -> list[Point]:
    """Schedule values at the times t ``(N,)``, computed in float64 on the CPU."""
    t = t.double().cpu()
    columns = (t, schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t), schedule.beta(t))
    return [Point(*row) for row in torch.stack(columns, dim=-1).tolist()]


def make_grid(
    schedule: VPSchedule, steps: int, *, spacing: Spacing = "lambda", t_start: float = 1.0, t_end: float = 1e-3
) -> list[Point]:
    """``steps + 1`` points from t_start down to t_end, equidistant in lambda = log(alpha / sigma) or in time.

    Raises:
        ValueError: no step, times out of order, or an unknown spacing.
    """
    if steps < 1:
        raise ValueError(f"sampler: {steps} steps; num_evaluations must be at least 1, or 2 with denoise=True.")
    if not 0 < t_end < t_start <= 1:
        raise ValueError(
            f"sampler: need 0 < t_end < t_start <= 1, got t_start={t_start}, t_end={t_end}; "
            "t = 0 itself is reached by denoise=True."
        )
    ends = torch.tensor([t_start, t_end], dtype=torch.float64)
    if spacing == "time":
        t = torch.linspace(t_start, t_end, steps + 1, dtype=torch.float64)
    elif spacing == "lambda":
        first, last = schedule.log_snr(ends).tolist()
        t = schedule.t_of_lambda(torch.linspace(first, last, steps + 1, dtype=torch.float64))
    else:
        raise ValueError(f"sampler: spacing={spacing!r} is not known; choose 'lambda' or 'time'.")
    t[0], t[-1] = ends  # exactly
    return points_at(schedule, t)


def default_t_end(num_evaluations: int) -> float:
    """1e-4, or 1e-3 for at most 15 evaluations: few steps should not be spent where hardly any noise is left.

    Source: the recommendation of Lu et al. 2022, "DPM-Solver", appendix.
    """
    return 1e-4 if num_evaluations > 15 else 1e-3
