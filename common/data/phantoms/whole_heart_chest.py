"""What surrounds the heart in axial slices: chest wall, ribs, sternum, spine, lungs, liver, airways, gullet."""

import math

import numpy as np
from numpy.typing import NDArray

from .brain_shapes import capsule, smooth_max
from .painting import coverage, ellipse, superellipse
from .whole_heart_anatomy import Anatomy, shifted
from .whole_heart_scene import WholeHeartScene
from .whole_heart_shapes import tube
from .whole_heart_space import Chest

Array = NDArray[np.floating]

_BODY_MM = (168.0, 112.0)  # semi-axes of the skin, across and deep
_WALL_MM, _SKIN_MM = 13.0, 2.0  # muscle and bone of the chest wall; skin
_VERTEBRA_MM = 26.0  # from disc to disc
_BRANCHES = 14  # of lung vessels on each side
_RIB_MM, _RIB_SLOPE = 30.0, 0.55  # from rib to rib; mm that they descend per mm to the front


def paint_chest(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy) -> None:
    """Everything but heart and great vessels."""
    x, y, _ = chest.straight
    spine_x, spine_y = anatomy.spine
    whole = chest.whole
    fat_mm = anatomy.parameters.wall_fat_mm
    front = anatomy.low[1] - 3  # the heart touches the chest wall
    middle = front + _BODY_MM[1] - _WALL_MM - fat_mm - _SKIN_MM
    skin = superellipse(x - spine_x, y - middle, *_BODY_MM, 2.3)  # (X, Y, 1)
    uneven = chest.fields.fat.on_grid(*chest.axes).astype(np.float32)
    scene.paint(whole, skin, "muscle")
    scene.paint(whole, skin + _SKIN_MM, "fat")
    muscle = skin + _SKIN_MM + fat_mm
    scene.paint(whole, muscle - 0.8 * uneven, "muscle")
    scene.paint(whole, np.abs(muscle + 5 + 1.5 * uneven) - 0.6, "fat")
    cavity = muscle + _WALL_MM
    _paint_ribs(scene, chest, anatomy, muscle + 8.5)
    _paint_back(scene, chest, anatomy)
    # beside the vertebrae the lungs reach further back than the bodies do
    vertebra = ellipse(x - spine_x, y - spine_y - 3, 20.0, 18.0)
    behind = ellipse(x - spine_x, y - spine_y - 34, 46.0, 26.0)
    lungs = smooth_max(cavity, -np.minimum(vertebra, behind), 8.0)
    scene.paint(whole, lungs - 1.2, "muscle")
    scene.paint(whole, lungs, "lung")
    _paint_lung_vessels(scene, chest, anatomy, lungs)
    _paint_spine(scene, chest, anatomy)
    _paint_sternum(scene, chest, anatomy, middle - _BODY_MM[1] + fat_mm + _SKIN_MM + 7)
    _paint_abdomen(scene, chest, anatomy, lungs)
    _paint_mediastinum(scene, chest, anatomy, lungs, uneven)


def _paint_ribs(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy, depth: Array) -> None:
    """Oblique ribs in the muscle of the chest wall, so that a slice cuts them into ovals; marrow in a shell."""
    x, y, z = chest.straight
    along = z + _RIB_SLOPE * y + 0.08 * x + anatomy.parameters.rib_phase_mm
    between = np.abs(np.mod(along, _RIB_MM) - 0.5 * _RIB_MM) / math.hypot(1, _RIB_SLOPE)
    rib = smooth_max(np.abs(depth) - 4.2, between - 5.5, 3.0)
    gristle = np.clip((np.abs(x - anatomy.spine[0]) - 45) / 20, 0, 1)
    front = np.where(y < anatomy.low[1] + 30, gristle, 1)  # near the sternum ribs are cartilage
    scene.paint(chest.whole, rib, "gristle")
    scene.blend(chest.whole, coverage(rib, scene.pixel_mm) * front, "bone")
    scene.blend(chest.whole, coverage(rib + 1.8, scene.pixel_mm) * front, "marrow")


