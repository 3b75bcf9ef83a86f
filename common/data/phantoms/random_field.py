"""Smooth Gaussian random fields that live in patient space and do not know the pixel grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates, uniform_filter

from .streams import Stream

_MARGIN = 2  # knots outside the box on either side: the support of a cubic B-spline

# Mean over a cell of sum_k B(t - k)^2 for the cubic B-spline B: the variance that white control values leave, per axis.
_SPLINE_VARIANCE = 151 / 315


@dataclass(frozen=True)
class SmoothField:
    """Gaussian random field of mean 0 and variance 1: cubic B-splines over white control values.

    ``F(p) = sum_k c_k prod_axis B((p_axis - origin_axis) / pitch - k) / sd``, ``sd = (151/315)^(d/2)``. Lattice and
    draws depend on the box in patient space only, so the same field seen through two pixel grids agrees exactly.

    Args:
        control: control values, one axis per space dimension (d = 1..3).
        origin: coordinate in mm of control value (0, ..., 0).
        pitch: distance of the control points in mm; the field is smooth over about twice this length.
    """

    control: NDArray[np.float64]
    origin: tuple[float, ...]
    pitch: float

    @classmethod
    def draw(
        cls,
        stream: Stream,
        pitch: float,
        low: Sequence[float],
        high: Sequence[float],
        *,
        bandpass: bool = False,
    ) -> "SmoothField":
        """Draw the field over the box ``low``..``high`` (mm, one entry per axis).

        ``bandpass`` takes the mean of the 3^d neighbors off each control value; slow waves vanish, the zero set becomes
        labyrinthine, and the variance falls to 0.60 in three dimensions (kept so).
        """
        counts = [math.ceil((b - a) / pitch) + 1 + 2 * _MARGIN for a, b in zip(low, high, strict=True)]
        control = stream.normals(*counts)
        if bandpass:
            control = control - uniform_filter(control, size=3, mode="nearest")
        origin = tuple(a - _MARGIN * pitch for a in low)
        return cls(control / math.sqrt(_SPLINE_VARIANCE) ** len(counts), origin, pitch)

    def on_grid(self, *axes: ArrayLike) -> NDArray[np.float64]:
        """Values at the grid spanned by one coordinate vector (mm) per axis; result ``(len(axes[0]), ...)``.

        Each axis is a sum of four shifted products in a fixed order (no matrix product), hence exact on every grid.
        """
        values = self.control
        for axis, coordinates in enumerate(axes):
            first, weights = self._taps(np.asarray(coordinates, dtype=np.float64), axis)
            shape = [-1 if i == axis else 1 for i in range(values.ndim)]
            total = np.take(values, first, axis=axis)
            total *= weights[0].reshape(shape)
            for j in (1, 2, 3):
                tap = np.take(values, first + j, axis=axis)
                tap *= weights[j].reshape(shape)
                total += tap
            values = total
        return values

    def at(self, *points: ArrayLike) -> NDArray[np.float64]:
        """Values at scattered points given by one coordinate array (mm) per axis; all of one shape."""
        knots = [(np.asarray(p, dtype=np.float64) - o) / self.pitch for p, o in zip(points, self.origin, strict=True)]
        return map_coordinates(self.control, np.broadcast_arrays(*knots), order=3, prefilter=False, mode="nearest")

    def _taps(self, coordinates: NDArray[np.float64], axis: int) -> tuple[NDArray[np.intp], list[NDArray[np.float64]]]:
        """Index of the first of four control values and the four B-spline weights of each coordinate."""
        knot = (coordinates - self.origin[axis]) / self.pitch
        cell = np.floor(knot)
        first = cell.astype(np.intp) - 1
        if first.size and (first.min() < 0 or first.max() + 3 >= self.control.shape[axis]):
            low = self.origin[axis] + _MARGIN * self.pitch
            high = self.origin[axis] + (self.control.shape[axis] - 1 - _MARGIN) * self.pitch
            raise ValueError(
                f"SmoothField: axis {axis} spans {low:g}..{high:g} mm but was asked at "
                f"{coordinates.min():g}..{coordinates.max():g} mm; draw it over a larger box."
            )
        t = knot - cell
        s = 1 - t
        weights = [
            s * s * s / 6,
            (4 - 6 * t * t + 3 * t * t * t) / 6,
            (4 - 6 * s * s + 3 * s * s * s) / 6,
            t * t * t / 6,
        ]
        return first, weights
