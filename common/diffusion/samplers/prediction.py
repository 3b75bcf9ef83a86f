"""What a sampler asks of the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .grid import Point

Model = Callable[[Tensor, Tensor], Tensor]
Range = tuple[Tensor, Tensor]


class Predictor:
    """Noise and data predicted by a model at a point of the grid; one network evaluation a call.

    Args:
        model: ``noise = model(x, t)`` for x ``(B, ...)`` and t ``(B,)``.
        x: the start of the sampling; gives batch size, device and precision.
        clip_x0: lowest and highest value of the data, broadcast to x, or None. The predicted data are clipped to
            them, and the predicted noise is the one that belongs to the clipped data.
    """

    def __init__(self, model: Model, x: Tensor, clip_x0: Range | None = None) -> None:
        if not x.is_floating_point():
            raise TypeError(f"sampler: the start x must be floating point, got {x.dtype}; draw it with draw_noise.")
        self.model = model
        self.clip = None if clip_x0 is None else (clip_x0[0].to(x), clip_x0[1].to(x))

    def noise(self, x: Tensor, at: Point) -> Tensor:
        """Predicted noise in x."""
        noise = self._evaluate(x, at)
        if self.clip is None:
            return noise
        x0 = (x - at.sigma * noise) / at.alpha
        return noise + at.alpha / at.sigma * (x0 - x0.clamp(*self.clip))

    def x0(self, x: Tensor, at: Point) -> Tensor:
        """Predicted data behind x."""
        x0 = (x - at.sigma * self._evaluate(x, at)) / at.alpha
        return x0 if self.clip is None else x0.clamp(*self.clip)

    def _evaluate(self, x: Tensor, at: Point) -> Tensor:
        t = torch.full((len(x),), at.t, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        return self.model(x, t).to(x.dtype)
