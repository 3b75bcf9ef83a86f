"""Inside the brain: nuclei, ventricles, choroid plexus, falx and venous sinuses."""

import math

import numpy as np
from numpy.typing import NDArray

from .brain_cortex import Brain
from .brain_scene import Scene
from .brain_shapes import capsule, ellipsoid, smooth_max
from .painting import smooth_min

Array = NDArray[np.floating]

# Lateral ventricle from the frontal horn backwards: start, end (mm, |x|), radius at either; times sqrt(ventricles).
_HORNS = (
    ((12, 32, 9), (6, 4, 15), 4.2, 5.0),
    ((6, 4, 16), (14, -26, 22), 4.8, 5.0),
    ((14, -26, 22), (23, -42, 11), 5.0, 6.2),
    ((23, -42, 10), (25, -66, 4), 5.4, 2.4),
    ((24, -40, 8), (32, -14, -15), 4.0, 2.6),
)


def lateral_ventricles(ax: Array, y: Array, z: Array, size: float) -> Array:
    """Both lateral ventricles: five rods joined smoothly, parted by the septum; ``size`` is a relative volume."""
    scale = math.sqrt(size)
    joined = None
    for start, end, radius, end_radius in _HORNS:
        rod = capsule(ax, y, z, start, end, radius * scale, end_radius * scale)
        joined = rod if joined is None else smooth_min(joined, rod, 4)
    assert joined is not None
    return smooth_max(joined, 0.9 - ax, 1)


def other_ventricles(x: Array, y: Array, z: Array, size: float) -> Array:
    """Third ventricle, aqueduct and fourth ventricle."""
    scale = math.sqrt(size)
    third = ellipsoid(x, y, z, (0, -11, 1), (2.3 * scale, 14, 11))
    aqueduct = capsule(x, y, z, (0, -27, -4), (0, -35, -20), 1.3, 1.6)
    fourth = ellipsoid(x, y, z, (0, -38, -30), (8 * scale, 4.5 * scale, 10))
    return np.minimum(np.minimum(third, aqueduct), fourth)


class Deep:
    """Paints what lies within one brain."""

    def __init__(self, brain: Brain) -> None:
        self.brain, self.cranium, self.head = brain, brain.cranium, brain.cranium.head
        region, size = brain.region, self.cranium.parameters.ventricles
        self.ventricles = lateral_ventricles(brain.ax, region.y, region.z, size)

    def paint_nuclei(self, scene: Scene) -> None:
        for part in self.head.sides((2, -44, -12), (40, 36, 30)):
            x, y, z = part.points
            scene.paint(part.box, ellipsoid(x, y, z, (11, -14, 8), (8.5, 15, 9.5)), "nuclei")
            scene.paint(part.box, ellipsoid(x, y, z, (15, 17, 8), (6, 13, 10)), "nuclei")
            scene.paint(part.box, capsule(x, y, z, (16, 10, 19), (23, -28, 21), 3.4, 1.8), "nuclei")
            bent = x - 0.012 * (y - 4) ** 2 * 0.6
            scene.paint(part.box, ellipsoid(bent, y, z, (26, 4, 4), (5.5, 16, 10)), "nuclei")
            scene.paint(part.box, ellipsoid(bent, y, z, (19.5, 0, 2), (4, 9, 7)), "pallidum")

    def paint_fluid(self, scene: Scene) -> None:
        """Ventricles with their choroid plexus; then falx and sinuses."""
        region, brain = self.brain.region, self.brain
        scene.paint(region.box, self.ventricles, "csf")
        size = self.cranium.parameters.ventricles
        part = self.head.region((-16, -52, -48), (16, 8, 18))
        scene.paint(part.box, other_ventricles(*part.points, size), "csf")
        for part in self.head.sides((8, -56, -4), (34, -20, 30)):
            plexus = capsule(*part.points, (17, -30, 20), (23, -44, 9), 1.3, 2.6)
            scene.paint(part.box, plexus, "blood")
        y, z = region.y, region.z
        depth = -self.cranium.inner[region.box]
        falx = np.maximum(np.maximum(brain.ax - 0.65, depth - 34 - 0.12 * (-y)), np.maximum(-depth, -6 - z))
        scene.paint(region.box, falx, "dura")
        sheet = np.abs(brain.below) - 0.6
        behind = np.maximum(np.maximum(y + 30, 20 - brain.ax * 1.4), -depth)
        scene.paint(region.box, np.maximum(sheet, behind), "dura")
        sagittal = np.sqrt(brain.ax**2 + (depth - 0.6) ** 2) - 3.4
        scene.paint(region.box, np.maximum(np.maximum(sagittal, -1.5 - depth), np.maximum(-12 - z, y - 66)), "blood")
        transverse = np.sqrt((z + 20) ** 2 + (depth - 0.6) ** 2) - 3.2
        scene.paint(region.box, np.maximum(np.maximum(transverse, -1.5 - depth), y + 40), "blood")
