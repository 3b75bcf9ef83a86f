"""From volumes ``(C, X, Y, Z)`` to 2-D slices and back, with the geometry kept: respacing, crop, cutting, stacking."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import InvertibleTransform, MapTransform, RandomizableTransform, ResizeWithPadOrCrop
from monai.utils import TraceKeys, convert_to_tensor
from torch import Tensor


def slice_affine(affine: Tensor, index: int) -> Tensor:
    """4x4 affine of slice ``index`` (axis 2) taken as a volume of one slice: the origin moves, nothing else."""
    moved = affine.clone()
    moved[:3, 3] += index * affine[:3, 2]
    return moved


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


class RespaceInPlane(InvertibleTransform):
    """Resample axes 0 and 1 to ``spacing_mm``; slices stay where they are, the affine follows.

    Args:
        spacing_mm: new pixel size, one number or (x, y); None changes nothing.
        nearest: True for label maps (nearest neighbor); False for images (linear, averaging when pixels grow).
    """

    def __init__(self, spacing_mm: float | Sequence[float] | None, nearest: bool = False) -> None:
        spacings = () if spacing_mm is None else tuple(np.broadcast_to(spacing_mm, 2).tolist())
        if any(not spacing > 0 for spacing in spacings):
            raise ValueError(f"RespaceInPlane: spacing_mm={spacing_mm} must be positive (mm), or None for none.")
        self.spacing_mm, self.nearest = spacings or None, nearest

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """(C, X, Y, Z) -> (C, X', Y', Z), X' = floor(X spacing / new spacing)."""
        if self.spacing_mm is None:
            return image
        image = convert_to_tensor(image, dtype=torch.float32, track_meta=True)
        old = affine_to_spacing(image.affine, 3)[:2]
        ratios = [new / float(current) for new, current in zip(self.spacing_mm, old, strict=True)]
        sizes = [int(size / ratio + 1e-6) for size, ratio in zip(image.shape[1:3], ratios, strict=True)]
        if min(sizes) < 1:
            raise ValueError(
                f"{_name(image)}: spacing_mm={self.spacing_mm} is larger than the whole image "
                f"({tuple(image.shape[1:3])} pixels of {tuple(round(float(value), 4) for value in old)} mm)."
            )
        result = self._resample(image, sizes, ratios)
        self.push_transform(result, orig_size=tuple(image.shape[1:]), extra_info={"ratios": ratios})
        result.affine = image.affine @ _grid_change(ratios)
        return result

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Back to the source grid (its size and affine exactly; fine detail is gone)."""
        if self.spacing_mm is None:
            return image
        step = self.pop_transform(image)
        ratios = [1 / ratio for ratio in step[TraceKeys.EXTRA_INFO]["ratios"]]
        result = self._resample(image, list(step[TraceKeys.ORIG_SIZE][:2]), ratios)
        result.affine = image.affine @ _grid_change(ratios)
        return result

    def _resample(self, image: MetaTensor, sizes: list[int], ratios: list[float]) -> MetaTensor:
        matrices = [
            resampling_matrix(size, new_size, ratio)
            for size, new_size, ratio in zip(image.shape[1:3], sizes, ratios, strict=True)
        ]
        values = image.as_tensor()
        if self.nearest:
            rows, columns = (matrix.argmax(dim=1).to(values.device) for matrix in matrices)
            result = values[:, rows][:, :, columns]
        else:
            across, down = (matrix.to(values) for matrix in matrices)
            result = torch.einsum("ix,cxyz->ciyz", across, values)  # (C, X', Y, Z)
            result = torch.einsum("jy,ciyz->cijz", down, result)  # (C, X', Y', Z)
        return MetaTensor(result.contiguous()).copy_meta_from(image)


class RespaceInPlaned(MapTransform, InvertibleTransform):
    """`RespaceInPlane` on ``keys``; ``nearest`` is one value or one per key."""

    def __init__(
        self,
        keys: KeysCollection,
        spacing_mm: float | Sequence[float] | None,
        nearest: bool | Sequence[bool] = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        flags = np.broadcast_to(nearest, len(self.keys)).tolist()
        self.respace = {key: RespaceInPlane(spacing_mm, flag) for key, flag in zip(self.keys, flags, strict=True)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.respace[key](data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.respace[key].inverse(data[key]) for key in self.key_iterator(dict(data))}}


class CropOrError(ResizeWithPadOrCrop):
    """Central crop in plane that refuses an image smaller than the crop, unless ``pad`` allows to fill it up.

    Args:
        spatial_size: (X, Y) of the result; the other axes stay.
        pad: fill smaller images evenly with grey level 0 (black once intensities are 0..255).
    """

    def __init__(self, spatial_size: Sequence[int], pad: bool = False) -> None:
        if len(spatial_size) != 2 or min(spatial_size) < 1:
            raise ValueError(f"CropOrError: spatial_size must be two positive numbers (x, y), not {spatial_size}.")
        super().__init__(spatial_size=(*spatial_size, -1), mode="constant", value=0.0)
        self.size, self.pad = tuple(spatial_size), pad

    def __call__(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(C, X, Y, Z) -> (C, *spatial_size, Z).

        Raises:
            ValueError: the image is smaller than the crop and ``pad`` is False.
        """
        plane = tuple(image.shape[1:3])
        if not self.pad and any(have < need for have, need in zip(plane, self.size, strict=True)):
            raise ValueError(
                f"{_name(image)}: {plane[0]} x {plane[1]} pixels, smaller than the crop {self.size[0]} x "
                f"{self.size[1]}. Choose a smaller image size or a finer spacing_mm, or allow padding with pad."
            )
        return super().__call__(image)


