"""Smooth random fields: moments, independence of the grid, band-pass."""

import numpy as np
import pytest

from common.data.phantoms.random_field import SmoothField
from common.data.phantoms.streams import Stream


def draw(seed: int, pitch: float = 10, bandpass: bool = False) -> SmoothField:
    return SmoothField.draw(Stream(seed, "cardiac", 0, 0), pitch, (-40, -40, 0), (40, 40, 60), bandpass=bandpass)


def test_field_has_mean_zero_and_variance_one() -> None:
    """Over 200 seeds and points on, between and off the knots."""
    axis = np.linspace(-38, 38, 13)
    values = np.array([draw(seed).on_grid(axis, axis, axis[6:] + 5) for seed in range(200)])
    assert values.mean() == pytest.approx(0, abs=0.02)
    assert values.var() == pytest.approx(1, abs=0.05)


def test_band_passed_field_has_no_slow_waves() -> None:
    """The mean of the 3^3 neighbors is taken off: variance .60, and nearly nothing is left of averages over 8 knots."""
    axis = np.arange(-35.0, 40.0, 5.0)
    plain, band = (
        np.array([draw(seed, bandpass=flag).on_grid(axis, axis, axis[7:] + 5) for seed in range(100)])
        for flag in (False, True)
    )
    assert band.var() == pytest.approx(0.60, abs=0.04)
    assert band.mean(axis=(1, 2, 3)).std() < 0.4 * plain.mean(axis=(1, 2, 3)).std()


def test_field_does_not_know_the_grid() -> None:
    """The same point has exactly the same value on a coarse, a fine and a shifted grid."""
    field = draw(3)
    fine = np.linspace(-40, 40, 161)
    whole = field.on_grid(fine, fine, fine[80:] + 3)
    np.testing.assert_array_equal(field.on_grid(fine[5::7], fine[2::3], fine[80:] + 3), whole[5::7, 2::3])
    np.testing.assert_array_equal(field.on_grid(fine[11:12], fine, fine[99:100] + 3)[0, :, 0], whole[11, :, 19])


def test_grid_and_scattered_points_agree() -> None:
    """Separable taps equal SciPy's spline evaluation of the same control values."""
    field = draw(4, pitch=7)
    x, y, z = np.linspace(-39, 39, 9), np.linspace(-30, 40, 8), np.linspace(0, 60, 7)
    scattered = field.at(*np.meshgrid(x, y, z, indexing="ij"))
    np.testing.assert_allclose(field.on_grid(x, y, z), scattered, atol=1e-12)


def test_field_refuses_points_outside_its_box() -> None:
    with pytest.raises(ValueError, match=r"axis 2 spans .* draw it over a larger box"):
        draw(0).on_grid([0.0], [0.0], [95.0])