def _paint_back(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy) -> None:
    """Muscles beside the spinous processes, with fat between them."""
    x, y, _ = chest.straight
    spine_x, spine_y = anatomy.spine
    for side in (-1, 1):
        bulk = ellipse(x - spine_x - side * 24, y - spine_y - 42, 21.0, 15.0)
        scene.paint(chest.whole, bulk - 1.2, "fat")
        scene.paint(chest.whole, bulk, "muscle")


def _paint_spine(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy) -> None:
    """Vertebral bodies with discs between them, arch, canal and processes."""
    spine_x, spine_y = anatomy.spine
    box = chest.box((spine_x - 48, spine_y - 20, -200), (spine_x + 48, spine_y + 70, 200), 0)
    i, j, k = box
    x, y, z = chest.straight
    x, y, z = x[i] - spine_x, y[:, j] - spine_y, z[:, :, k]
    local = np.mod(z + anatomy.parameters.disc_phase_mm, _VERTEBRA_MM) - 0.5 * _VERTEBRA_MM  # 0 in mid-vertebra
    waist = 1 - 0.09 * np.cos(local * (2 * math.pi / _VERTEBRA_MM))
    body = ellipse(x, y, 17.5 * waist, 14.5 * waist)
    body = smooth_max(body, -ellipse(x, y - 22, 12.0, 9.5), 3.0)
    bone = np.maximum(body, np.abs(local) - 10.2)
    mirrored, y, local = np.broadcast_arrays(np.abs(x), y, local)
    arch = np.minimum(
        capsule(mirrored, y, local, (9.5, 9.0, 2.0), (12.0, 22.0, 1.0), 4.2, 4.0),
        capsule(mirrored, y, local, (12.0, 22.0, 1.0), (2.0, 33.0, -5.0), 4.0, 3.6),
    )
    arch = np.minimum(arch, capsule(mirrored, y, local, (12.0, 21.0, 1.0), (31.0, 32.0, 4.0), 4.6, 4.6))
    arch = np.minimum(arch, capsule(mirrored, y, local, (0.0, 33.0, -5.0), (0.0, 54.0, -12.0), 3.6, 3.2))
    ribs = capsule(mirrored, y, local, (17.0, 8.0, 9.0), (31.0, 25.0, 5.0), 4.0, 4.4)
    ribs = np.minimum(ribs, capsule(mirrored, y, local, (31.0, 25.0, 5.0), (47.0, 33.0, 1.0), 4.4, 4.4))
    canal = ellipse(x, y - 22, 10.0, 8.0)
    scene.paint(box, body, "gristle")
    for part, shell in ((bone, 1.5), (np.minimum(arch, ribs), 1.5)):
        scene.paint(box, part, "bone")
        scene.paint(box, part + shell, "marrow")
    scene.paint(box, canal + np.zeros_like(local), "fat")
    scene.paint(box, ellipse(x, y - 22, 8.5, 6.8) + np.zeros_like(local), "fluid")
    scene.paint(box, ellipse(x, y - 22, 5.0, 3.6) + np.zeros_like(local), "muscle")


def _paint_sternum(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy, place: float) -> None:
    """Flat bone in the middle of the front."""
    x, y, _ = chest.straight
    bone = ellipse(x - anatomy.spine[0], y - place, 19.0, 5.5)
    for shrink, tissue in ((0.0, "bone"), (1.5, "marrow")):
        scene.paint(chest.whole, bone + shrink, tissue)


def _paint_lung_vessels(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy, lungs: Array) -> None:
    """Branches that fan out from both hila and thin out, and dots of smaller ones everywhere."""
    fine = chest.fields.lung_vessels.on_grid(*chest.axes).astype(np.float32)
    dots = np.clip((fine - 1.75) * 1.6, 0, 0.8) * coverage(lungs + 5, scene.pixel_mm)
    scene.blend(chest.whole, dots, "lung_vessel")
    for side, hilum in ((-1, anatomy.right_pulmonary_artery()[-1]), (1, anatomy.left_pulmonary_artery()[-1])):
        for number in range(_BRANCHES):
            turn = 2.4 * number + anatomy.parameters.rib_phase_mm  # golden angle: no two branches beside each other
            lift = 1 - 2 * (number + 0.5) / _BRANCHES
            flat, reach = math.sqrt(1 - lift * lift), 44 + 14 * math.sin(3.7 * number)
            way = (side * abs(flat * math.cos(turn)) * reach, flat * math.sin(turn) * reach, lift * 58 - 12)
            start = shifted(hilum, (side * (3 - 8 * math.cos(turn)), 6 * math.sin(2 * turn), 0.45 * way[2]))
            bend = 8 * math.sin(5.1 * number)
            elbow = shifted(hilum, (0.55 * way[0] - 0.1 * bend, 0.5 * way[1] + bend, 0.75 * way[2]))
            box, phi = tube(chest, [start, elbow, shifted(hilum, way)], [3.2, 2.4, 1.2], 2.0)
            scene.paint(box, np.maximum(phi, lungs[box[:2]] + 2), "lung_vessel")


