"""From volumes ``(C, X, Y, Z)`` to 2-D slices and back, with the geometry kept: respacing, crop, cutting, stacking."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import InvertibleTransform, MapTransform, RandomizableTransform
from monai.utils import TraceKeys, convert_to_tensor

from .grids import centered_start, check_mask, one_per_key, resample_in_plane, slice_affine, window
from .naming import source_name

logger = logging.getLogger(__name__)


class RespaceInPlane(InvertibleTransform):
    """Resample axes 0 and 1 to ``spacing_mm``; slices stay where they are, the affine follows.

    Args:
        spacing_mm: new pixel size, one number or (x, y); None changes nothing.
        nearest: True for label maps (nearest neighbor); False for images (linear, averaging when pixels grow).
        tolerance: an axis whose spacing is off by no more than this share of ``spacing_mm`` is left alone.
    """

    def __init__(
        self, spacing_mm: float | Sequence[float] | None, nearest: bool = False, tolerance: float = 0.0
    ) -> None:
        spacings = () if spacing_mm is None else tuple(np.broadcast_to(spacing_mm, 2).tolist())
        if any(not spacing > 0 for spacing in spacings):
            raise ValueError(f"RespaceInPlane: spacing_mm={spacing_mm} must be positive (mm), or None for none.")
        if not 0 <= tolerance < 1:
            raise ValueError(f"RespaceInPlane: tolerance={tolerance} is a share of the spacing, 0 <= tolerance < 1.")
        self.spacing_mm, self.nearest, self.tolerance = spacings or None, nearest, tolerance

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """(C, X, Y, Z) -> (C, X', Y', Z), X' = floor(X spacing / new spacing), or X within the tolerance."""
        if self.spacing_mm is None:
            return image
        image = convert_to_tensor(image, dtype=torch.float32, track_meta=True)
        old = affine_to_spacing(image.affine, 3)[:2]
        ratios = [
            1.0 if abs(float(current) / new - 1) <= self.tolerance else new / float(current)
            for new, current in zip(self.spacing_mm, old, strict=True)
        ]
        sizes = [int(size / ratio + 1e-6) for size, ratio in zip(image.shape[1:3], ratios, strict=True)]
        if min(sizes) < 1:
            raise ValueError(
                f"{source_name(image)}: spacing_mm={self.spacing_mm} is larger than the whole image "
                f"({tuple(image.shape[1:3])} pixels of {tuple(round(float(value), 4) for value in old)} mm)."
            )
        result = resample_in_plane(image, sizes, ratios, self.nearest)
        self.push_transform(result, orig_size=tuple(image.shape[1:]), extra_info={"ratios": ratios})
        return result

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Back to the source grid (its size and affine exactly; fine detail is gone)."""
        if self.spacing_mm is None:
            return image
        step = self.pop_transform(image)
        ratios = [1 / ratio for ratio in step[TraceKeys.EXTRA_INFO]["ratios"]]
        return resample_in_plane(image, step[TraceKeys.ORIG_SIZE][:2], ratios, self.nearest)


class RespaceInPlaned(MapTransform, InvertibleTransform):
    """`RespaceInPlane` on ``keys``; ``nearest`` is one value or one per key."""

    def __init__(
        self,
        keys: KeysCollection,
        spacing_mm: float | Sequence[float] | None,
        nearest: bool | Sequence[bool] = False,
        allow_missing_keys: bool = False,
        tolerance: float = 0.0,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        flags = np.broadcast_to(nearest, len(self.keys)).tolist()
        self.respace = {
            key: RespaceInPlane(spacing_mm, flag, tolerance) for key, flag in zip(self.keys, flags, strict=True)
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.respace[key](data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.respace[key].inverse(data[key]) for key in self.key_iterator(dict(data))}}


class CropOrError(InvertibleTransform):
    """Central crop in plane that refuses an image smaller than the crop, unless ``pad`` allows to fill it up.

    Args:
        spatial_size: (X, Y) of the result; the other axes stay.
        pad: fill smaller images evenly with ``fill``.
        fill: level of padding, and of what ``inverse`` cannot bring back (0 is black once intensities are 0..255).
    """

    def __init__(self, spatial_size: Sequence[int], pad: bool = False, fill: float = 0.0) -> None:
        if len(spatial_size) != 2 or min(spatial_size) < 1:
            raise ValueError(f"CropOrError: spatial_size must be two positive numbers (x, y), not {spatial_size}.")
        self.size, self.pad, self.fill = tuple(spatial_size), pad, fill

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """(C, X, Y, Z) -> (C, *spatial_size, Z).

        Raises:
            ValueError: the image is smaller than the crop and ``pad`` is False.
        """
        image = convert_to_tensor(image, track_meta=True)
        plane, depth = tuple(image.shape[1:3]), image.shape[3]
        if not self.pad and any(have < need for have, need in zip(plane, self.size, strict=True)):
            raise ValueError(
                f"{source_name(image)}: {plane[0]} x {plane[1]} pixels, smaller than the crop {self.size[0]} x "
                f"{self.size[1]}. Choose a smaller image size or a finer spacing_mm, or allow padding with pad."
            )
        start = [*centered_start(plane, self.size), 0]
        result = window(image, start, (*self.size, depth), self.fill)
        self.push_transform(result, orig_size=tuple(image.shape[1:]), extra_info={"start": start})
        return result

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Back to the source's size and affine; what was cropped away is ``fill``."""
        step = self.pop_transform(image)
        back = [-first for first in step[TraceKeys.EXTRA_INFO]["start"]]
        return window(image, back, step[TraceKeys.ORIG_SIZE], self.fill)


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


