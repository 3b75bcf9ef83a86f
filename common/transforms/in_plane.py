"""Bring every volume to the network's in-plane size, and the network's answer back to the volume's own grid."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_tensor

from .grids import centered_start, one_per_key, resample_in_plane, window
from .naming import source_name

logger = logging.getLogger(__name__)

RULES = ("crop", "resize")


class FitInPlane(InvertibleTransform):
    """Volume of any in-plane size -> ``size``, slices untouched.

    ``crop`` crops or pads around the center, so pixels stay as they are. ``resize`` first crops or pads to the square
    of ``S = min(max(X, Y), limit)`` pixels and resamples that to ``size``. What ``inverse`` gives is linear
    interpolation between pixels of its input, hence never brighter or darker than that.

    Args:
        size: (X, Y) of the result.
        rule: ``"crop"`` or ``"resize"``.
        limit: largest square of ``resize`` in source pixels.
        fill: level of padding, and of what ``inverse`` cannot bring back: the image's background.
        nearest: True for label maps (nearest neighbor, data type kept); False for images (float32, linear, averaging
            when pixels grow).
    """

    def __init__(
        self, size: Sequence[int], rule: str = "crop", limit: int = 256, fill: float = -1.0, nearest: bool = False
    ) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"FitInPlane: size must be two positive numbers (x, y), not {size}.")
        if rule not in RULES:
            raise ValueError(f"FitInPlane: rule={rule!r} is unknown. Known are {', '.join(RULES)}.")
        if limit < 1:
            raise ValueError(f"FitInPlane: limit={limit} must be a positive number of pixels.")
        self.size, self.rule, self.limit, self.fill, self.nearest = tuple(size), rule, limit, fill, nearest
        self._logged: set[str] = set()

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """(C, X, Y, Z) -> (C, *size, Z). Foreground (above ``fill``) that does not fit is logged once per file."""
        image = convert_to_tensor(image, dtype=None if self.nearest else torch.float32, track_meta=True)
        plane, depth = tuple(image.shape[1:3]), image.shape[3]
        frame = self.size if self.rule == "crop" else (min(max(plane), self.limit),) * 2
        start = [*centered_start(plane, frame), 0]
        framed = window(image, start, (*frame, depth), self.fill)
        if not self.nearest:
            self._log_loss(image, framed)
        result = resample_in_plane(framed, self.size, _ratios(frame, self.size), self.nearest)
        self.push_transform(result, orig_size=tuple(image.shape[1:]), extra_info={"start": start, "frame": frame})
        return result

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Back to the source's size and affine; what was cropped away is ``fill``."""
        step = self.pop_transform(image)
        frame, start = (step[TraceKeys.EXTRA_INFO][name] for name in ("frame", "start"))
        framed = resample_in_plane(image, frame, _ratios(self.size, frame), self.nearest)
        return window(framed, [-first for first in start], step[TraceKeys.ORIG_SIZE], self.fill)

    def _log_loss(self, image: MetaTensor, framed: MetaTensor) -> None:
        total, kept = (int((one.as_tensor() > self.fill).sum()) for one in (image, framed))
        name = source_name(image)
        if kept < total and name not in self._logged:
            self._logged.add(name)
            logger.warning(
                "%s: the crop of %d x %d to %d x %d pixels loses %.1f %% of the foreground.",
                *(name, *image.shape[1:3], *framed.shape[1:3], 100 * (total - kept) / total),
            )


class FitInPlaned(MapTransform, InvertibleTransform):
    """`FitInPlane` on ``keys``.

    Args:
        size, rule, limit: as there, the same for all keys.
        fill: one value or one per key; one value is for the images, label maps then get 0.
        nearest: one value or one per key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        rule: str = "crop",
        limit: int = 256,
        fill: float | Sequence[float] = -1.0,
        nearest: bool | Sequence[bool] = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        flags = np.broadcast_to(nearest, len(self.keys)).tolist()
        self.fit = {
            key: FitInPlane(size, rule, limit, level, flag)
            for key, level, flag in zip(self.keys, one_per_key(fill, flags), flags, strict=True)
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.fit[key](data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.fit[key].inverse(data[key]) for key in self.key_iterator(dict(data))}}


def _ratios(old: Sequence[int], new: Sequence[int]) -> list[float]:
    return [have / want for have, want in zip(old, new, strict=True)]
