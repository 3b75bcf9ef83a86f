"""The shells of a head: inside of the skull, bone, and the outline of the skin."""

import numpy as np
from numpy.typing import NDArray

from .brain_fields import AnatomyFields
from .brain_parameters import BrainParameters
from .brain_scene import Box, Scene
from .brain_shapes import capsule, ellipsoid, smooth_max, smoothstep, superellipsoid
from .brain_space import Head, Region
from .painting import smooth_min

Array = NDArray[np.floating]

SKIN_MM, GALEA_MM, DURA_MM = 2.0, 1.6, 0.9
OUTER_TABLE_MM, INNER_TABLE_MM, BASE_MM = 1.7, 1.9, 3.2
_VAULT_AXES = (66.0, 84.0, 76.0, 62.0)  # to the side, front and back, up, down
_THICKER_BEHIND_MM = 1.6


class Cranium:
    """Implicit functions (X, Y, Z) of the skull's inside ``inner`` and the skin ``outline``; float32, mm.

    Args:
        parameters, head, fields: the drawn head on its grid.
    """

    def __init__(self, parameters: BrainParameters, head: Head, fields: AnatomyFields) -> None:
        self.parameters, self.head, self.fields = parameters, head, fields
        x, y, z = head.whole.points
        ax = np.abs(x)
        vault = _vault(x, y, z)
        poles = ellipsoid(ax, y, z, (43, 8, -24), (22, 33, 22))
        petrous = capsule(ax, y, z, (20, -14, -38), (58, -36, -43), 5, 8.5)
        inner = smooth_min(smooth_max(vault, _floor(ax, y, z), 8), poles, 6)
        self.inner = smooth_max(inner, -petrous, 4)
        self._petrous = petrous

        wavy = head.whole.field(fields.skull)
        thick = (
            6.2 * parameters.skull
            + 1.4 * np.tanh(wavy)
            + _THICKER_BEHIND_MM * smoothstep(y * (-1 / 70))
            + 0.8 * smoothstep(z / 60)
        )
        thick -= 2.2 * smoothstep((ax - 50) / 14) * smoothstep((30 - np.abs(z + 5)) / 25)  # thin at the temples
        self._on_vault = np.clip(1 - (self.inner - vault) / 6, 0, 1)  # 1 on the vault, 0 at the base
        self._bone_mm = BASE_MM + (thick - BASE_MM) * self._on_vault
        shell = smooth_min(vault, poles, 6)
        self.outline = self._skin(shell - thick - (GALEA_MM + parameters.fat_mm + SKIN_MM), ax, y, z)

    @property
    def occiput_mm(self) -> float:
        """Rearmost point of the head in patient space (y), but for the wave of the skull and the head's pose."""
        p = self.parameters
        shells = 6.2 * p.skull + _THICKER_BEHIND_MM + GALEA_MM + p.fat_mm + SKIN_MM
        return p.shift[1] - p.scale[1] * (_VAULT_AXES[1] + shells)

    def box(self, phi: Array, margin_mm: float) -> Region:
        """Smallest region that holds all voxels with ``phi < margin_mm``."""
        near = phi < margin_mm
        parts = []
        for axis in range(3):
            hits = np.flatnonzero(near.any(axis=tuple(other for other in range(3) if other != axis)))
            parts.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 0))
        return self.head.whole.cut((parts[0], parts[1], parts[2]))

    def paint_soft_tissue(self, scene: Scene) -> None:
        """Skin, fat, muscle and the fat between the muscles of face and neck."""
        whole = self.head.whole
        box, fat_mm = whole.box, self.parameters.fat_mm
        low = smoothstep((-12 - whole.z) / 24)
        cells = whole.field(self.fields.cells)
        scene.paint(box, self.outline, "skin")
        scene.paint(box, self.outline + SKIN_MM, "fat")
        muscle = self.outline + SKIN_MM + fat_mm + low * (2 + 1.5 * cells)
        scene.paint(box, muscle, "muscle")
        between = np.maximum((np.abs(cells) - 0.16) * 6, self.outline + SKIN_MM + fat_mm)
        scene.paint(box, np.maximum(between, (whole.z + 20) * 0.9), "fat")
        for part in self.head.sides((48, -40, -62), (92, 66, 44)):
            temporalis = ellipsoid(*part.points, (69, 18, -14), (9, 30, 44))
            scene.paint(part.box, np.maximum(temporalis, self.outline[part.box] + SKIN_MM + 1), "muscle")

    def paint_bone(self, scene: Scene) -> None:
        """Skull with its marrow, petrous bones, dura; then fluid wherever the brain will leave it."""
        region = self.box(self.inner - self._bone_mm, 4)
        box = region.box
        inner, bone = self.inner[box], self._bone_mm[box]
        scene.paint(box, inner - bone, "bone")
        vault_only = (0.6 - self._on_vault[box]) * 8
        scene.paint(box, np.maximum(inner - bone + OUTER_TABLE_MM, vault_only), "marrow")
        scene.paint(box, inner - (DURA_MM + INNER_TABLE_MM), "bone")
        for part in self.head.sides((10, -50, -55), (72, 0, -22)):
            petrous = np.maximum(self._petrous[part.box], self.outline[part.box] + 8)
            scene.paint(part.box, petrous, "bone")
            scene.paint(part.box, ellipsoid(*part.points, (24, -16, -38), (6, 5, 4)), "marrow")
        scene.paint(box, inner - DURA_MM, "dura")
        scene.paint(box, inner, "csf")

    def _skin(self, scalp: Array, ax: Array, y: Array, z: Array) -> Array:
        """Outline of scalp, face, neck, nose and ears as one smooth surface."""
        face = superellipsoid(ax / 60, (y - 26) / 62, (z + 54) / 62, (60, 62, 62), 2.5)
        outline = smooth_min(scalp, face, 12)
        outline = smooth_min(outline, ellipsoid(ax, y, z, (0, -34, -74), (58, 46, 54)), 12)
        outline = smooth_min(outline, ellipsoid(ax, y, z, (69, 18, -14), (9, 30, 44)) - 4, 10)
        for part, shape in self._appendages():
            outline[part] = smooth_min(outline[part], shape, 5)
        return outline

    def _appendages(self) -> list[tuple[Box, Array]]:
        nose = self.head.region((-20, 70, -70), (20, 125, -5))
        shapes = [
            (nose.box, capsule(*nose.points, (0, 82, -18), (0, 93, -44), 6, 12)),
            (nose.box, ellipsoid(*nose.points, (0, 95, -48), (15, 13, 9))),
        ]
        for part in self.head.sides((66, -50, -60), (104, 10, 4)):
            shapes.append((part.box, ellipsoid(*part.points, (83, -22, -26), (4, 12, 21))))
        return shapes


