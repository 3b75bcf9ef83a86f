"""What lies below and before the brain: orbits, sinuses, nose, ears, throat, the bones between."""

import numpy as np
from numpy.typing import NDArray

from .brain_cranium import SKIN_MM, Cranium
from .brain_scene import Scene
from .brain_shapes import Point, capsule, ellipsoid, smooth_max
from .brain_space import Region
from .painting import smooth_min

Array = NDArray[np.floating]

GLOBE = (31.0, 69.0, -23.0)
GLOBE_MM, SCLERA_MM = 12.0, 1.1
ORBIT_APEX = (13.0, 29.0, -20.0)
_RIM_MM = 1.8  # bone around air


class Face:
    """Paints the face of one head below its brain; call before the skull is painted."""

    def __init__(self, cranium: Cranium) -> None:
        self.cranium, self.head = cranium, cranium.head
        self.size = cranium.parameters.sinuses

    def paint(self, scene: Scene) -> None:
        """All of it, in painter's order."""
        self._base(scene)
        self._nose(scene)
        self._throat(scene)
        for part in self.head.sides((2, 18, -48), (60, 100, 4)):
            self._orbit(scene, part)
        self._ethmoid(scene)
        for part in self.head.sides((4, 30, -78), (54, 92, -28)):
            self._cavity(scene, part, self._maxillary(part))

    def paint_air_in_bone(self, scene: Scene) -> None:
        """Frontal and sphenoid sinus, mastoid cells, ear canals; call after the skull is painted."""
        s = self.size
        part = self.head.region((-26, 70, -34), (26, 108, 24))
        frontal = ellipsoid(np.abs(part.x), part.y, part.z, (9, 87, -7), (10 * s, 4.5 * s, 12 * s))
        frontal = smooth_max(frontal, 0.8 - np.abs(part.x), 1)  # septum
        self._cavity(scene, part, np.maximum(frontal, 3.2 - self.cranium.inner[part.box]))
        part = self.head.region((-22, 4, -62), (22, 44, -28))
        sphenoid = ellipsoid(*part.points, (0, 24, -43), (13 * s, 11 * s, 8 * s))
        self._cavity(scene, part, np.maximum(sphenoid, 0.6 - np.abs(part.x + 2)))
        for part in self.head.sides((34, -56, -66), (96, 2, -16)):
            self._ear(scene, part)

    def _within(self, part: Region, phi: Array, depth: float) -> Array:
        """The shape, at least ``depth`` mm below the skin."""
        return np.maximum(phi, self.cranium.outline[part.box] + depth)

    def _cavity(self, scene: Scene, part: Region, air: Array) -> None:
        """Air in a rim of bone and a thin coat of mucosa."""
        air = self._within(part, air, SKIN_MM + 4)
        scene.paint(part.box, self._within(part, air - _RIM_MM - 0.6, SKIN_MM + 1.5), "bone")
        scene.paint(part.box, air - 0.6, "mucosa")
        scene.paint(part.box, air, "air")

    def _base(self, scene: Scene) -> None:
        """Clivus and body of the sphenoid, zygomas, upper jaw, upper neck vertebra."""
        part = self.head.region((-34, -26, -86), (34, 48, -28))
        clivus = capsule(*part.points, (0, 16, -42), (0, -8, -72), 11, 8)
        wings = capsule(np.abs(part.x), part.y, part.z, (8, 22, -38), (30, 10, -50), 6, 3)
        clivus = smooth_min(clivus, wings, 6)
        scene.paint(part.box, clivus, "bone")
        scene.paint(part.box, clivus + 2, "marrow")
        part = self.head.region((-30, -66, -90), (30, -8, -52))
        ring = np.maximum(np.abs(ellipsoid(*part.points, (0, -35, -84), (20, 20, 300))) - 4, part.z + 62)
        scene.paint(part.box, ring, "bone")
        scene.paint(part.box, ring + 2, "marrow")
        for part in self.head.sides((20, 20, -70), (76, 90, -8)):
            arch = capsule(*part.points, (50, 60, -40), (66, 14, -38), 4, 2.6)
            rim = capsule(*part.points, (46, 64, -14), (48, 62, -40), 3.5, 4)
            jaw = ellipsoid(*part.points, (22, 66, -62), (20, 18, 10))
            scene.paint(part.box, self._within(part, smooth_min(smooth_min(arch, rim, 4), jaw, 4), 4), "bone")
            scene.paint(part.box, self._within(part, smooth_min(arch, jaw, 4) + 2, 6), "marrow")

    def _nose(self, scene: Scene) -> None:
        """Nasal cavity with septum and turbinates."""
        part = self.head.region((-24, 24, -82), (24, 112, -24))
        cavity = superbox(part, (0, 54, -54), (14, 27, 20))
        cavity = self._within(part, cavity, 5)
        scene.paint(part.box, cavity - 2, "bone")
        scene.paint(part.box, cavity, "mucosa")
        ax = np.abs(part.x)
        air = np.maximum(np.abs(ax - 4) - 1.3, cavity + 2)
        below = np.maximum(np.abs(np.abs(part.z + 52) - 7) - 1.2, np.maximum(cavity + 2, 4 - ax))
        scene.paint(part.box, np.minimum(air, below), "air")
        scene.paint(part.box, np.maximum(ax - 0.9, cavity), "bone")
        nostril = capsule(ax, part.y, part.z, (5, 88, -54), (5.5, 102, -56), 3.2, 2.6)
        scene.paint(part.box, self._within(part, nostril, 1.5), "air")

    def _throat(self, scene: Scene) -> None:
        """Air behind the nose, pterygoid muscles and fat beside it."""
        for part in self.head.sides((10, -10, -88), (58, 46, -30)):
            scene.paint(part.box, ellipsoid(*part.points, (33, 22, -62), (11, 15, 20)), "fat")
            scene.paint(part.box, ellipsoid(*part.points, (30, 20, -64), (9, 11, 22)), "muscle")
            scene.paint(part.box, ellipsoid(*part.points, (44, 24, -66), (6, 13, 22)), "muscle")
        part = self.head.region((-26, -2, -92), (26, 40, -46))
        throat = capsule(*part.points, (0, 20, -58), (0, 10, -92), 9, 10)
        scene.paint(part.box, throat - 3, "mucosa")
        scene.paint(part.box, throat, "air")

    def _orbit(self, scene: Scene, part: Region) -> None:
        x, y, z = part.points
        cone = capsule(x, y, z, (31, 70, -23), ORBIT_APEX, 18, 3)
        scene.paint(part.box, self._within(part, cone - _RIM_MM, SKIN_MM + 4), "bone")
        scene.paint(part.box, self._within(part, cone, SKIN_MM + 0.5), "fat")
        apex = (ORBIT_APEX[0] + 1, ORBIT_APEX[1] + 3, ORBIT_APEX[2])
        for dx, dz in ((9.5, 0), (-9.5, 0), (0, 9), (0, -9)):
            along = capsule(x, y, z, (GLOBE[0] + 1.15 * dx, GLOBE[1] - 2, GLOBE[2] + 1.15 * dz), apex, 1.5, 2.0)
            scene.paint(part.box, along, "muscle")
        nerve = capsule(x, y, z, (30, 58, -23), apex, 1.7, 1.7)
        scene.paint(part.box, nerve - 1.0, "csf")
        scene.paint(part.box, nerve, "white")
        globe = np.sqrt((x - GLOBE[0]) ** 2 + (y - GLOBE[1]) ** 2 + (z - GLOBE[2]) ** 2) - GLOBE_MM
        scene.paint(part.box, globe, "skin")
        scene.paint(part.box, globe + SCLERA_MM, "vitreous")
        scene.paint(part.box, ellipsoid(x, y, z, (31, 77.5, -23), (4.6, 2.2, 4.6)), "lens")

    def _ethmoid(self, scene: Scene) -> None:
        """Cells between the orbits with septa every 7 mm and along the midline."""
        part = self.head.region((-18, 28, -46), (18, 92, -8))
        box = superbox(part, (0, 56, -27), (10.5, 22, 10))
        box = self._within(part, box, 6)
        scene.paint(part.box, box - 1.5, "bone")
        uneven = 1.6 * part.field(self.cranium.fields.cells)
        septum = np.minimum(3.5 - np.abs(np.mod(part.y + uneven + 0.3 * part.x, 7) - 3.5), np.abs(part.x))
        scene.paint(part.box, box, "mucosa")
        scene.paint(part.box, np.maximum(box + 0.4, 0.9 - septum), "air")

    def _maxillary(self, part: Region) -> Array:
        s = self.size
        return ellipsoid(*part.points, (28, 57, -56), (13 * s, 15 * s, 15 * s))

    def _ear(self, scene: Scene, part: Region) -> None:
        x, y, z = part.points
        inner = self.cranium.inner[part.box]
        process = ellipsoid(x, y, z, (57, -34, -44), (12, 15, 18))
        process = np.maximum(self._within(part, process, SKIN_MM + 3), 2.5 - inner)
        scene.paint(part.box, process, "bone")
        cells = (0.15 - part.field(self.cranium.fields.cells)) * 5
        scene.paint(part.box, np.maximum(cells, process + 2), "air")
        canal = capsule(x, y, z, (50, -20, -36), (96, -20, -34), 3.4, 2.8)
        scene.paint(part.box, np.maximum(canal - 1.8, np.maximum(x - 72, 2 - inner)), "bone")
        scene.paint(part.box, np.maximum(canal, 3 - inner), "air")


def superbox(part: Region, center: Point, half: Point) -> Array:
    """Box with rounded edges: distance to the box, rounded over 4 mm."""
    sides = [np.abs(p - c) - h for p, c, h in zip(part.points, center, half, strict=True)]
    return smooth_max(smooth_max(sides[0], sides[1], 4), sides[2], 4)
