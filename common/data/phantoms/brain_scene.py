"""A painted head as a list of layers, rendered once per contrast."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .brain_tissues import NAMES
from .painting import blend, coverage

Array = NDArray[np.floating]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Layer:
    """Share (bx, by, bz) of each voxel of ``box`` that a tissue covers, over everything painted before."""

    tissue: str
    box: Box
    share: Array


class Scene:
    """Painter's list of a head on one grid; later layers hide earlier ones.

    Args:
        shape: grid (X, Y, Z).
        pixel_mm: in-plane pixel, over which borders are averaged.
    """

    def __init__(self, shape: tuple[int, int, int], pixel_mm: float) -> None:
        self.shape, self.pixel_mm = shape, pixel_mm
        self.layers: list[Layer] = []

    def paint(self, box: Box, phi: Array, tissue: str) -> None:
        """Add the shape ``phi`` (mm, negative inside; on ``box``)."""
        share = coverage(np.asarray(phi, dtype=np.float32), self.pixel_mm)
        if share.max(initial=0) > 0:
            self.layers.append(Layer(tissue, box, share))

    def render(self, values: Mapping[str, float]) -> NDArray[np.float32]:
        """Image (X, Y, Z) in which every tissue has its value; mixing is linear."""
        canvas = np.full(self.shape, values["air"], dtype=np.float32)
        for layer in self.layers:
            blend(canvas[layer.box], layer.share, values[layer.tissue])
        return canvas

    def labels(self) -> NDArray[np.uint8]:
        """Index in ``NAMES`` of the last tissue painted over each voxel's center."""
        found = np.zeros(self.shape, dtype=np.uint8)
        for layer in self.layers:
            found[layer.box][layer.share > 0.5] = NAMES.index(layer.tissue)
        return found

    def fractions(self) -> NDArray[np.float32]:
        """Fraction (X, Y, Z, tissue) of every tissue in each voxel; they sum to 1.

        Goes from the last layer to the first with the share that is still visible, one pass for all tissues.
        """
        found = np.zeros((len(NAMES), *self.shape), dtype=np.float32)
        visible = np.ones(self.shape, dtype=np.float32)
        for layer in reversed(self.layers):
            seen = visible[layer.box] * layer.share
            found[NAMES.index(layer.tissue)][layer.box] += seen
            visible[layer.box] -= seen
        found[NAMES.index("air")] += visible
        return np.moveaxis(found, 0, -1)
