"""Where the head or brain is: foreground masks of volumes, and a clean background outside of them."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor
from numpy.typing import NDArray

from .grids import check_mask
from .intensity import AIR_HU, check_modality, is_ct, one_modality_per_key
from .naming import source_name

logger = logging.getLogger(__name__)

RULES = ("auto", "positive", "head")
_NEGATIVE_SHARE = 0.01  # more is CT
_SMALL_SHARE = 0.01  # of a volume; no head and no body is that small
_LEAST_ZERO_SHARE = 0.02  # of a volume that is said to be skull-stripped, in case it was cropped to the brain
_STRIPPED_SHARE = 0.3  # a volume with at least this share of exact zeros has had its background removed
_CLOSING_MM = 8.0  # radius; bone is dark in MR, and where the scalp is torn the skull would count as background
_PART_OF_HEAD = 0.05  # of the largest part; less is noise, a fiducial or a head-rest
_BRIGHT_PERCENTILE = 99.5  # spikes above it do not move the threshold


class Foreground(Transform):
    """Volume -> uint8 mask of what is not background.

    ``positive`` takes voxels above 0 (skull-stripped or masked volumes). ``head`` takes the large connected
    parts above Otsu's threshold (MR or CT of a head), closes gaps and fills holes in each axial plane, which leaves no
    hole in the volume either, and keeps the largest part of that. ``auto`` is ``positive`` where at least 30 % of
    the voxels are exactly 0 and none is negative, else ``head``.

    Args:
        rule: one of these.
    """

    def __init__(self, rule: str = "auto") -> None:
        if rule not in RULES:
            raise ValueError(f"Foreground: rule={rule!r} is unknown. Known are {', '.join(RULES)}.")
        self.rule = rule

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """(1, X, Y, Z) -> (1, X, Y, Z) uint8, 1 in the foreground.

        Raises:
            ValueError: the volume is constant, has several channels, or nothing of it is foreground.
        """
        image = convert_to_tensor(image, track_meta=True)
        if len(image) != 1:
            raise ValueError(f"{source_name(image)} has {len(image)} channels; a foreground is found in one.")
        voxels = image.as_tensor()[0].numpy(force=True)  # (X, Y, Z)
        if voxels.min() == voxels.max():
            what = "all zero" if not voxels.any() else f"constant ({voxels.flat[0]:g})"
            raise ValueError(
                f"{source_name(image)} is {what}, it has no foreground. Remove the case or export it again."
            )
        rule = self.rule
        if rule == "auto":
            rule = "positive" if voxels.min() >= 0 and (voxels == 0).mean() >= _STRIPPED_SHARE else "head"
        if self.rule == "positive" and (voxels < 0).mean() > _NEGATIVE_SHARE:
            raise ValueError(
                f"{source_name(image)} is not skull-stripped MR, by the rule positive: {(voxels < 0).mean():.1%} "
                f"of its voxels are negative (lowest {voxels.min():g}); it looks like CT in Hounsfield units, or like "
                "standardized MR. Use the rule 'head' (foreground) for CT, or give the image as the scanner wrote it."
            )
        if self.rule == "positive" and (voxels == 0).mean() < _LEAST_ZERO_SHARE:
            logger.warning(
                "%s: only %.1f %% of the voxels are 0; if it is not skull-stripped, use the rule 'head' (foreground).",
                source_name(image),
                100 * (voxels == 0).mean(),
            )
        mask = voxels > 0 if rule == "positive" else _head_of_any_orientation(voxels, image.affine.numpy(force=True))
        if not mask.any():
            raise ValueError(
                f"{source_name(image)} has no foreground by the rule {rule!r}: no voxel is above "
                f"{'0' if rule == 'positive' else 'the threshold'}. Use another rule, or remove the case."
            )
        return MetaTensor(torch.from_numpy(mask.astype(np.uint8))[None].to(image.device)).copy_meta_from(image)


class ForegroundMaskd(MapTransform):
    """Add the `Foreground` of the volume under ``keys`` as ``mask_key``; a mask that is there is used, above 0.

    Args:
        keys: the one volume that the mask is made from.
        mask_key: where the mask goes.
        rule: see `Foreground`.
    """

    def __init__(self, keys: KeysCollection, mask_key: str = "mask", rule: str = "auto") -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"ForegroundMaskd: one key is needed, the volume to take the mask from, not {self.keys}.")
        self.mask_key, self.foreground = mask_key, Foreground(rule)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Raises ValueError where there is no foreground, or the given mask is empty; warns of one that is tiny."""
        mask = self._mask(data)
        share = float(mask.as_tensor().float().mean())
        if share < _SMALL_SHARE:
            logger.warning(
                "%s: only %.2f %% of the volume is foreground; check the mask, or the rule (foreground) that made it.",
                source_name(mask),
                100 * share,
            )
        return {**data, self.mask_key: mask}

    def _mask(self, data: Mapping[Hashable, Any]) -> MetaTensor:
        """(1, X, Y, Z) uint8."""
        if self.mask_key not in data:
            return self.foreground(data[self.keys[0]])
        given = convert_to_tensor(data[self.mask_key], track_meta=True)
        inside = given.as_tensor() > 0
        if not inside.any():
            raise ValueError(
                f"{source_name(given)}: the mask is empty. Remove it to have one made, or export it again."
            )
        return MetaTensor(inside.to(torch.uint8)).copy_meta_from(given)