class CropOrErrord(MapTransform, InvertibleTransform):
    """`CropOrError` on ``keys``."""

    def __init__(
        self, keys: KeysCollection, spatial_size: Sequence[int], pad: bool = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.crop = CropOrError(spatial_size, pad)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.crop(data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.crop.inverse(data[key]) for key in self.key_iterator(dict(data))}}


class CutSlices(InvertibleTransform):
    """Volume or cine ``(T, X, Y, Z)`` -> stack of slices ``(T Z, X, Y)``; ``inverse`` restacks, affine included.

    Slice z of frame t is number ``t Z + z``; `slice_affine` gives its place in space.
    """

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        """Cut along axis 2."""
        volume = convert_to_tensor(volume, track_meta=True)
        frames, width, height, depth = volume.shape
        stack = volume.as_tensor().permute(0, 3, 1, 2).reshape(frames * depth, width, height)
        result = MetaTensor(stack).copy_meta_from(volume)
        self.push_transform(result, orig_size=tuple(volume.shape[1:]), extra_info={"frames": frames})
        return result

    def inverse(self, stack: MetaTensor) -> MetaTensor:
        """(T Z, X', Y') -> (T, X', Y', Z)."""
        step = self.pop_transform(stack)
        frames, depth = step[TraceKeys.EXTRA_INFO]["frames"], step[TraceKeys.ORIG_SIZE][2]
        volume = stack.as_tensor().reshape(frames, depth, *stack.shape[1:]).permute(0, 2, 3, 1)
        return MetaTensor(volume.contiguous()).copy_meta_from(stack)


class CutSlicesd(MapTransform, InvertibleTransform):
    """`CutSlices` on ``keys``."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.cut = CutSlices()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.cut(data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.cut.inverse(data[key]) for key in self.key_iterator(dict(data))}}


class RandSliced(RandomizableTransform, MapTransform):
    """One random slice of one random frame, the same under all ``keys``: ``(T, X, Y, Z)`` -> ``(1, X, Y, 1)``."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        RandomizableTransform.__init__(self, prob=1.0)
        MapTransform.__init__(self, keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result: dict[Hashable, Any] = dict(data)
        shapes = {tuple(data[key].shape) for key in self.key_iterator(result)}
        if len(shapes) != 1:
            raise ValueError(f"RandSliced: {', '.join(map(str, self.keys))} must have one shape, not {sorted(shapes)}.")
        frames, _, _, depth = shapes.pop()
        frame, index = self.R.randint(frames), self.R.randint(depth)
        for key in self.key_iterator(result):
            one = convert_to_tensor(data[key], track_meta=True)
            picked = MetaTensor(one.as_tensor()[frame : frame + 1, :, :, index : index + 1]).copy_meta_from(one)
            picked.affine = slice_affine(one.affine, index)
            result[key] = picked
        return result


def _grid_change(ratios: Sequence[float]) -> Tensor:
    """Old voxel index of each new one: ``i_old = ratio (i_new + 1/2) - 1/2`` on axes 0 and 1."""
    change = torch.eye(4, dtype=torch.float64)
    for axis, ratio in enumerate(ratios):
        change[axis, axis] = ratio
        change[axis, 3] = (ratio - 1) / 2
    return change


def _name(image: Tensor) -> str:
    return str(image.meta.get("filename_or_obj", "the image")) if isinstance(image, MetaTensor) else "the image"
