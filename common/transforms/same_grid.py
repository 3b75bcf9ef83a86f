"""Volumes that are translated into each other must lie on one grid; nothing is resampled behind the user's back."""

import itertools
from collections.abc import Hashable, Mapping
from typing import Any

import nibabel
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray

from .naming import source_name


class SameGridd(MapTransform):
    """Refuse an item whose volumes differ in shape or place; changes nothing.

    Args:
        keys: volumes (C, X, Y, Z); channels may differ.
        tolerance_mm: how far apart the two places of one voxel may be at most, anywhere in the volume.
    """

    def __init__(self, keys: KeysCollection, tolerance_mm: float = 0.01, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.tolerance_mm = tolerance_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Pass the item on.

        Raises:
            ValueError: two volumes differ; the message names both files and what differs.
        """
        item = dict(data)
        keys = list(self.key_iterator(item))
        for first, other in itertools.product(keys[:1], keys[1:]):
            differences = _differences(item[first], item[other], self.tolerance_mm)
            if differences:
                raise ValueError(
                    f"{source_name(item[first])} ({first}) and {source_name(item[other])} ({other}) do not lie on one "
                    f"grid: {'; '.join(differences)}. Register them if needed and resample one onto the other."
                )
        return item


def _differences(one: MetaTensor, two: MetaTensor, tolerance_mm: float) -> list[str]:
    """What differs, in words; empty for one grid."""
    shapes = [tuple(image.shape[1:]) for image in (one, two)]
    affines = [image.affine.numpy(force=True) for image in (one, two)]
    found = [] if shapes[0] == shapes[1] else [f"shapes {shapes[0]} and {shapes[1]}"]
    apart = _largest_displacement(affines[0] - affines[1], shapes[0])
    if apart <= tolerance_mm:
        return found
    spacings = [nibabel.affines.voxel_sizes(affine) for affine in affines]
    if not np.allclose(spacings[0], spacings[1], rtol=1e-3):
        found.append("spacing {} and {} mm".format(*(" x ".join(f"{size:.4g}" for size in each) for each in spacings)))
    axes = ["".join(nibabel.aff2axcodes(affine)) for affine in affines]
    if axes[0] != axes[1]:
        found.append(f"orientation {axes[0]} and {axes[1]}")
    else:
        directions = [affine[:3, :3] / spacing for affine, spacing in zip(affines, spacings, strict=True)]
        angle = np.degrees(np.arccos(np.clip((directions[0] * directions[1]).sum(axis=0), -1, 1))).max()
        if angle > 0.01:
            found.append(f"axes {angle:.2f} degrees apart")
    found.append(f"origins {np.linalg.norm(affines[0][:3, 3] - affines[1][:3, 3]):.3g} mm apart")
    return [*found, f"voxels up to {apart:.3g} mm apart"]


def _largest_displacement(change: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Longest ``change @ index`` (mm): of a linear map over a box, it is found at a corner."""
    corners = np.array([(*index, 1) for index in itertools.product(*((0, size - 1) for size in shape))])  # (8, 4)
    return float(np.linalg.norm((corners @ change.T)[:, :3], axis=1).max())
