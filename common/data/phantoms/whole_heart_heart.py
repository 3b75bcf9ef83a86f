"""The four chambers, the great vessels with their labels, and the coronary arteries."""

import math

import numpy as np
from numpy.typing import NDArray

from ..readers.mmwhs import STRUCTURES
from .brain_scene import Box
from .brain_shapes import Point, capsule, ellipsoid, smooth_max
from .cardiac_heart import OUTSIDE, RV_WALL_MM, Profile, radii
from .painting import smooth_min
from .whole_heart_anatomy import Anatomy, shifted, ventricles
from .whole_heart_scene import WholeHeartScene
from .whole_heart_shapes import ball, tube
from .whole_heart_space import Chest

Array = NDArray[np.floating]

_ATRIAL_WALL_MM, _VESSEL_WALL_MM, _PERICARDIUM_MM = 2.0, 1.4, 1.3
_LABELLED_VEIN_MM, _LABELLED_BRANCH_MM = 6.0, 30.0  # how far labels follow veins and branches


class HeartShapes:
    """Implicit functions of the heart in one box of the grid.

    Args:
        chest: the grid in chest coordinates.
        anatomy: the chest.
    """

    def __init__(self, chest: Chest, anatomy: Anatomy) -> None:
        self.chest, self.anatomy = chest, anatomy
        p = anatomy.parameters
        la, ra = anatomy.left_atrium, anatomy.right_atrium
        low = tuple(min(a, b - 40, c - 40) - 8 for a, b, c in zip(anatomy.low, la, ra, strict=True))
        high = tuple(max(a, b + 40, c + 40) + 8 for a, b, c in zip(anatomy.high, la, ra, strict=True))
        self.box: Box = chest.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        x, y, z = chest.points(self.box)
        self.local = anatomy.frame.coordinates(x, y, z)
        near = self.within(chest.box(anatomy.low, anatomy.high))
        self.endo, self.epi, self.right = (
            self._spread(phi, near) for phi in ventricles(anatomy.heart, *(axis[near] for axis in self.local))
        )
        start, valve = anatomy.outflow
        outflow = capsule(x, y, z, start, valve, 15.0, p.pulmonary_mm + 0.5)
        self.right = smooth_min(self.right, outflow, 8.0)
        self.left_atrium = self._left_atrium(x, y, z)
        self.right_atrium = self._right_atrium(x, y, z)

    def within(self, box: Box) -> Box:
        """The part of the shapes' arrays that lies in ``box``."""
        parts = []
        for own, other in zip(self.box, box, strict=True):
            start = min(max(other.start, own.start), own.stop)
            parts.append(slice(start - own.start, max(min(other.stop, own.stop), start) - own.start))
        return parts[0], parts[1], parts[2]

    def whole(self, part: Box) -> Box:
        """The voxels of the grid behind a part of the shapes' arrays."""
        moved = [slice(own.start + cut.start, own.start + cut.stop) for own, cut in zip(self.box, part, strict=True)]
        return moved[0], moved[1], moved[2]

    def _spread(self, phi: Array, part: Box) -> Array:
        """``phi`` of a part on the whole box, far away elsewhere."""
        found = np.full(self.local[0].shape, OUTSIDE, dtype=np.float32)
        found[part] = phi
        return found

    def _left_atrium(self, x: Array, y: Array, z: Array) -> Array:
        """Ellipsoid behind the base, with a funnel to the mitral valve and an appendage at the left."""
        anatomy = self.anatomy
        size = anatomy.parameters.left_atrium * anatomy.scale
        center = anatomy.left_atrium
        body = ellipsoid(x, y, z, center, (29 * size, 19 * size, 24 * size))
        funnel = capsule(x, y, z, center, anatomy.frame.place(1.0, 0, 0), 15 * size, 14 * size)
        ear = capsule(
            *(x, y, z, shifted(center, (22 * size, -8, 10)), shifted(center, (30 * size, -24 * size, 16))), 9.0, 6.0
        )
        return smooth_max(smooth_min(smooth_min(body, funnel, 8.0), ear, 4.0), self.local[2] - 1.0, 2.0)

    def _right_atrium(self, x: Array, y: Array, z: Array) -> Array:
        """Ellipsoid behind the right ventricle, with a funnel to the tricuspid valve and an appendage in front."""
        anatomy = self.anatomy
        size = anatomy.parameters.right_atrium * anatomy.scale
        center = anatomy.right_atrium
        body = ellipsoid(x, y, z, center, (21 * size, 24 * size, 27 * size))
        funnel = capsule(x, y, z, center, anatomy.tricuspid, 17 * size, 16 * size)
        ear = capsule(x, y, z, shifted(center, (-2, -16 * size, 14)), shifted(center, (12, -30 * size, 24)), 11.0, 7.0)
        joined = smooth_min(smooth_min(body, funnel, 8.0), ear, 5.0)
        septum = -(self.left_atrium - 2 * _ATRIAL_WALL_MM)
        return smooth_max(smooth_max(joined, self.local[2] - 1.0, 2.0), septum, 3.0)

    def hull(self) -> Array:
        """Everything within the pericardium, grooves filled."""
        atria = np.minimum(self.left_atrium, self.right_atrium) - _ATRIAL_WALL_MM
        return smooth_min(smooth_min(self.epi, self.right - RV_WALL_MM, 20.0), atria, 24.0)


