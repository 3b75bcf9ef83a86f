"""Squared error of the noise that label-guided diffusion predicts."""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, nn

from ..diffusion.gaussian import NoiseSchedule
from ..diffusion.tables import rows

NoiseWeight = Literal["plain", "unit_variance"]


class GuidedNoiseLoss(nn.Module):
    """``mean(w_t (noise - prediction)^2)``, a float32 scalar (FQCDM, eq. 10, with w = 1).

    Called with the prediction ``(B, C, h, w)`` and the target ``{"noise": (B, C, h, w), "t": (B,) int64}``. Weights:

    - ``plain``: 1;
    - ``unit_variance``: ``1 / A_t``, the squared error of what a ``v_prediction`` network itself has to find, which
      has unit variance at every step if the latents have. Plainly weighted, steps that are nearly noise hardly count,
      and they decide on the overall brightness.

    Args:
        schedule: of the diffusion; t counts its steps.
        weight: which w.
    Source: Salimans and Ho 2022, "Progressive distillation for fast sampling of diffusion models", section 4 (the
        second weighting, by the error of v).
    """

    def __init__(self, schedule: NoiseSchedule, weight: NoiseWeight = "plain") -> None:
        super().__init__()
        if weight not in get_args(NoiseWeight):
            raise ValueError(
                f"GuidedNoiseLoss: weight={weight!r} is unknown; choose one of {', '.join(get_args(NoiseWeight))}."
            )
        self.schedule = schedule
        self.weight: NoiseWeight = weight

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        noise = target["noise"].float()
        if pred.shape != noise.shape:
            raise ValueError(
                f"GuidedNoiseLoss: prediction {tuple(pred.shape)} and noise {tuple(noise.shape)} differ in shape."
            )
        error = (pred.float() - noise).square()
        if self.weight == "unit_variance":
            error = error / rows(self.schedule.alpha_bar, target["t"], noise)
        return error.mean()
