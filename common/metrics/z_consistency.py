"""Do slices that were predicted one by one fit together to a volume?"""

from typing import NamedTuple

import torch
from torch import Tensor

from .shapes import check_one_shape


class ZConsistency(NamedTuple):
    """Mean steps between neighboring slices, in units of those of the target; float64 scalars.

    ``ratio``: mean |step| of the prediction; 1 is right, below is smoother than the target, above flickers.
    ``error_ratio``: mean |step| of the error ``pred - target``; 0 is right, and an error that stays the same from slice
    to slice does not count. A prediction of independent slices can have the right ratio, but not a small one of these.
    """

    ratio: Tensor
    error_ratio: Tensor


def z_consistency(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> ZConsistency:
    """Compare the steps between consecutive slices of a predicted volume with those of its target.

    Args:
        pred: ``(..., X, Y, Z)``, slices along the last axis, all of them consecutive.
        target: as ``pred``, in the same units.
        mask: as ``pred``; a step counts if both of its voxels are positive in it.

    Returns:
        Both infinite or NaN for a target that is constant along z.

    Raises:
        ValueError: shapes differ, there is a single slice, or no two neighbors are inside the mask.
    """
    check_one_shape("z_consistency", {"prediction": pred, "target": target, "mask": mask})
    if pred.shape[-1] < 2:
        raise ValueError(
            f"z_consistency: a volume of shape {tuple(pred.shape)} has no two consecutive slices (last axis)."
        )
    first, second = (volume.detach().as_subclass(Tensor).double() for volume in (pred, target))
    steps = [volume.diff(dim=-1).abs() for volume in (first, second, first - second)]
    if mask is None:
        both = torch.ones_like(steps[0], dtype=torch.bool)
    else:
        inside = mask.detach().as_subclass(Tensor) > 0
        both = inside[..., 1:] & inside[..., :-1]
    if not both.any():
        raise ValueError("z_consistency: the mask holds no two voxels that are neighbors along the last axis.")
    of_pred, of_target, of_error = (step[both].mean() for step in steps)
    return ZConsistency(ratio=of_pred / of_target, error_ratio=of_error / of_target)