def _vault(x: Array, y: Array, z: Array) -> Array:
    """Superellipsoid of the brain's hull, broader behind."""
    side, front, up, down = _VAULT_AXES
    width = side * (1 - 0.0016 * y)
    height = np.where(z > 0, np.float32(up), np.float32(down))
    return superellipsoid(x / width, y / front, z / height, (width, front, height), 2.2)


def _floor(ax: Array, y: Array, z: Array) -> Array:
    """The skull base: roofs of the orbits in front, middle fossa, then down behind the petrous bones."""
    roof = 18 * np.exp(-(((ax - 31) / 19) ** 2) - ((y - 69) / 28) ** 2)
    front = smoothstep((y - 22) / 14)
    middle = -27 - 0.006 * ax * ax + 0.15 * (y - 4)  # never parallel to a slice
    level = middle + (-19 + roof - middle) * front
    t = np.clip((petrous_line(ax) - y) / 26, 0, 1)
    drop = t * t * (3 - 2 * t)
    steepness = (level + 74) * (6 / 26) * t * (1 - t)
    level += (-74 - level) * drop
    return (level - z) / np.sqrt(1.3 + 1.2 * steepness * steepness)


def petrous_line(ax: Array) -> Array:
    """Front (y in mm) of the posterior fossa at a distance from the midline."""
    return -8 - 0.45 * ax