def paint_heart(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy) -> None:
    """Heart and great vessels, over the painted chest."""
    shapes = HeartShapes(chest, anatomy)
    box = shapes.box
    uneven = chest.fields.fat.on_grid(*(axis[part] for axis, part in zip(chest.axes, box, strict=True)))
    fat_mm = anatomy.parameters.fat_mm * (1 + np.tanh(uneven.astype(np.float32))) * 0.8
    hull = shapes.hull() - fat_mm
    scene.paint(box, hull - _PERICARDIUM_MM - 1.0, "fat")
    scene.paint(box, hull - _PERICARDIUM_MM, "pericardium")
    scene.paint(box, hull, "fat")
    _paint_veins(scene, chest, anatomy)
    for chamber, wall in ((shapes.right_atrium, _ATRIAL_WALL_MM), (shapes.left_atrium, _ATRIAL_WALL_MM)):
        scene.paint(box, chamber - wall, "myocardium")
    scene.paint(box, shapes.right - RV_WALL_MM, "myocardium", 0)
    scene.paint(box, shapes.right_atrium, "venous_blood", STRUCTURES["right atrium"])
    scene.paint(box, shapes.left_atrium, "arterial_blood", STRUCTURES["left atrium"])
    scene.paint(box, shapes.right, "venous_blood", STRUCTURES["right ventricle"])
    _paint_left_ventricle(scene, shapes)
    _paint_arteries(scene, chest, anatomy)
    _paint_valves(scene, shapes)
    _paint_coronaries(scene, chest, anatomy)


def _paint_left_ventricle(scene: WholeHeartScene, shapes: HeartShapes) -> None:
    """Wall, cavity, and two papillary muscles that count as cavity."""
    box, heart = shapes.box, shapes.anatomy.heart
    scene.paint(box, shapes.epi, "myocardium", STRUCTURES["myocardium"])
    scene.paint(box, shapes.endo, "arterial_blood", STRUCTURES["left ventricle"])
    for turn in (-2.2, 2.2):
        angle = heart.parameters.rv_direction + turn
        line = []
        for share, depth in ((0.52, 0.34), (0.66, 0.8)):
            out = share * heart.radius_mm * math.sqrt(1 - depth**2.4)
            along = depth * heart.parameters.length_mm
            line.append(shapes.anatomy.frame.place(along, -out * math.cos(angle), out * math.sin(angle)))
        near, muscle = tube(shapes.chest, line, [0.12 * heart.radius_mm, 0.2 * heart.radius_mm])
        scene.paint(near, smooth_max(muscle, shapes.endo[shapes.within(near)], 2.0), "myocardium")


def _paint_valves(scene: WholeHeartScene, shapes: HeartShapes) -> None:
    """Closed leaflets of mitral and tricuspid valve: thin sheets that bulge into the ventricles."""
    frame, reach = shapes.anatomy.frame, 30 * shapes.anatomy.scale
    for center, chamber, ventricle in (
        ((0.0, 0.0, 0.0), shapes.left_atrium, shapes.endo),
        (shapes.anatomy.tricuspid, shapes.right_atrium, shapes.right),
    ):
        part = shapes.within(shapes.chest.around([center], reach))
        x, y, depth = (axis[part] for axis in shapes.local)
        across, down, _ = frame.coordinates(*np.asarray(center, dtype=np.float32))
        bulge = 6 - 0.3 * np.hypot(x - across, y - down)
        leaf = np.abs(depth - bulge) * 0.96 - 0.7
        sheet = np.maximum(leaf, np.minimum(chamber[part], ventricle[part] + 0.5))
        scene.paint(shapes.whole(part), sheet, "myocardium")


