"""Tubes of the great vessels, chains of rods with rounded joints, and balls to end them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .brain_scene import Box
from .brain_shapes import Point, capsule
from .painting import smooth_min
from .whole_heart_space import Chest

Array = NDArray[np.floating]


def tube(chest: Chest, line: Sequence[Point], radii: Sequence[float], rounding: float = 4.0) -> tuple[Box, Array]:
    """Box and implicit function of a tube along ``line``, with a radius at each of its points.

    Every rod is evaluated in its own part of the box only.
    """
    box = chest.around(list(line), max(radii))
    phi = np.full([part.stop - part.start for part in box], 1e3, dtype=np.float32)
    for start, end, first, last in zip(line, line[1:], radii, radii[1:], strict=False):
        own = tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(chest.around([start, end], max(first, last)), box, strict=True)
        )
        rod = capsule(*chest.points((own[0], own[1], own[2])), start, end, first, last)
        local = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(own, box, strict=True))
        phi[local] = smooth_min(phi[local], rod, rounding)
    return box, phi


def ball(chest: Chest, box: Box, center: Point, radius: float) -> Array:
    """Implicit function of a ball on ``box``."""
    x, y, z = chest.points(box)
    return np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2) - radius
