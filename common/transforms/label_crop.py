"""Cut images and their label map to one in-plane size, and say what of the labels is lost."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
from torch import Tensor

from .grids import centered_start, window
from .naming import source_name

logger = logging.getLogger(__name__)

CENTERS = ("image", "label")


class CropAboutLabeld(MapTransform, InvertibleTransform):
    """Crop or pad all ``keys`` alike to ``spatial_size`` in plane; slices stay as they are.

    Where the image is large enough the window stays inside it; otherwise it is padded by 0, so images must have their
    black at 0 by now. A warning names the file of each label map that loses more than ``tolerance`` of its labelled
    voxels.

    Args:
        keys: volumes (C, X, Y, Z) on one grid.
        label_key: the label map, background 0. It may be missing from an item (an unlabelled image) where the crop
            goes about the image.
        spatial_size: (X, Y) of the result.
        about: "image" centers the window on the image, "label" on the bounding box of all that is labelled.
        pad: False refuses images that are smaller than the window.
        tolerance: share of the labelled voxels that may go without a word.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        spatial_size: Sequence[int],
        about: str = "image",
        pad: bool = True,
        tolerance: float = 0.005,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(spatial_size) != 2 or min(spatial_size) < 1:
            raise ValueError(f"CropAboutLabeld: spatial_size must be two positive numbers (x, y), not {spatial_size}.")
        if about not in CENTERS:
            raise ValueError(f"CropAboutLabeld: about={about!r} is unknown; choose one of {', '.join(CENTERS)}.")
        if not 0 <= tolerance <= 1:
            raise ValueError(f"CropAboutLabeld: tolerance={tolerance} must lie in [0, 1].")
        self.label_key, self.size, self.about = label_key, tuple(int(side) for side in spatial_size), about
        self.pad, self.tolerance = pad, tolerance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """(C, X, Y, Z) -> (C, *spatial_size, Z) for every key.

        Raises:
            KeyError: a key, or the label map to go about, is missing.
            ValueError: there is nothing labelled to go about, or an image is too small; names the file.
        """
        item = dict(data)
        keys = list(self.key_iterator(item))
        if not keys:
            return item
        if self.about == "label" and self.label_key not in item:
            raise KeyError(f"CropAboutLabeld: no {self.label_key!r} in the item, but the crop goes about it.")
        start = self._start(item.get(self.label_key), item[keys[0]])
        if self.label_key in item:
            self._report_loss(item[self.label_key], start)
        return {**item, **{key: self._crop(item[key], start) for key in keys}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Back to the size and place before the crop; what was cut off is 0."""
        item = dict(data)
        return {**item, **{key: self._uncrop(item[key]) for key in self.key_iterator(item)}}

    def _start(self, label: Tensor | None, image: Tensor) -> list[int]:
        """First voxel of the window along x and y."""
        plane = list(image.shape[1:3])
        if not self.pad and any(have < need for have, need in zip(plane, self.size, strict=True)):
            raise ValueError(
                f"{source_name(image)} has {plane[0]} x {plane[1]} pixels, {self.size[0]} x {self.size[1]} are needed. "
                "Take a smaller spatial_size, or set pad to true."
            )
        centered = centered_start(plane, self.size)
        if self.about == "image" or label is None:
            return centered
        labelled = (label.as_tensor() if isinstance(label, MetaTensor) else label) != 0
        if not labelled.any():
            raise ValueError(f"{source_name(label)} is empty: there is no label to crop about. Take the case out.")
        start = []
        for axis, (have, need, middle) in enumerate(zip(plane, self.size, centered, strict=True), start=1):
            if have <= need:
                start.append(middle)
                continue
            hits = labelled.movedim(axis, 0).flatten(1).any(dim=1).nonzero().flatten()
            about = (int(hits[0]) + int(hits[-1]) + 1) // 2
            start.append(min(max(about - need // 2, 0), have - need))
        return start

    def _crop(self, image: MetaTensor, start: Sequence[int]) -> MetaTensor:
        if not isinstance(image, MetaTensor):
            image = MetaTensor(image)
        result = window(image, [*start, 0], (*self.size, image.shape[3]), 0.0)
        self.push_transform(result, orig_size=tuple(image.shape[1:]), extra_info={"start": [*start, 0]})
        return result

    def _uncrop(self, image: MetaTensor) -> MetaTensor:
        step = self.pop_transform(image)
        start = step[TraceKeys.EXTRA_INFO]["start"]
        return window(image, [-first for first in start], step[TraceKeys.ORIG_SIZE], 0.0)

    def _report_loss(self, label: Tensor, start: Sequence[int]) -> None:
        kept = [slice(max(first, 0), first + side) for first, side in zip(start, self.size, strict=True)]
        total = int(torch.count_nonzero(label))
        lost = total - int(torch.count_nonzero(label[:, kept[0], kept[1]]))
        if lost > self.tolerance * total:
            logger.warning(
                "%s: the crop of %d x %d to %d x %d pixels loses %.1f %% of the labelled voxels; a larger image size "
                "keeps them.",
                *(source_name(label), *label.shape[1:3], *self.size, 100 * lost / total),
            )
