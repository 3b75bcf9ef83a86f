"""Painting of implicit shapes with partial volume.

A shape is a function phi in mm, negative inside, with a gradient of length one near its border; a canvas holds signal.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def coverage(phi: Array, pixel_mm: float) -> Array:
    """Share of a pixel that lies inside: ``clip(1/2 - phi / pixel, 0, 1)``, exact for a straight edge."""
    share = phi * (-1 / pixel_mm)
    share += 0.5
    return np.clip(share, 0, 1, out=share)


def paint(canvas: Array, phi: Array, value: Array | float, pixel_mm: float) -> None:
    """Lay ``value`` over ``canvas`` (in place) where ``phi`` is negative: ``v <- (1 - c) v + c value``."""
    blend(canvas, coverage(phi, pixel_mm), value)


def blend(canvas: Array, share: Array, value: Array | float) -> None:
    """Mix ``value`` into ``canvas`` (in place) with weight ``share`` in [0, 1]; mixing is linear in signal."""
    canvas += share * (value - canvas)


def smooth_min(a: Array, b: Array, width: float) -> Array:
    """Minimum of two implicit functions with the crease rounded over ``width`` mm (polynomial, never above ``min``)."""
    overlap = np.maximum(width - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap * overlap * (0.25 / width)


def disc(x: Array, y: Array, radius: float | Array) -> Array:
    """Exact distance to a circle around the origin."""
    return np.sqrt(x * x + y * y) - radius


def ellipse(x: Array, y: Array, a: float | Array, b: float | Array) -> Array:
    """First-order distance to an ellipse: ``f (f - 1) / |(x/a^2, y/b^2)|``, ``f^2 = (x/a)^2 + (y/b)^2``.

    Exact on the axes; its gradient has length one on the whole border.
    """
    xa, yb = x / a, y / b
    f = np.sqrt(xa * xa + yb * yb)
    xa, yb = xa / a, yb / b
    slope = np.sqrt(xa * xa + yb * yb)
    return f * (f - 1) / np.maximum(slope, 1e-6)


def superellipse(x: Array, y: Array, a: float, b: float, exponent: float) -> Array:
    """First-order distance to ``|x/a|^p + |y/b|^p = 1``: ``(f - 1) / |grad f|`` with ``f`` the p-norm of (x/a, y/b)."""
    xa, yb = np.abs(x) / a + 1e-9, np.abs(y) / b + 1e-9
    xq, yq = xa ** (exponent - 1), yb ** (exponent - 1)
    power = xa * xq + yb * yq
    f = power ** (1 / exponent)
    slope = np.sqrt((xq / a) ** 2 + (yq / b) ** 2) * f / power
    return (f - 1) / slope


def pixel_centers(size: int, fov_mm: float) -> NDArray[np.float64]:
    """Coordinates (size,) in mm of the pixel centers of an axis, 0 in the middle.

    Written with one division of integers times the field of view, so that a center that two grids share is the same
    number in both.
    """
    return (2 * np.arange(size) + 1 - size) * fov_mm / (2 * size)
