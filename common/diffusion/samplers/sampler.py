"""What all samplers share: their arguments, the grid, and the last step to clean data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..continuous import VPSchedule
from .grid import Point, Spacing, default_t_end, make_grid
from .noise import Generators, draw_noise
from .prediction import Model, Predictor, Range


@dataclass(frozen=True)
class Problem:
    """What a solver works on: the network at the points of a grid.

    predict: the network; schedule: the diffusion; grid: times from first to last; evaluations: how many the solver may
    take; fresh_noise: draws standard normal noise in the shape of x.
    """

    predict: Predictor
    schedule: VPSchedule
    grid: list[Point]
    evaluations: int
    fresh_noise: Callable[[], Tensor]


def one_per_evaluation(evaluations: int) -> int:
    """Intervals of a grid on which every step evaluates the network once."""
    return evaluations


@dataclass(frozen=True)
class Sampler:
    """A solver of the reverse diffusion; call it to draw samples.

    Args:
        solve: takes x at the first point of the grid to the last one.
        intervals: how many intervals the grid has for a number of evaluations.
    """

    solve: Callable[[Tensor, Problem], Tensor]
    intervals: Callable[[int], int] = one_per_evaluation

    @torch.no_grad()
    def __call__(
        self,
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
        """Draw samples.

        Args:
            model: ``noise = model(x, t)`` for x ``(B, ...)`` and t ``(B,)``; any callable.
            x: ``(B, ...)`` at t_start, usually :func:`.noise.draw_noise`; the result has its shape, dtype and device.
            schedule: the diffusion that the model was trained for.
            num_evaluations: calls of the model, all included.
            spacing: grid equidistant in ``"lambda"`` = log(alpha / sigma) or in ``"time"``.
            t_start: time of x.
            t_end: time at which to stop, > 0; if None 1e-4, or 1e-3 for 15 evaluations or fewer.
            clip_x0: lowest and highest value of the data, broadcast to x, to which predicted data are clipped.
            generator: source of the noise, see :func:`.noise.draw_noise`; deterministic solvers take none.
            denoise: spend the last evaluation on removing the noise left at t_end: return the data predicted there.
        """
        t_end = default_t_end(num_evaluations) if t_end is None else t_end
        evaluations = num_evaluations - denoise
        grid = make_grid(schedule, self.intervals(evaluations), spacing=spacing, t_start=t_start, t_end=t_end)
        predict = Predictor(model, x, clip_x0)

        def fresh_noise() -> Tensor:
            return draw_noise(x.shape, generator, dtype=x.dtype, device=x.device)

        end = self.solve(x, Problem(predict, schedule, grid, evaluations, fresh_noise))
        return predict.x0(end, grid[-1]) if denoise else end
