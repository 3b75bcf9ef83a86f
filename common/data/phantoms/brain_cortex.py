"""Cerebrum with its folded cortex, cerebellum and brainstem."""

import numpy as np
from numpy.typing import NDArray

from .brain_cranium import Cranium, petrous_line
from .brain_scene import Scene
from .brain_shapes import capsule, ellipsoid, smooth_max, smoothstep
from .brain_space import Region
from .painting import ellipse, smooth_min

Array = NDArray[np.floating]

_FOLDED_MM = 24.0  # no sulcus is deeper


class Brain:
    """Implicit functions of the brain on ``region``, the box of the skull's inside.

    Attributes:
        hull: pial surface without folds.
        pial: folded surface of the cerebrum; white: its white matter.
        below: negative under the tentorium.
    """

    def __init__(self, cranium: Cranium) -> None:
        self.cranium, p = cranium, cranium.parameters
        self.region = region = cranium.box(cranium.inner, 3)
        x, y, z = region.points
        self.ax = ax = np.abs(x)
        frontal = smoothstep((y - 25) / 30) * smoothstep((z + 20) / 25)
        self.fluid_mm = 0.8 + 0.9 * p.atrophy + 1.2 * frontal
        self.hull = cranium.inner[region.box] + self.fluid_mm
        self.below = _below_tentorium(ax, y, z)
        surface = smooth_max(self.hull, 0.8 - self.below, 3)
        surface = np.maximum(surface, -ellipsoid(x, y, z, (0, 9, -20), (10, 7, 9)))  # suprasellar cistern
        surface = np.maximum(surface, -ellipsoid(x, y, z, (0, -36, 3), (10, 4, 7)))  # quadrigeminal cistern
        self.pial = np.maximum(surface, -self._fissures(p.atrophy))
        self._fold()
        self.white = self.pial + 2.8 + 0.45 * np.tanh(region.field(cranium.fields.ribbon))
        self.stem = self._brainstem()

    def paint(self, scene: Scene) -> None:
        """Cortex and white matter, cerebellum, brainstem."""
        box = self.region.box
        scene.paint(box, self.pial, "cortex")
        scene.paint(box, self.white, "white")
        self._paint_cerebellum(scene)
        scene.paint(box, self.stem, "white")
        part = self.cranium.head.region((-16, -40, -46), (16, -12, -8))
        scene.paint(part.box, ellipsoid(*part.points, (0, -20, -30), (10, 6, 9)), "nuclei")

    def _fissures(self, atrophy: float) -> Array:
        """Gaps between the halves, above the temporal lobes and before the insulas; negative in the gap."""
        ax, (_, y, z) = self.ax, self.region.points
        callosum = ellipse(y + 8, z - 5, 44, 26)
        between = np.maximum(ax - (0.45 + 0.35 * atrophy), -callosum)
        plane = np.abs(z + 3 + 0.5 * (y - 4)) * (1 / 1.118) - (0.3 + 0.3 * atrophy)
        sylvian = np.maximum(np.maximum(plane, 35 - ax), np.abs(y - 4) - 30)
        sheet = np.abs(ax - (39 - 0.012 * (y - 3) ** 2 - 0.008 * (z - 4) ** 2)) - (0.25 + 0.3 * atrophy)
        insula = np.maximum(sheet, ellipse(y - 3, z - 2, 25, 19))
        return np.minimum(np.minimum(between, sylvian), insula)

    def _fold(self) -> None:
        """Cut the sulci: the zero set of a band-passed field read half-way to the hull, so that they run inwards."""
        fields, atrophy = self.cranium.fields, self.cranium.parameters.atrophy
        near = np.nonzero((self.hull < 0.5) & (self.hull > -_FOLDED_MM) & (self.pial < 3))
        x, y, z = (axis[near] for axis in self.region.points)
        depth = -self.pial[near]  # below the hull or the nearest fissure
        rho = np.sqrt((x / 66) ** 2 + (y / 84) ** 2 + (z / 70) ** 2)
        outwards = 1 + 0.42 * (np.minimum(0.97 / np.maximum(rho, 0.3), 3) - 1)
        at = (x * outwards, y * outwards, z * outwards)
        small = fields.small_gyri.at(*at).astype(np.float32)
        folds = fields.gyri.at(*at).astype(np.float32) + 0.3 * small
        width = 0.15 + 0.28 * atrophy + 0.75 * atrophy * np.clip(1 - depth / 6, 0, 1)
        sulcus = np.maximum(4.2 * np.abs(folds) - width, depth - 13 - 5 * np.tanh(small))
        self.pial[near] = np.maximum(self.pial[near], -sulcus)

    def _brainstem(self) -> Array:
        x, y, z = self.region.points
        midbrain = capsule(self.ax * 0.85, y, z, (0, -19, -2), (0, -22, -22), 12, 13.5)
        pons = capsule(self.ax * 0.85, y, z, (0, -22, -24), (0, -24, -34), 14, 13)
        medulla = capsule(x, y, z, (0, -26, -40), (0, -36, -84), 9.5, 7)
        stem = smooth_min(smooth_min(midbrain, pons, 5), medulla, 5)
        return np.maximum(stem, self.hull - 0.5)

    def _paint_cerebellum(self, scene: Scene) -> None:
        part = self.cranium.head.region((-72, -95, -80), (72, -16, 14))
        inside = _intersection(self.region, part)
        ax, y, z = (values[inside] for values in (self.ax, self.region.y, self.region.z))
        halves = ellipsoid(ax, y, z, (25, -52, -37), (34, 36, 30))
        vermis = ellipsoid(ax, y, z, (0, -50, -26), (15, 25, 30))
        outer = np.maximum(smooth_min(halves, vermis, 6), np.maximum(self.hull[inside], self.below[inside] + 1.0))
        outer = np.maximum(outer, -(self.stem[inside] - 1.5))
        # Leaves follow shells around the stem; the white matter branches into every second one.
        shells = np.sqrt((0.55 * ax) ** 2 + (y + 22) ** 2 + (1.15 * (z + 34)) ** 2)
        shells += 1.2 * np.sin(ax / 5)
        period = np.abs(np.mod(shells, 6) - 3)
        gap = np.maximum(period - 0.35, -outer - 9)
        branch = np.abs(np.mod(shells, 12) - 6)
        white = np.maximum(outer + 3.2, np.minimum(branch - 1.6, outer + 11))
        box = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(self.region.box, inside, strict=True))
        box3 = (box[0], box[1], box[2])
        scene.paint(box3, outer, "cortex")
        scene.paint(box3, np.maximum(gap, outer), "csf")
        scene.paint(box3, white, "white")
        peduncle = capsule(ax, y, z, (9, -30, -32), (24, -46, -38), 6.5, 5)
        scene.paint(box3, np.maximum(peduncle, outer - 4), "white")


def _below_tentorium(ax: Array, y: Array, z: Array) -> Array:
    """Negative under the tentorium and behind the petrous bones, so that the temporal lobes are free in front."""
    hill = 22 * np.exp(-((ax / 24) ** 2) - ((y + 46) / 28) ** 2)
    slope_x, slope_y = hill * ax * (2 / 576), hill * (y + 46) * (2 / 784)
    height = (z - (hill - 21)) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    return np.maximum(height, (y - petrous_line(ax)) * 0.91)


def _intersection(outer: Region, part: Region) -> tuple[slice, slice, slice]:
    """The voxels of ``part`` that lie in ``outer``, as slices of the latter's arrays."""
    cuts = [
        slice(max(b.start - a.start, 0), max(min(b.stop, a.stop) - a.start, 0))
        for a, b in zip(outer.box, part.box, strict=True)
    ]
    return cuts[0], cuts[1], cuts[2]
