"""Where everything lies in one chest: the solved ventricles in their frame, and landmarks of all that joins them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .brain_shapes import Point, smooth_max
from .cardiac_heart import OUTSIDE, RV_WALL_MM, Heart, Profile, radii, rv_phi, solve
from .whole_heart_parameters import WholeHeartParameters
from .whole_heart_space import Frame

Array = NDArray[np.floating]

_LATTICE_MM = 5.0
_FRONT_MM, _FLOOR_MM, _SIDES_MM = -72.0, -69.0, (-76.0, 74.0)  # of the ventricles in the stack, at rest


def shifted(point: Point, by: Point) -> Point:
    """Sum of two points."""
    return point[0] + by[0], point[1] + by[1], point[2] + by[2]


@dataclass(frozen=True)
class Anatomy:
    """One chest, in mm to the left, to the back and upwards from the middle of the mitral valve.

    Args:
        parameters: the drawn scalars.
        heart: the solved ventricles, shown at end-diastole.
        frame: their axes.
        low, high: corners of the box around the ventricles.
    """

    parameters: WholeHeartParameters
    heart: Heart
    frame: Frame
    low: Point
    high: Point

    @classmethod
    def of(cls, parameters: WholeHeartParameters) -> "Anatomy":
        """Solve the ventricles and measure them on a lattice of their own, so that no pixel grid matters."""
        heart, frame = solve(parameters.ventricles), Frame.of(parameters)
        length = parameters.ventricles.length_mm
        x = np.arange(-130, 70, _LATTICE_MM)[:, None, None]
        y = np.arange(-75, 80, _LATTICE_MM)[None, :, None]
        z = np.arange(0, length + 15, _LATTICE_MM)[None, None, :]
        _, epi, right = ventricles(heart, x, y, z)
        inside = np.nonzero(np.minimum(epi, right - RV_WALL_MM) < 0)
        spots = np.stack([axis.ravel()[index] for axis, index in zip((x, y, z), inside, strict=True)])  # (3, n)
        basis = np.array([[-part for part in frame.right], frame.down, frame.axis])  # rows: x, y, z of the ventricles
        places = basis.T @ spots
        low, high = places.min(axis=1) - _LATTICE_MM, places.max(axis=1) + _LATTICE_MM
        return cls(parameters, heart, frame, (low[0], low[1], low[2]), (high[0], high[1], high[2]))

    @property
    def origin(self) -> Point:
        """Place of the mitral valve in the stack: the heart fills it, with room for the spine behind."""
        left, right = self.high[0], self.right_atrium[0] - 21 * self.parameters.right_atrium * self.scale
        x = 0.5 * (sum(_SIDES_MM) - left - right)
        return shifted((x, _FRONT_MM - self.low[1], _FLOOR_MM - self.low[2]), self.parameters.shift)

    @property
    def scale(self) -> float:
        """Size of the heart relative to a usual one."""
        return min(max(self.heart.radius_mm / 26, 0.88), 1.2)

    def _in_plane(self, toward: float, up: float, along: float) -> Point:
        """Point given from the mitral valve towards the right ventricle, across that, and along the axis."""
        angle = self.heart.parameters.rv_direction
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = toward * cos - up * sin, toward * sin + up * cos
        return self.frame.place(along, -x, y)

    @property
    def root(self) -> Point:
        """Aortic valve."""
        return self._in_plane(0.72 * self.heart.radius_mm, 0.45 * self.heart.radius_mm, -5.0)

    @property
    def tricuspid(self) -> Point:
        """Middle of the tricuspid valve."""
        lateral = self.heart.radius_mm + self.heart.parameters.wall_mm
        return self._in_plane(0.8 * lateral + 6 * self.heart.rv_scale_ed, -6.0, 0.0)

    @property
    def left_atrium(self) -> Point:
        """Middle of the left atrium."""
        return shifted(self.frame.place(-18 * self.scale, 0, 0), (1.0, 5.0, -4.0))

    @property
    def right_atrium(self) -> Point:
        """Middle of the right atrium."""
        along = tuple(-20 * self.scale * part for part in self.frame.axis)
        return shifted(self.tricuspid, (along[0] - 5, along[1], along[2] - 3))

    @property
    def pulmonary_valve(self) -> Point:
        """Upper end of the outflow tract."""
        size, bump = self.scale, self.heart.parameters.septal_bump_mm
        return shifted(shifted(self.root, (13 * size, -20 * size, 20 * size)), self._in_plane(bump, 0.5 * bump, 0.0))

    @property
    def bifurcation(self) -> Point:
        """Where the pulmonary trunk divides."""
        return shifted(self.pulmonary_valve, (6.0, 26.0, 24.0))

    @property
    def outflow(self) -> tuple[Point, Point]:
        """Outflow tract of the right ventricle, from its cavity to the pulmonary valve."""
        p = self.heart.parameters
        lateral = self.heart.radius_mm + p.wall_mm + 0.8 * p.septal_bump_mm
        start = self._in_plane(lateral + 4, 24 * self.heart.rv_scale_ed**0.7, 16.0)
        return start, self.pulmonary_valve

    @property
    def spine(self) -> tuple[float, float]:
        """Middle of the vertebral bodies, to the left and to the back."""
        return self.parameters.spine_x, self.parameters.spine_y + 12 * (self.scale - 1)

    def aorta(self) -> list[Point]:
        """Center line of the aorta from the valve; the first four points are its ascending part."""
        x, y, z = self.root
        spine_x, spine_y = self.spine
        return [
            (x, y, z),
            (x - 5, y - 3, z + 17),
            (x - 9, y - 1, z + 38),
            (x - 7, y + 9, z + 56),
            (x + 8, y + 25, z + 67),
            (spine_x + 29, spine_y - 22, z + 60),
            (spine_x + 26, spine_y - 8, z + 40),
            (spine_x + 23, spine_y - 9, -130.0),
        ]

    def right_pulmonary_artery(self) -> list[Point]:
        """Center line from the bifurcation, behind the ascending aorta, to the right lung."""
        x, y, z = self.bifurcation
        return [(x, y, z), (x - 26, y + 15, z - 3), (x - 62, y + 22, z - 9)]

    def left_pulmonary_artery(self) -> list[Point]:
        """Center line from the bifurcation to the left lung."""
        x, y, z = self.bifurcation
        return [(x, y, z), (x + 19, y + 20, z + 2), (x + 32, y + 37, z - 8)]

    def pulmonary_veins(self) -> list[tuple[Point, Point]]:
        """Right upper, right lower, left upper and left lower vein, from the atrium into the lung."""
        center, size = self.left_atrium, self.parameters.left_atrium * self.scale

        def vein(start: Point, way: Point) -> tuple[Point, Point]:
            first = shifted(center, (start[0] * size, start[1] * size, start[2] * size))
            return first, shifted(first, way)

        return [
            vein((-20, 2, 10), (-30, 0, 14)),
            vein((-21, 7, -7), (-26, 14, -8)),
            vein((20, 2, 10), (24, -8, 14)),
            vein((20, 8, -6), (24, 16, -8)),
        ]

    def superior_cava(self) -> list[Point]:
        """Center line from the top of the stack to the right atrium."""
        x, y, z = self.right_atrium
        root = self.root
        top = min(root[0] - 36, x + 4)
        return [(x + 3, y + 9, z + 14), (top, root[1] + 14, root[2] + 38), (top - 2, root[1] + 12, 130.0)]

    def inferior_cava(self) -> list[Point]:
        """Center line from the right atrium down through the liver."""
        x, y, z = self.right_atrium
        return [(x + 4, y + 9, z - 12), (x + 8, y + 20, z - 40), (x + 8, y + 24, -120.0)]


def ventricles(heart: Heart, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """Implicit functions of the left cavity, its wall and the right cavity at end-diastole, closed at the base.

    Args:
        x, y, z: coordinates of the short-axis phantom in mm, z from the base along the axis; they broadcast.
    """
    p = heart.parameters
    u = np.maximum(z / p.length_mm, 0)
    radius = np.sqrt(x * x + y * y)
    endo, epi = radii(heart, Profile.of(p, np.arctan2(y, x)), u, 0.0)
    cavity = np.where(u < 1, radius - endo, OUTSIDE)
    wall = np.where(epi > 0, radius - epi, OUTSIDE)
    right = rv_phi(heart, x, y, u, heart.rv_scale_ed, 0.0)
    above = -z + 0 * radius
    return smooth_max(cavity, above, 6.0), smooth_max(wall, above, 12.0), smooth_max(right, above, 14.0)
