"""From voxels to places in the chest: millimeters to the left, to the back and upwards from the mitral valve."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .brain_scene import Box
from .brain_shapes import Point
from .painting import pixel_centers
from .whole_heart_fields import WholeHeartFields
from .whole_heart_parameters import WholeHeartParameters

Array = NDArray[np.floating]
Points = tuple[Array, Array, Array]

HEIGHT_MM = 144.0  # of the stack, whatever the number of slices
_WARP_MM = 3.0
_MARGIN_MM = 12.0  # by which a warped shape may leave its box


@dataclass(frozen=True)
class WholeHeartGrid:
    """Voxel centers of a stack of axial slices; axis 0 runs to the left, axis 1 to the back, axis 2 upwards."""

    size: int
    fov_mm: float
    slices: int

    @property
    def pixel_mm(self) -> float:
        return self.fov_mm / self.size

    @property
    def slice_mm(self) -> float:
        return HEIGHT_MM / self.slices

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, self.slices

    @property
    def axes(self) -> Points:
        """Coordinates (mm) along the axes, 0 in the middle of the stack."""
        centers = pixel_centers(self.size, self.fov_mm)
        return centers, centers, pixel_centers(self.slices, HEIGHT_MM)


@dataclass(frozen=True)
class Frame:
    """The heart's own axes, each (left, back, up): long axis base to apex, towards the right ventricle, downwards."""

    axis: Point
    right: Point
    down: Point

    @classmethod
    def of(cls, parameters: WholeHeartParameters) -> "Frame":
        ca, sa = math.cos(parameters.azimuth), math.sin(parameters.azimuth)
        ce, se = math.cos(parameters.elevation), math.sin(parameters.elevation)
        return cls((ce * ca, -ce * sa, -se), (-sa, -ca, 0.0), (-se * ca, se * sa, -ce))

    def place(self, along: float, toward: float, down: float) -> Point:
        """Chest coordinates of a point given along the three axes from the mitral valve."""
        found = [along * a + toward * r + down * d for a, r, d in zip(self.axis, self.right, self.down, strict=True)]
        return found[0], found[1], found[2]

    def coordinates(self, x: Array, y: Array, z: Array) -> Points:
        """In-plane coordinates of the short-axis phantom (the right ventricle is at negative x) and depth along it."""

        def along(direction: Point) -> Array:
            return direction[0] * x + direction[1] * y + direction[2] * z

        return -along(self.right), along(self.down), along(self.axis)


class Chest:
    """All voxels of a grid in chest coordinates.

    Args:
        origin: place of the mitral valve's middle in the coordinates of the grid.

    Attributes:
        axes: chest coordinates along the three axes of the grid.
    """

    def __init__(self, grid: WholeHeartGrid, origin: Point, fields: WholeHeartFields) -> None:
        self.grid, self.fields = grid, fields
        x, y, z = (axis - start for axis, start in zip(grid.axes, origin, strict=True))
        self.axes: Points = (x, y, z)

    @cached_property
    def straight(self) -> Points:
        """Coordinates that broadcast to the whole grid, for what is not warped: bones and chest wall."""
        x, y, z = (axis.astype(np.float32) for axis in self.axes)
        return x[:, None, None], y[None, :, None], z[None, None, :]

    @cached_property
    def warped(self) -> Points:
        """Coordinates (X, Y, Z) with the case's warp, for soft organs."""
        shifted = [
            place + np.float32(_WARP_MM) * warp.on_grid(*self.axes).astype(np.float32)
            for place, warp in zip(self.straight, self.fields.warp, strict=True)
        ]
        return shifted[0], shifted[1], shifted[2]

    @property
    def whole(self) -> Box:
        """All voxels."""
        return tuple(slice(0, count) for count in self.grid.shape)  # type: ignore[return-value]

    def box(self, low: Point, high: Point, margin: float = _MARGIN_MM) -> Box:
        """Voxels that a shape within ``low``..``high`` may touch."""
        parts = []
        for axis, first, last in zip(self.axes, low, high, strict=True):
            start, stop = np.searchsorted(axis, (first - margin, last + margin))
            parts.append(slice(int(start), int(stop)))
        return parts[0], parts[1], parts[2]

    def around(self, points: list[Point], radius: float) -> Box:
        """Voxels within ``radius`` of the box of ``points``."""
        low = tuple(min(values) - radius for values in zip(*points, strict=True))
        high = tuple(max(values) + radius for values in zip(*points, strict=True))
        return self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def points(self, box: Box) -> Points:
        """Warped coordinates of a box."""
        x, y, z = self.warped
        return x[box], y[box], z[box]