def _paint_veins(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy) -> None:
    """Pulmonary veins, labelled close to the atrium only, and both hollow veins, not labelled."""
    for start, end in anatomy.pulmonary_veins():
        box, phi = tube(chest, [start, end], [7.0, 5.5])
        scene.paint(box, phi - _VESSEL_WALL_MM, "muscle")
        near = ball(chest, box, start, 6.0 + _LABELLED_VEIN_MM)
        scene.paint(box, phi, "arterial_blood")
        scene.paint(box, np.maximum(phi, near), "arterial_blood", STRUCTURES["left atrium"])
    for line, sizes in ((anatomy.superior_cava(), [10.5, 9.5, 9.0]), (anatomy.inferior_cava(), [12.5, 11.5, 11.0])):
        box, phi = tube(chest, line, sizes)
        scene.paint(box, phi - _VESSEL_WALL_MM, "muscle")
        scene.paint(box, phi, "venous_blood")


def _paint_arteries(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy) -> None:
    """Pulmonary artery, then aorta; labels end where the arch begins, and a little way into the branches."""
    p = anatomy.parameters
    size = p.pulmonary_mm
    valve, fork = anatomy.pulmonary_valve, anatomy.bifurcation
    pulmonary = [
        ([valve, fork], [size, size]),
        (anatomy.right_pulmonary_artery(), [0.85 * size, 0.78 * size, 0.6 * size]),
        (anatomy.left_pulmonary_artery(), [0.85 * size, 0.78 * size, 0.62 * size]),
    ]
    tubes = [tube(chest, line, sizes) for line, sizes in pulmonary]
    for box, phi in tubes:
        scene.paint(box, phi - _VESSEL_WALL_MM, "muscle", 0)
    for box, phi in tubes:
        near = capsule(*chest.points(box), valve, fork, _LABELLED_BRANCH_MM, _LABELLED_BRANCH_MM)
        scene.paint(box, phi, "pulmonary_blood")
        scene.paint(box, np.maximum(phi, near), "pulmonary_blood", STRUCTURES["pulmonary artery"])
    line, size = anatomy.aorta(), p.aorta_mm
    outflow = anatomy.frame.place(10.0, 0.4 * anatomy.heart.radius_mm, 0.0)
    box, phi = tube(chest, [outflow, line[0]], [11.0, 0.9 * size])
    depth = anatomy.frame.coordinates(*chest.points(box))[2]
    scene.paint(box, np.maximum(phi, -4.0 - depth), "arterial_blood", STRUCTURES["left ventricle"])
    sizes = [1.12 * size, 1.08 * size, size, 0.97 * size, 0.93 * size, 0.88 * size, 11.5, 11.0]
    box, phi = tube(chest, line, sizes)
    scene.paint(box, phi - _VESSEL_WALL_MM, "muscle", 0)
    scene.paint(box, phi, "arterial_blood")
    stem, ascending = tube(chest, line[:4], sizes[:4])
    scene.paint(stem, ascending, "arterial_blood", STRUCTURES["ascending aorta"])


def _paint_coronaries(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy) -> None:
    """Left main with its branches in the front groove and round the base, and the right one round the other side."""
    heart = anatomy.heart
    p = heart.parameters
    groove = p.rv_direction + 0.95

    def on_wall(angle: float, u: float, out: float) -> Point:
        profile = Profile.of(p, np.asarray(angle))
        radius = float(radii(heart, profile, np.asarray(max(u, 0.0)), 0.0)[1]) + out
        return anatomy.frame.place(u * p.length_mm, -radius * math.cos(angle), radius * math.sin(angle))

    start = shifted(anatomy.root, (11.0, 3.0, 9.0))
    front = [start, *(on_wall(groove - 0.25 * u, u, 3.0) for u in (0.04, 0.2, 0.4, 0.6, 0.8))]
    round_left = [start, *(on_wall(groove + turn, -0.02, 2.0) for turn in (0.2, 0.7, 1.2, 1.7, 2.2))]
    center, size = anatomy.tricuspid, anatomy.heart.rv_scale_ed
    ring = [shifted(anatomy.root, (-10.0, -10.0, 6.0))]
    for turn in (1.9, 1.2, 0.6, 0.0, -0.6, -1.2):
        angle = p.rv_direction - turn
        x, y = 27 * size * math.cos(angle), 38 * size**0.7 * math.sin(angle)
        ring.append(shifted(center, anatomy.frame.place(-5.0, -x, y)))
    for line in (front, round_left, ring):
        box, phi = tube(chest, line, [2.2] * (len(line) - 1) + [1.5], 1.0)
        scene.blend(box, np.clip(0.5 - phi / scene.pixel_mm, 0, 1) * (scene.labels[box] == 0), "arterial_blood")
