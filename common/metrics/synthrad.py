"""Metrics of synthetic CT in Hounsfield units, as the SynthRAD2023 challenge defines them; one patient at a time.

Volumes are ``(X, Y, Z)`` or ``(1, X, Y, Z)``: predicted CT, true CT, and a mask of the body that is positive inside.
Results are float64 scalars.

Source: Huijben et al. 2024, "Generating synthetic computed tomography for radiotherapy: SynthRAD2023 challenge report".
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .image_quality import crop_border, psnr, structural_similarity_map
from .shapes import check_one_shape

HU_RANGE = (-1024.0, 3000.0)
"""Window that PSNR and SSIM are computed in; values beyond are clipped."""

BONE_ABOVE = 250.0
AIR_BELOW = -200.0


class TissueError(NamedTuple):
    """Mean absolute error in HU over the classes of :func:`tissue_mae`; NaN for a class without voxels."""

    bone: Tensor
    soft_tissue: Tensor
    air: Tensor


def masked_mae(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error in HU inside the mask; nothing is clipped."""
    pred, target, inside = _volumes(pred, target, mask)
    return (pred - target)[inside].abs().mean()


def masked_psnr(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """PSNR in dB inside the mask, both volumes clipped to :data:`HU_RANGE`; infinite if they are equal there."""
    pred, target, inside = _volumes(pred, target, mask)
    return psnr(_clip(pred), _clip(target), HU_RANGE[1] - HU_RANGE[0], inside)[0]


def masked_ssim(pred: Tensor, target: Tensor, mask: Tensor, window: int = 7) -> Tensor:
    """3-D SSIM: mean over the masked voxels that are at least ``window // 2`` voxels away from the volume's border.

    Both volumes are clipped to :data:`HU_RANGE`, set to its lower end outside the mask and shifted to start at 0 before
    the map of :func:`structural_similarity_map` is computed, so voxels outside do not matter.

    Raises:
        ValueError: the volume is thinner than the window, or the mask touches its border only.
    """
    pred, target, inside = _volumes(pred, target, mask)
    low, high = HU_RANGE
    shifted = [torch.where(inside, _clip(volume) - low, 0.0) for volume in (pred, target)]
    similarity = structural_similarity_map(shifted[0], shifted[1], high - low, window)
    kept = crop_border(inside, window)
    if not kept.any():
        raise ValueError(
            f"masked_ssim: the mask is empty but for the outer {window // 2} voxels of the volume, where no whole "
            "window fits; nothing can be compared."
        )
    return similarity[kept].mean()


def tissue_mae(pred: Tensor, target: Tensor, mask: Tensor) -> TissueError:
    """Mean absolute error in HU inside the mask by the true tissue: bone (> 250 HU), air (< -200 HU) and the rest."""
    pred, target, inside = _volumes(pred, target, mask)
    error, truth = (pred - target)[inside].abs(), target[inside]
    bone, air = truth > BONE_ABOVE, truth < AIR_BELOW
    return TissueError(bone=error[bone].mean(), soft_tissue=error[~bone & ~air].mean(), air=error[air].mean())


def _clip(volume: Tensor) -> Tensor:
    return volume.clamp(*HU_RANGE)


def _volumes(pred: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and target in float64 and the mask in bool, each ``(1, 1, X, Y, Z)``."""
    check_one_shape("SynthRAD metrics", {"prediction": pred, "target": target, "mask": mask})
    shape = tuple(pred.shape)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != 1):
        raise ValueError(
            f"SynthRAD metrics: volumes of shape {shape}; expected one patient, (X, Y, Z) or (1, X, Y, Z)."
        )
    size = (1, 1, *shape[-3:])
    first, second, inside = (volume.detach().as_subclass(Tensor).reshape(size) for volume in (pred, target, mask))
    inside = inside > 0
    if not inside.any():
        raise ValueError("SynthRAD metrics: the mask is empty, so there is no voxel to compare.")
    return first.double(), second.double(), inside
