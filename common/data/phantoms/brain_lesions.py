"""Lesions of the brain: glioma with edema, acute stroke, old spots in the white matter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from .brain_deep import Deep
from .brain_parameters import Glioma, Spot, Wedge
from .brain_scene import Box, Scene
from .brain_shapes import Point, ellipsoid
from .brain_space import Region

Array = NDArray[np.floating]

_RIM_MM = 1.8  # least thickness of the enhancing rim


@dataclass(frozen=True)
class Shown:
    """Which lesions a head has; ``growth`` multiplies the radius of its glioma."""

    glioma: bool = False
    stroke: bool = False
    chronic: bool = False
    growth: float = 1.0


class Lesions:
    """Paints the lesions of one brain, limited by its tissues."""

    def __init__(self, deep: Deep, shown: Shown) -> None:
        self.deep, self.shown = deep, shown
        self.brain, self.head = deep.brain, deep.head
        self.parameters, self.fields = deep.cranium.parameters, deep.cranium.fields

    def paint_under(self, scene: Scene) -> None:
        """What nuclei and ventricles will cover: edema and periventricular caps."""
        if self.shown.glioma:
            self._paint_edema(scene, self.parameters.glioma)
        if self.shown.chronic:
            for center in ((13, 35, 9), (-13, 35, 9), (26, -66, 5), (-26, -66, 5), (15, -27, 23), (-15, -27, 23)):
                self._paint_spot(scene, Spot(center, self.parameters.cap_mm))

    def paint_over(self, scene: Scene) -> None:
        """Spots, stroke and tumor, the ventricles spared."""
        if self.shown.chronic:
            for spot in self.parameters.spots:
                self._paint_spot(scene, spot)
        if self.shown.stroke:
            for wedge in self.parameters.wedges:
                self._paint_wedge(scene, wedge)
        if self.shown.glioma:
            self._paint_tumor(scene, self.parameters.glioma)

    def _near(self, center: Point, reach: Point | float) -> Region:
        """Voxels around a point, all within the brain's box."""
        part = self.head.around(center, reach)
        limits = zip(part.box, self.brain.region.box, strict=True)
        box = [slice(max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start))) for a, b in limits]
        return self.head.whole.cut((box[0], box[1], box[2]))

    def _of_brain(self, values: Array, box: Box) -> Array:
        """Part of an array of the brain's box."""
        start = [part.start for part in self.brain.region.box]
        cut = [slice(part.start - first, part.stop - first) for part, first in zip(box, start, strict=True)]
        return values[cut[0], cut[1], cut[2]]

    def _radius(self, glioma: Glioma) -> float:
        return glioma.radius_mm * self.shown.growth

    def _paint_edema(self, scene: Scene, glioma: Glioma) -> None:
        """An ellipsoid wider than the tumor, in white matter only: it sends fingers between the gyri."""
        radius = self._radius(glioma) * glioma.edema
        stretch_x, stretch_y = glioma.edema_stretch
        part = self._near(glioma.center, 1.4 * radius + 16)
        semi_axes = (radius * stretch_x, radius * stretch_y, radius * 0.9)
        phi = ellipsoid(*part.points, glioma.center, semi_axes) + 7 * part.field(self.fields.edema)
        scene.paint(part.box, np.maximum(phi, self._of_brain(self.brain.white, part.box) + 0.3), "edema")

    def _paint_tumor(self, scene: Scene, glioma: Glioma) -> None:
        """Enhancing tissue, and in it the necrotic core, which nowhere touches anything else."""
        radius = self._radius(glioma)
        part = self._near(glioma.center, radius + 18)
        x, y, z = (axis - c for axis, c in zip(part.points, glioma.center, strict=True))
        distance = np.sqrt(x * x + y * y + z * z)
        distance += 3.8 * part.field(self.fields.shape) + 1.8 * part.field(self.fields.detail)
        limits = np.maximum(
            self._of_brain(self.brain.pial, part.box), 1 - self._of_brain(self.deep.ventricles, part.box)
        )
        tumor = np.maximum(distance - radius, limits)
        core = distance + 2.2 * part.field(self.fields.core) - glioma.core * radius
        grid = self.head.grid
        gradient = np.gradient(tumor, grid.pixel_mm, grid.pixel_mm, grid.slice_mm) if min(tumor.shape) > 1 else [1.0]
        steepness = np.sqrt(sum(np.square(g) for g in gradient))
        inset = max(_RIM_MM, 1.2 * grid.pixel_mm)
        core = np.maximum(core, tumor / np.maximum(steepness, 0.3) + inset)
        enclosed = binary_erosion(tumor < 0, border_value=0)  # by the six neighbors
        scene.paint(part.box, tumor, "enhancing")
        scene.paint(part.box, np.where(enclosed, core, np.maximum(core, 0.05 * grid.pixel_mm)), "core")

    def _paint_wedge(self, scene: Scene, wedge: Wedge) -> None:
        """The territory of a branch: a sector from the cortex inwards, cut by fluid, ventricles and tentorium."""
        direction = (np.sin(wedge.direction), np.cos(wedge.direction))
        center = (float(50 * direction[0]), float(55 * direction[1]), wedge.center_z)
        part = self._near(center, (56, 56, wedge.half_height + 12))
        x, y, z = part.points
        radius = np.sqrt(x * x + y * y)
        angle = np.arctan2(x * direction[1] - y * direction[0], x * direction[0] + y * direction[1])
        phi = np.maximum(radius * (np.abs(angle) - wedge.half_angle), 26 - radius)
        phi = np.maximum(phi, np.abs(z - wedge.center_z) - wedge.half_height)
        phi += 3.4 * part.field(self.fields.shape) + 1.4 * part.field(self.fields.detail)
        limits = np.maximum(
            self._of_brain(self.brain.pial, part.box) + 0.3, 1 - self._of_brain(self.deep.ventricles, part.box)
        )
        scene.paint(part.box, np.maximum(phi, limits), "stroke")

    def _paint_spot(self, scene: Scene, spot: Spot) -> None:
        reach = spot.radius_mm
        part = self._near(spot.center, 1.8 * reach + 3)
        phi = ellipsoid(*part.points, spot.center, (0.9 * reach, 1.25 * reach, 1.1 * reach))
        phi += 0.35 * reach * part.field(self.fields.detail)
        scene.paint(part.box, np.maximum(phi, self._of_brain(self.brain.white, part.box) + 0.5), "chronic")
