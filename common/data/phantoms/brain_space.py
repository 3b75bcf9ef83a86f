"""From voxels to head coordinates: RAS mm with the origin near the anterior commissure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .brain_fields import AnatomyFields
from .brain_parameters import BrainParameters
from .brain_scene import Box
from .brain_shapes import Point
from .painting import pixel_centers
from .random_field import SmoothField

Array = NDArray[np.floating]

SLICE_MM, SLICE_CENTER_MM = 4.5, 8.0
_GRID_CENTER_Y = 4.0  # of the field of view: the nose needs more room than the occiput
_WARP_MM = 2.2


@dataclass(frozen=True)
class Grid:
    """Voxel centers (mm, patient space) along each axis; x to the right, y to the front, z up.

    ``isotropic`` slices are as thick as the pixels, their number covers the height of the usual 32 slices.
    """

    size: int
    fov_mm: float
    slices: int
    isotropic: bool = False

    @property
    def pixel_mm(self) -> float:
        return self.fov_mm / self.size

    @property
    def slice_mm(self) -> float:
        return self.pixel_mm if self.isotropic else SLICE_MM

    @property
    def shape(self) -> tuple[int, int, int]:
        depth = round(self.slices * SLICE_MM / self.slice_mm) if self.isotropic else self.slices
        return self.size, self.size, depth

    @property
    def axes(self) -> tuple[Array, Array, Array]:
        centers = pixel_centers(self.size, self.fov_mm)
        depth = self.shape[2]
        z = SLICE_CENTER_MM + (2 * np.arange(depth) + 1 - depth) * self.slice_mm / 2
        return centers, centers + _GRID_CENTER_Y, z


@dataclass(frozen=True)
class Region:
    """A box of voxels with their head coordinates (bx, by, bz) in mm; ``axes`` are the patient coordinates."""

    box: Box
    x: Array
    y: Array
    z: Array
    axes: tuple[Array, Array, Array]

    @property
    def points(self) -> tuple[Array, Array, Array]:
        return self.x, self.y, self.z

    def field(self, field: SmoothField) -> Array:
        """Values of a field, float32; fields live in patient space."""
        return field.on_grid(*self.axes).astype(np.float32)

    def cut(self, box: Box) -> "Region":
        """The part in ``box``, given in voxels of the whole grid; this region must be the whole grid."""
        axes = tuple(axis[part] for axis, part in zip(self.axes, box, strict=True))
        return Region(box, self.x[box], self.y[box], self.z[box], (axes[0], axes[1], axes[2]))


class Head:
    """Head coordinates of every voxel: pose and size undone, then a smooth warp that breaks the symmetry."""

    def __init__(self, parameters: BrainParameters, fields: AnatomyFields, grid: Grid) -> None:
        self.grid = grid
        x, y, z = grid.axes
        dx, dy = x - parameters.shift[0], y - parameters.shift[1]
        rotation = _rotation(parameters.pitch, parameters.roll, parameters.yaw)
        found = []
        for column, scale, warp in zip(rotation.T, parameters.scale, fields.warp, strict=True):
            along = column[0] * dx[:, None, None] + column[1] * dy[None, :, None] + column[2] * z[None, None, :]
            found.append((along / scale + _WARP_MM * warp.on_grid(x, y, z)).astype(np.float32))
        box = (slice(0, len(x)), slice(0, len(y)), slice(0, len(z)))
        self.whole = Region(box, found[0], found[1], found[2], grid.axes)

    def region(self, low: Point, high: Point) -> Region:
        """Smallest box of voxels that holds all points within ``low``..``high`` (head coordinates)."""
        parts = [slice(0, n) for n in self.grid.shape]
        for axis in (2, 1, 0, 2):
            values = self.whole.points[axis][tuple(parts)]
            others = tuple(other for other in range(3) if other != axis)
            near = (values.max(axis=others) >= low[axis]) & (values.min(axis=others) <= high[axis])
            hits = np.flatnonzero(near)
            start = parts[axis].start
            parts[axis] = slice(start + int(hits[0]), start + int(hits[-1]) + 1) if hits.size else slice(start, start)
            if not hits.size:
                break
        return self.whole.cut((parts[0], parts[1], parts[2]))

    def around(self, center: Point, reach: Point | float) -> Region:
        """Region within ``reach`` mm of a point."""
        rx, ry, rz = (reach,) * 3 if isinstance(reach, (int, float)) else reach
        return self.region(
            (center[0] - rx, center[1] - ry, center[2] - rz), (center[0] + rx, center[1] + ry, center[2] + rz)
        )

    def sides(self, low: Point, high: Point) -> Iterator[Region]:
        """The region and its mirror image, both with x counted away from the midline: paired organs are drawn once."""
        for side in (1, -1):
            near, far = sorted((side * low[0], side * high[0]))
            part = self.region((near, low[1], low[2]), (far, high[1], high[2]))
            yield Region(part.box, side * part.x, part.y, part.z, part.axes)


def _rotation(pitch: float, roll: float, yaw: float) -> NDArray[np.float64]:
    """Rotation about x (nodding), then y (tilting), then z (turning); degrees. Columns are the head's axes."""
    a, b, c = math.radians(pitch), math.radians(roll), math.radians(yaw)
    nod = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    tilt = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    turn = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return turn @ tilt @ nod