def slice_block(mask: MetaTensor, number: int | None) -> tuple[int, int]:
    """First slice and count of ``number`` slices (axis 2) centered on the median slice of the mask's voxels.

    The block is moved as far as needed to lie inside of the volume; a thinner volume, or None, gives all slices.

    Raises:
        ValueError: the mask is empty.
    """
    depth = mask.shape[3]
    if number is None or number >= depth:
        return 0, depth
    reached = (mask.as_tensor() > 0).sum(dim=(0, 1, 2)).cumsum(0)  # (Z,) voxels up to each slice
    if reached[-1] == 0:
        raise ValueError(f"{source_name(mask)}: the mask is empty, so no slices can be chosen. Remove the case.")
    median = int((2 * reached < reached[-1]).sum())
    return min(max(median - number // 2, 0), depth - number), number


def masked_run(mask: MetaTensor, min_share: float) -> tuple[int, int]:
    """First slice and count of the run from the first to the last slice that holds enough of the mask.

    Enough is ``min_share`` of the square that the slice is padded to, ``max(X, Y)`` squared. The run has no gaps:
    slices inside of it are kept whatever they hold.

    Raises:
        ValueError: no slice holds enough.
    """
    side = max(mask.shape[1:3])
    shares = (mask.as_tensor() > 0).sum(dim=(0, 1, 2)) / side**2  # (Z,)
    enough = (shares >= min_share).nonzero().flatten().tolist()
    if not enough:
        raise ValueError(
            f"{source_name(mask)}: the mask covers at most {float(shares.max()):.2%} of a slice (padded to {side} x "
            f"{side} pixels), less than the {min_share:.2%} that training slices need (min_share). Check the mask, "
            "remove the case, or lower the share."
        )
    return enough[0], enough[-1] - enough[0] + 1


class _SliceRun(InvertibleTransform, ABC):
    """Keep a contiguous run of slices that is chosen by a mask.

    Args:
        fill: level that ``inverse`` gives to the slices that were left out.
    """

    def __init__(self, fill: float) -> None:
        self.fill = fill

    @abstractmethod
    def choose(self, mask: MetaTensor) -> tuple[int, int]:
        """First slice and count, for a mask (1, X, Y, Z)."""

    def __call__(self, image: MetaTensor, mask: MetaTensor) -> MetaTensor:  # type: ignore[override]
        """(C, X, Y, Z), mask (1, X, Y, Z) -> (C, X, Y, count); ``meta["slice_block"]`` is (first, count).

        Raises:
            ValueError: the mask is on another grid, or the rule finds no slices.
        """
        image = convert_to_tensor(image, track_meta=True)
        check_mask(image, mask)
        first, count = self.choose(mask)
        result = window(image, (0, 0, first), (*image.shape[1:3], count), self.fill)
        result.meta["slice_block"] = (first, count)
        self.push_transform(result, orig_size=tuple(image.shape[1:]), extra_info={"first": first})
        return result

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Back to all slices of the source; those that were left out are ``fill``."""
        step = self.pop_transform(image)
        return window(image, (0, 0, -step[TraceKeys.EXTRA_INFO]["first"]), step[TraceKeys.ORIG_SIZE], self.fill)


class SliceBlock(_SliceRun):
    """Keep the contiguous slices that hold the middle of the foreground, see `slice_block`.

    Args:
        number: how many slices; None keeps all.
        fill: level that ``inverse`` gives to the slices that were left out.
    """

    def __init__(self, number: int | None, fill: float = -1.0) -> None:
        if number is not None and number < 1:
            raise ValueError(f"SliceBlock: number={number} must be positive, or None for all slices.")
        super().__init__(fill)
        self.number = number

    def choose(self, mask: MetaTensor) -> tuple[int, int]:
        """See `slice_block`; ValueError if the mask is empty."""
        return slice_block(mask, self.number)


class MaskedSlices(_SliceRun):
    """Keep the run of slices that hold enough of the mask, see `masked_run`.

    Args:
        min_share: in 0..1, of the square that a slice is padded to; 0 keeps every slice.
        fill: level that ``inverse`` gives to the slices that were left out.
    """

    def __init__(self, min_share: float, fill: float = -1.0) -> None:
        if not 0 <= min_share <= 1:
            raise ValueError(f"MaskedSlices: min_share={min_share} is a share of the slice, 0 <= min_share <= 1.")
        super().__init__(fill)
        self.min_share = min_share

    def choose(self, mask: MetaTensor) -> tuple[int, int]:
        """See `masked_run`; ValueError if no slice holds enough."""
        return masked_run(mask, self.min_share)


class _SliceRund(MapTransform, InvertibleTransform):
    """A `_SliceRun` per key, all of them with the same rule and hence the same slices."""

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str,
        make: Callable[[float], _SliceRun],
        fill: float | Sequence[float],
        allow_missing_keys: bool,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        fills = one_per_key(fill, [key == mask_key for key in self.keys])
        self.run = {key: make(level) for key, level in zip(self.keys, fills, strict=True)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        mask = data[self.mask_key]
        return {**data, **{key: self.run[key](data[key], mask) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.run[key].inverse(data[key]) for key in self.key_iterator(dict(data))}}


class SliceBlockd(_SliceRund):
    """`SliceBlock` on ``keys``: the same slices of all, chosen by the foreground under ``mask_key``.

    A volume with fewer slices is kept whole, which is logged once.

    Args:
        keys: volumes on one grid; name ``mask_key`` among them to cut the mask as well.
        mask_key: foreground (1, X, Y, Z).
        number: how many slices; None keeps all.
        fill: level that ``inverse`` gives to the slices that were left out, one value or one per key; one value is
            for the images, the mask then gets 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str,
        number: int | None,
        fill: float | Sequence[float] = -1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, mask_key, lambda level: SliceBlock(number, level), fill, allow_missing_keys)
        self.number = number
        self._logged: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        depth = data[self.mask_key].shape[3]
        keys = list(self.key_iterator(dict(data)))
        name = source_name(data[keys[0]]) if keys else ""
        if self.number is not None and depth < self.number and name not in self._logged:
            self._logged.add(name)
            logger.warning("%s has %d slices, fewer than %d: all are taken.", name, depth, self.number)
        return super().__call__(data)


class MaskedSlicesd(_SliceRund):
    """`MaskedSlices` on ``keys``: the same slices of all, chosen by the foreground under ``mask_key``.

    Args:
        keys: volumes on one grid; name ``mask_key`` among them to cut the mask as well.
        mask_key: foreground (1, X, Y, Z).
        min_share: in 0..1, of the square that a slice is padded to; 0 keeps every slice.
        fill: as in `SliceBlockd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str,
        min_share: float,
        fill: float | Sequence[float] = -1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, mask_key, lambda level: MaskedSlices(min_share, level), fill, allow_missing_keys)


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
