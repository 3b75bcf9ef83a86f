"""Squared error of a predicted target image, and optionally its perceptual distance."""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, nn

from ..diffusion.residual_shift import ResidualShiftSchedule, loss_weights

TranslationWeight = Literal["none", "clipped"]


class TranslationLoss(nn.Module):
    """``mean(w_t (prediction - image)^2)`` over batch and pixels, a float32 scalar.

    Called with the prediction ``(B, 1, H, W)`` and the target ``{"image": (B, 1, H, W), "t": (B,) int64 in 1..T}``.
    The weight w_t is

    - ``none``: 1, plain mean squared error, what the published runs of ResShift use;
    - ``clipped``: that of the variational bound, finite at t = 1 (:func:`loss_weights`).

    Args:
        weight: which w.
        schedule: of the diffusion; needed for ``clipped`` only.
        perceptual: distance of two batches of images, for instance :class:`PerceptualLoss`; None: no such term.
        perceptual_weight: its factor.
    """

    def __init__(
        self,
        weight: TranslationWeight = "none",
        *,
        schedule: ResidualShiftSchedule | None = None,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if weight not in get_args(TranslationWeight):
            choices = ", ".join(get_args(TranslationWeight))
            raise ValueError(f"TranslationLoss: weight={weight!r} is unknown; choose one of {choices}.")
        if weight == "clipped" and schedule is None:
            raise ValueError("TranslationLoss: weight='clipped' needs the `schedule` of the diffusion.")
        if perceptual_weight and perceptual is None:
            raise ValueError(f"TranslationLoss: perceptual_weight={perceptual_weight} needs a `perceptual` distance.")
        self.schedule = schedule if weight == "clipped" else None
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        image = target["image"].float()
        if pred.shape != image.shape:
            raise ValueError(
                f"TranslationLoss: prediction {tuple(pred.shape)} and target image {tuple(image.shape)} differ in "
                "shape; broadcasting them would compare the wrong pixels."
            )
        error = (pred.float() - image).square()
        if self.schedule is not None:
            error = self.schedule.at(loss_weights(self.schedule), target["t"], error) * error
        if self.perceptual is None or not self.perceptual_weight:
            return error.mean()
        return error.mean() + self.perceptual_weight * self.perceptual(pred, image)
