"""From the values of a label file to class indices, with every surprise an error that names the file."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from torch import Tensor

from .naming import source_name

_MOST_NAMED = 5  # values in a message


class LabelMap(Transform):
    """Label map of file values -> one of class indices; type and geometry stay.

    Args:
        values: value in the files -> class index (several values may mean one class); background has index 0.
        allow_empty: let maps pass that hold background only.
    """

    def __init__(self, values: Mapping[int, int], allow_empty: bool = False) -> None:
        self.values = {int(value): int(index) for value, index in values.items()}
        self.allow_empty = allow_empty
        if 0 not in self.values.values() or min(self.values.values()) < 0:
            raise ValueError(f"LabelMap: {self.values} must map to 0 (background) and positive numbers.")

    def __call__(self, label: Tensor) -> Tensor:
        """Label map of any shape -> the same with indices.

        Raises:
            ValueError: a value is not in the map (each is named with its number of voxels), or there is background
                only; the message names the file.
        """
        array = label.as_tensor() if isinstance(label, MetaTensor) else label
        found, inverse, counts = torch.unique(array, return_inverse=True, return_counts=True)
        unknown = [
            (value, int(count))
            for value, count in zip(found.tolist(), counts, strict=True)
            if value not in self.values  # 0.5 is not, 420.0 is
        ]
        if unknown:
            named = ", ".join(f"{value:g} ({count} voxels)" for value, count in unknown[:_MOST_NAMED])
            named += f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
            raise ValueError(
                f"{source_name(label)} holds label value(s) that are not of this data set: {named}. Known are "
                f"{', '.join(map(str, self.values))}. Correct the file (labels are resampled by nearest neighbor), "
                "or choose the data set it belongs to."
            )
        indices = [self.values[int(value)] for value in found.tolist()]
        if not any(indices) and not self.allow_empty:
            raise ValueError(f"{source_name(label)} is empty: every voxel is background. Take the case out.")
        mapped = torch.as_tensor(indices, dtype=array.dtype, device=array.device)[inverse]
        return MetaTensor(mapped).copy_meta_from(label) if isinstance(label, MetaTensor) else mapped


class LabelMapd(MapTransform):
    """`LabelMap` on ``keys``; arguments as there."""

    def __init__(
        self,
        keys: KeysCollection,
        values: Mapping[int, int],
        allow_empty: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.map = LabelMap(values, allow_empty)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.map(data[key]) for key in self.key_iterator(dict(data))}}


def file_values(values: Mapping[int, int]) -> tuple[int, ...]:
    """Value to write for every class index 0..K-1: the first of ``values`` that means it.

    Raises:
        ValueError: the indices leave a gap.
    """
    first: dict[int, int] = {}
    for value, index in values.items():
        first.setdefault(int(index), int(value))
    if sorted(first) != list(range(len(first))):
        raise ValueError(f"file_values: the class indices {sorted(first)} must be 0..{len(first) - 1} without gaps.")
    return tuple(first[index] for index in range(len(first)))