class ClearBackgroundd(MapTransform):
    """Set voxels outside of the mask to air: MR to 0, CT to -1024 HU (tables and head-rests go).

    Args:
        keys: volumes on the grid of the mask.
        mask_key: foreground (1, X, Y, Z).
        modalities: one per key; ``ct`` (any case) is in HU, every other name is MR.
    """

    def __init__(
        self, keys: KeysCollection, mask_key: str, modalities: Sequence[str], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.modality = one_modality_per_key(self.keys, modalities)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Raises ValueError where a mask is on another grid, or a volume is not what ``modalities`` says."""
        result = dict(data)
        mask = result[self.mask_key]
        for key in self.key_iterator(result):
            image = convert_to_tensor(result[key], track_meta=True)
            check_mask(image, mask)
            check_modality(image, self.modality[key], str(key))
            background = AIR_HU if is_ct(self.modality[key]) else 0.0
            cleared = torch.where(mask.as_tensor() > 0, image.as_tensor(), background)
            result[key] = MetaTensor(cleared.to(image.dtype)).copy_meta_from(image)
        return result


def _head_of_any_orientation(voxels: NDArray[Any], affine: NDArray[Any]) -> NDArray[np.bool_]:
    """`_head` in planes that are as nearly axial as the grid has any, however the file stores them."""
    spacing = affine_to_spacing(affine)
    axial = int(np.abs(affine[2, :3] / spacing).argmax())  # the array's axis nearest to head - feet
    mask = _head(np.moveaxis(voxels, axial, 2), np.delete(spacing, axial).tolist())
    return np.moveaxis(mask, 2, axial)


def _head(voxels: NDArray[Any], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """(X, Y, Z): large parts above Otsu's threshold, gaps between them closed, holes filled; the largest of that."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    # below -1024 HU is no tissue but the scanner's mark for "outside of the field of view"
    levels = np.clip(voxels, AIR_HU, np.percentile(voxels, _BRIGHT_PERCENTILE))
    above = voxels > (threshold_otsu(levels) if levels.min() < levels.max() else levels.min())
    if not above.any():
        return above
    parts = _large_parts(above, _PART_OF_HEAD)  # where the skull is dark, the scalp is a part of its own
    planes = (ndimage.binary_fill_holes(_closed(parts[:, :, z], spacing_mm)) for z in range(parts.shape[2]))
    return _large_parts(np.stack(list(planes), axis=2), 1.0)


def _large_parts(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Connected parts of a mask that have at least ``share`` of the voxels of the largest."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # the background
    return (sizes >= share * sizes.max())[parts] & mask


def _closed(plane: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """Closing of (X, Y) by a disk: no gap that the disk does not fit into stays open."""
    from scipy.ndimage import distance_transform_edt

    if not plane.any():
        return plane
    border = [int(np.ceil(_CLOSING_MM / spacing)) + 1 for spacing in spacing_mm]
    padded = np.pad(plane, [(width, width) for width in border])
    dilated = distance_transform_edt(~padded, sampling=spacing_mm) <= _CLOSING_MM
    closed = distance_transform_edt(dilated, sampling=spacing_mm) > _CLOSING_MM
    return closed[border[0] : -border[0], border[1] : -border[1]]
