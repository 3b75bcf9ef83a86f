"""Geometry of volumes ``(C, X, Y, Z)``: windows, their inverse, resampling in plane; the affine is kept right."""

from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from torch import Tensor

from .naming import source_name


def slice_affine(affine: Tensor, index: int) -> Tensor:
    """4x4 affine of slice ``index`` (axis 2) taken as a volume of one slice: the origin moves, nothing else."""
    moved = affine.clone()
    moved[:3, 3] += index * affine[:3, 2]
    return moved


def centered_start(have: Sequence[int], need: Sequence[int]) -> list[int]:
    """First index, axis by axis, of the central window of ``need`` pixels; negative where ``have`` is the smaller."""
    return [old // 2 - new // 2 if old >= new else -((new - old) // 2) for old, new in zip(have, need, strict=True)]


def check_mask(image: Tensor, mask: Tensor) -> None:
    """Refuse a mask of another grid.

    Raises:
        ValueError: the spatial shapes differ; the message names the image's file.
    """
    if image.shape[1:] != mask.shape[1:]:
        raise ValueError(
            f"{source_name(image)} has shape {tuple(image.shape[1:])}, its mask {tuple(mask.shape[1:])}. "
            "Resample the mask onto the image, or leave it out to have one made."
        )


def window(image: MetaTensor, start: Sequence[int], size: Sequence[int], fill: float) -> MetaTensor:
    """Voxels ``start .. start + size`` of the three spatial axes; those outside of the image are ``fill``.

    The window of the window with ``start`` negated and the old size undoes it, but for what was cut off.

    Returns:
        (C, *size), on the same places in space.
    """
    values = image.as_tensor()
    result = values.new_full((len(values), *size), fill)
    inside = [
        (max(first, 0), min(first + new, old)) for first, new, old in zip(start, size, values.shape[1:], strict=True)
    ]
    taken = [slice(low, high) for low, high in inside]
    put = [slice(low - first, high - first) for (low, high), first in zip(inside, start, strict=True)]
    result[(slice(None), *put)] = values[(slice(None), *taken)]
    moved = MetaTensor(result).copy_meta_from(image)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = torch.as_tensor(start)
    moved.affine = image.affine @ shift
    return moved


def one_per_key(fill: float | Sequence[float], labels: Sequence[bool]) -> list[float]:
    """Fill levels, one per key: a single value is for the images, ``labels`` then get 0."""
    if isinstance(fill, Sequence):
        return [float(level) for level, _ in zip(fill, labels, strict=True)]
    return [0.0 if label else float(fill) for label in labels]


def resampling_matrix(size: int, new_size: int, ratio: float) -> Tensor:
    """Weights ``(new_size, size)`` that resample a row of pixels to pixels ``ratio`` times as wide.

    Linear interpolation where pixels shrink (ratio < 1); where they grow, a triangle of half-width ``ratio``, so that
    detail which the new grid cannot hold is averaged instead of aliased. Both grids start at the same pixel *edge*;
    rows sum to 1. Float64.
    """
    center = (torch.arange(new_size, dtype=torch.float64) + 0.5) * ratio - 0.5  # in old pixels
    distance = torch.arange(size, dtype=torch.float64) - center.clamp(0, size - 1)[:, None]
    weights = (1 - distance.abs() / max(ratio, 1.0)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def resample_in_plane(image: MetaTensor, size: Sequence[int], ratios: Sequence[float], nearest: bool) -> MetaTensor:
    """(C, X, Y, Z) -> (C, *size, Z) with pixels ``ratios`` times as wide along axes 0 and 1.

    Args:
        nearest: True takes the nearest pixel and keeps the data type (label maps); False weighs by
            `resampling_matrix`, so that no value leaves the range of its neighbors.
    """
    values = image.as_tensor()
    for axis, (new_size, ratio) in enumerate(zip(size, ratios, strict=True), start=1):
        if ratio == 1 and new_size == values.shape[axis]:
            continue
        weights = resampling_matrix(values.shape[axis], new_size, ratio)
        if nearest:
            values = values.index_select(axis, weights.argmax(dim=1).to(values.device))
        else:
            values = torch.tensordot(values, weights.to(values), dims=([axis], [1])).movedim(-1, axis)
    result = MetaTensor(values.contiguous()).copy_meta_from(image)
    result.affine = image.affine @ _grid_change(ratios)
    return result


def _grid_change(ratios: Sequence[float]) -> Tensor:
    """Old voxel index of each new one: ``i_old = ratio (i_new + 1/2) - 1/2`` on axes 0 and 1."""
    change = torch.eye(4, dtype=torch.float64)
    for axis, ratio in enumerate(ratios):
        change[axis, axis] = ratio
        change[axis, 3] = (ratio - 1) / 2
    return change
