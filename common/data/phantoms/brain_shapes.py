"""Implicit solids in mm: negative inside, gradient of length one near the border."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .painting import smooth_min

Array = NDArray[np.floating]
Point = tuple[float, float, float]


def ellipsoid(x: Array, y: Array, z: Array, center: Point, semi_axes: Point) -> Array:
    """First-order distance to an ellipsoid, ``f (f - 1) / |grad (f^2 / 2)|``; exact on its axes."""
    a, b, c = semi_axes
    xa, yb, zc = (x - center[0]) * (1 / a), (y - center[1]) * (1 / b), (z - center[2]) * (1 / c)
    f = np.sqrt(xa * xa + yb * yb + zc * zc)
    xa *= 1 / a
    yb *= 1 / b
    zc *= 1 / c
    slope = np.sqrt(xa * xa + yb * yb + zc * zc)
    return f * (f - 1) / np.maximum(slope, 1e-6)


def superellipsoid(xa: Array, yb: Array, zc: Array, semi_axes: Sequence[Array | float], p: float) -> Array:
    """First-order distance to ``|xa|^p + |yb|^p + |zc|^p = 1``.

    Args:
        xa, yb, zc: coordinates divided by the semi-axes.
        semi_axes: the semi-axes in mm, numbers or arrays.
        p: exponent; 2 is an ellipsoid, larger ones are boxier.
    """
    total: Array = np.float32(1e-12) + np.zeros_like(xa)
    squares: Array = np.zeros_like(xa)
    for u, axis in zip((xa, yb, zc), semi_axes, strict=True):
        size = np.abs(u)
        steep = size ** np.float32(p - 1)
        total += size * steep
        squares += (steep / axis) ** 2
    f = total ** np.float32(1 / p)
    return (f - 1) * total / np.maximum(f * np.sqrt(squares), np.float32(1e-30))


def capsule(x: Array, y: Array, z: Array, start: Point, end: Point, radius: float, end_radius: float) -> Array:
    """Distance to a rod from ``start`` to ``end`` whose radius runs linearly from one value to the other."""
    axis = [e - s for s, e in zip(start, end, strict=True)]
    length2 = sum(d * d for d in axis)
    dx, dy, dz = x - start[0], y - start[1], z - start[2]
    t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) * (1 / length2), 0, 1)
    dx -= t * axis[0]
    dy -= t * axis[1]
    dz -= t * axis[2]
    return np.sqrt(dx * dx + dy * dy + dz * dz) - (radius + (end_radius - radius) * t)


def smooth_max(a: Array, b: Array, width: float) -> Array:
    """Maximum (intersection of shapes) with the crease rounded over ``width`` mm."""
    return -smooth_min(-a, -b, width)


def smoothstep(t: Array) -> Array:
    """``3 t^2 - 2 t^3`` between 0 and 1, constant outside."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
