"""Computed tomography of the painted head: head rest, noise, rounding to Hounsfield units."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .brain_cranium import Cranium
from .painting import blend, coverage
from .streams import Stream

Array = NDArray[np.floating]

HU_RANGE = (-1024, 3071)
_BLUR_PX = 0.6
_OUTSIDE_BODY = 0.6  # noise relative to that inside
_REST_HU, _REST_RADIUS_MM, _SHELL_MM, _FOAM_MM = 120.0, 120.0, 2.0, 9.0
_GAP_MM = 4.0  # from the occiput to the rest


def add_head_rest(image: Array, cranium: Cranium) -> None:
    """Paint two thin arcs behind the occiput over an image in HU (in place); only CT shows them."""
    grid = cranium.head.grid
    x, y = grid.axes[0][:, None], grid.axes[1][None, :]
    lowest = cranium.occiput_mm - _GAP_MM
    radius = np.sqrt(x * x + (y - lowest - _REST_RADIUS_MM) ** 2)
    arc = np.minimum(np.abs(radius - _REST_RADIUS_MM), np.abs(radius - _REST_RADIUS_MM - _FOAM_MM)) - _SHELL_MM / 2
    arc = np.maximum(arc, np.maximum(np.abs(x) - 100, y - lowest - 0.55 * _REST_RADIUS_MM))
    share = coverage(arc, grid.pixel_mm).astype(np.float32)[..., None] * (cranium.outline > 1)
    blend(image, share, _REST_HU)


def noisy(image: Array, outline: Array, sigma_hu: float, stream: Stream) -> Array:
    """The image with correlated noise of standard deviation ``sigma_hu`` inside the body; HU, before rounding.

    Args:
        image, outline: (X, Y, Z) in HU and in mm (negative in the body).
        stream: noise stream of this scan.
    """
    white = stream.normals(*image.shape)
    blurred = gaussian_filter(white, (_BLUR_PX, _BLUR_PX, 0), mode="wrap")
    impulse = np.zeros((33, 33))
    impulse[16, 16] = 1
    blurred *= sigma_hu / np.sqrt((gaussian_filter(impulse, _BLUR_PX) ** 2).sum())
    return image + np.where(outline < 0, 1, _OUTSIDE_BODY) * blurred


def to_hounsfield(image: Array) -> NDArray[np.int16]:
    """Rounded and clipped to the 12 bits of a scanner."""
    return np.rint(np.clip(image, *HU_RANGE)).astype(np.int16)
