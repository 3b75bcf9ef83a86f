"""Painting with partial volume: areas, distances, mixing."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from common.data.phantoms.painting import coverage, disc, ellipse, paint, pixel_centers, smooth_min, superellipse


@pytest.mark.parametrize("radius", [5.0, 8.0, 20.3])
def test_coverage_of_a_disc_sums_to_its_area(radius: float) -> None:
    """Within 1 %, wherever the disc lies on the pixel grid."""
    centers = pixel_centers(64, 64.0)
    for shift in (0.0, 0.21, 0.5):
        phi = disc(centers[:, None] - shift, centers[None, :] + 0.3 * shift, radius)
        assert coverage(phi, 1.0).sum() == pytest.approx(math.pi * radius**2, rel=0.01)


def test_coverage_of_a_straight_edge_is_exact() -> None:
    """An edge through a pixel at a given place covers that share of it."""
    for place in (0.0, 0.3, 1.1, 1.99):
        covered = coverage(2.0 * np.arange(-5.0, 6.0) - place, 2.0)  # inside where x < place, pixel 2 mm
        assert covered.sum() * 2.0 == pytest.approx(11 + place, abs=1e-12)  # the first pixel begins at -11


def test_painting_mixes_signals_linearly() -> None:
    canvas = np.full((3,), 10.0)
    paint(canvas, np.array([-1.0, 0.0, 1.0]), 2.0, 1.0)
    np.testing.assert_allclose(canvas, [2.0, 6.0, 10.0])


def border_slope(function: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Length of the gradient by central differences."""
    h = 1e-4
    dx = (function(x + h, y) - function(x - h, y)) / (2 * h)
    dy = (function(x, y + h) - function(x, y - h)) / (2 * h)
    return np.hypot(dx, dy)


def test_ellipse_and_superellipse_vanish_on_the_border_with_unit_gradient() -> None:
    """phi = 0 on the border and |grad phi| = 1 there, so edges are one pixel wide."""
    t = np.linspace(0.05, 2 * math.pi, 40)
    cos, sin = np.cos(t), np.sin(t)
    x, y = 40 * cos, 15 * sin
    np.testing.assert_allclose(ellipse(x, y, 40.0, 15.0), 0, atol=1e-9)
    np.testing.assert_allclose(border_slope(lambda a, b: ellipse(a, b, 40.0, 15.0), x, y), 1, atol=1e-3)
    x = 112 * np.sign(cos) * np.abs(cos) ** (2 / 2.4)
    y = 168 * np.sign(sin) * np.abs(sin) ** (2 / 2.4)
    np.testing.assert_allclose(superellipse(x, y, 112.0, 168.0, 2.4), 0, atol=1e-5)
    np.testing.assert_allclose(border_slope(lambda a, b: superellipse(a, b, 112.0, 168.0, 2.4), x, y), 1, atol=1e-3)
    assert ellipse(np.array(43.0), np.array(0.0), 40.0, 15.0) == pytest.approx(3 * 43 / 40 / (43 / 40))  # on the axis


def test_smooth_min_is_the_minimum_away_from_the_crease() -> None:
    a, b = np.array([0.0, 5.0, 1.0]), np.array([9.0, 5.0, -9.0])
    np.testing.assert_allclose(smooth_min(a, b, 8.0), [0.0, 5.0 - 2.0, -9.0])


@pytest.mark.parametrize("fov_mm", [160.0, 171.5])
def test_coarse_and_fine_grid_share_every_third_pixel_center(fov_mm: float) -> None:
    """Pixel i of 64 lies exactly where pixel 3i + 1 of 192 lies."""
    np.testing.assert_array_equal(pixel_centers(192, fov_mm)[1::3], pixel_centers(64, fov_mm))
    assert pixel_centers(64, fov_mm).sum() == 0
