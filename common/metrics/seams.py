"""Seams: are steps between neighboring pixels larger where two tokens meet than elsewhere?"""

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor


def neighbor_steps(images: Tensor, token_size: int) -> Tensor:
    """Per image ``(B, C, H, W)``: mean |step| across token borders and between all other neighbors, ``(B, 2)`` float64.

    Neighbors are horizontal and vertical; tokens of ``token_size`` pixels start at the first row and column.
    """
    if images.ndim != 4 or max(images.shape[-2:]) <= token_size or token_size < 2:
        raise ValueError(
            f"seam_ratio: tokens of {token_size} px in images of shape {tuple(images.shape)}; expected (B, C, H, W) "
            "larger than one token, and tokens of at least 2 px."
        )
    pixels = images.as_subclass(Tensor).double()
    on_border, elsewhere = [], []
    for axis in (-2, -1):
        steps = pixels.diff(dim=axis).abs().movedim(axis, -1)  # step i lies between pixels i and i + 1
        last = torch.arange(1, steps.shape[-1] + 1, device=pixels.device) % token_size == 0
        on_border.append(steps[..., last].flatten(1))
        elsewhere.append(steps[..., ~last].flatten(1))
    return torch.stack([torch.cat(on_border, 1).mean(1), torch.cat(elsewhere, 1).mean(1)], 1)


def seam_ratio(images: Tensor, token_size: int) -> Tensor:
    """Mean |step| across token borders divided by that between all other neighbors, over all images; a scalar.

    About 1 for images that know nothing of tokens, larger with visible seams; NaN for constant images.
    """
    border, other = neighbor_steps(images, token_size).mean(0)
    return border / other


class SeamRatio(CumulativeIterationMetric):
    """:func:`seam_ratio` of all predicted images; compare it with that of real images, not with 1.

    Called with ``y_pred`` ``(B, C, H, W)``; ``y`` is not looked at.

    Args:
        token_size: side of a token in pixels (twice the DCT block).
    """

    def __init__(self, token_size: int) -> None:
        super().__init__()
        self.token_size = token_size

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        return neighbor_steps(y_pred, self.token_size)

    def aggregate(self) -> Tensor:
        """Ratio over all images seen by all processes since the last reset."""
        steps = self.get_buffer()
        if steps is None:
            raise ValueError("SeamRatio: no images were given before aggregate().")
        border, other = steps.mean(0)
        return border / other