def _paint_abdomen(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy, lungs: Array) -> None:
    """Below the domes of the diaphragm: liver on the right, stomach and fat on the left."""
    spine_x, _ = anatomy.spine
    p = anatomy.parameters
    low = int(np.searchsorted(chest.axes[2], max(p.liver_mm, p.left_dome_mm) + 12))
    box = (slice(0, len(chest.axes[0])), slice(0, len(chest.axes[1])), slice(0, low))
    x, y, z = chest.points(box)

    def dome(middle: float, depth: float, top: float, curvature: float) -> Array:
        dx, dy = x - middle, y - depth
        square = dx * dx + dy * dy
        return np.maximum((z - top + square / curvature) / np.sqrt(1 + square * (4 / curvature**2)), lungs)

    left = dome(spine_x + 82, 22.0, p.left_dome_mm, 330.0)
    scene.paint(box, left, "muscle")
    scene.paint(box, left + 2, "fat")
    spleen = smooth_max(left + 4, ellipse(x - spine_x - 98, y - 52, 24.0, 36.0), 6.0)
    scene.paint(box, spleen, "spleen")
    stomach = smooth_max(left + 4, ellipse(x - spine_x - 66, y - 2, 34.0, 30.0), 8.0)
    scene.paint(box, stomach, "muscle")
    scene.paint(box, stomach + 4, "stomach")
    scene.paint(box, dome(spine_x - 62, 0.0, p.liver_mm, 210.0), "liver")


def _paint_mediastinum(scene: WholeHeartScene, chest: Chest, anatomy: Anatomy, lungs: Array, uneven: Array) -> None:
    """Fat between the lungs, airways, gullet and azygos vein."""
    x, y, z = chest.straight
    spine_x, spine_y = anatomy.spine
    root = anatomy.root
    wide = 30 + 10 * np.clip((y + 40) / 60, 0, 1)
    center = 0.5 * (anatomy.low[1] + spine_y)
    column = ellipse(x - root[0] - 8, y - center, wide + 2, 0.62 * (spine_y - anatomy.low[1]))
    column = np.where(z > root[2] + 20, column, column + 0.5 * np.maximum(root[2] + 20 - z, 0))
    behind = ellipse(x - spine_x - 12, y - spine_y + 14, 27.0, 22.0)
    fat = np.minimum(column, behind + np.zeros_like(z)) - 1.5 * uneven
    scene.paint(chest.whole, np.maximum(fat, lungs), "fat")

    level = anatomy.bifurcation[2]
    carina = (spine_x + 2.0, spine_y - 31.0, level + 6.0)
    airways = [
        ([shifted(carina, (2, -2, 80)), carina], [8.5, 8.5]),
        ([carina, shifted(carina, (-32, 6, -24)), shifted(carina, (-50, 10, -46))], [7.0, 6.0, 4.0]),
        ([carina, shifted(carina, (38, 6, -22)), shifted(carina, (62, 14, -46))], [6.5, 5.5, 3.5]),
    ]
    for line, sizes in airways:
        box, phi = tube(chest, line, sizes)
        scene.paint(box, phi - 1.6, "muscle")
        scene.paint(box, phi, "air")
    for place, size, tissue in (
        ((spine_x + 9.0, spine_y - 21.0), 6.0, "muscle"),
        ((spine_x - 7.0, spine_y - 18.0), 3.5, "venous_blood"),
    ):
        box, phi = tube(chest, [(*place, -130.0), (*place, 130.0)], [size, size])
        scene.paint(box, phi, tissue)
