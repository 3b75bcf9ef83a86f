"""Geometry of the two ventricles in short-axis slices, with exact volumes and an incompressible wall.

Along the axis ``u = (z - z_b) / L`` runs from 0 at the base to 1 at the apex; in a plane (r, theta) are polar around
the left ventricle's axis. Contraction s runs from 0 (end-diastole, ED) to 1 (end-systole, ES).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cardiac_parameters import CardiacParameters
from .painting import coverage, ellipse

Array = NDArray[np.floating]

OUTSIDE = 1e3  # mm; phi of a shape in planes that it does not reach
RV_APEX = 0.93  # u at which the right ventricle ends
RV_WALL_MM = 2.6
_SOLVER_GRID_MM = 2.0
_DRIFT = (-8 / 90, 10 / 90)  # mm per mm: the axis drifts towards the chest wall and the diaphragm


@dataclass(frozen=True)
class Heart:
    """A solved heart: parameters plus the four numbers that make its volumes exact on its own slices.

    Args:
        parameters: the drawn scalars.
        radius_mm: R0, endocardial radius at the base at ED.
        squeeze: c, share of the endocardial radius lost at ES where the wall contracts fully.
        rv_scale_ed, rv_scale_es: k, size of the right ventricle's ellipse.
    """

    parameters: CardiacParameters
    radius_mm: float
    squeeze: float
    rv_scale_ed: float
    rv_scale_es: float

    @property
    def slices_mm(self) -> Array:
        """Axial position (num_slices,) of the slices, 0 = base at ED; the first is negative."""
        return slice_positions(self.parameters)

    def center(self, z: Array) -> tuple[Array, Array]:
        """Image coordinates (mm) of the left ventricle's axis at axial positions ``z``.

        The axis stands off the drawn center so that left and right ventricle together are centered.
        """
        p = self.parameters
        lateral = self.radius_mm + p.wall_mm
        rv_reach = 0.8 * lateral + 1.12 * 30 * self.rv_scale_ed**1.3 + RV_WALL_MM
        shift = 0.5 * (rv_reach - lateral)
        along = z - 0.5 * p.length_mm
        x = p.center_x - shift * math.cos(p.rv_direction) + _DRIFT[0] * along
        y = p.center_y - shift * math.sin(p.rv_direction) + _DRIFT[1] * along
        return x, y


def slice_positions(p: CardiacParameters) -> Array:
    """Axial position of every slice in mm, 0 = base at ED."""
    return (np.arange(p.num_slices) - (1 - p.stack_offset)) * p.slice_mm


def _wrapped(angle: Array) -> Array:
    """Angle brought to (-pi, pi]."""
    return angle - 2 * math.pi * np.ceil(angle / (2 * math.pi) - 0.5)


@dataclass(frozen=True)
class Profile:
    """What depends on the direction theta alone: shape of the cavity, septal bump (mm), infarct, share of motion."""

    shape: Array
    bump: Array
    infarct: Array
    motion: Array

    @classmethod
    def of(cls, p: CardiacParameters, theta: Array) -> "Profile":
        """Evaluate at the angles ``theta`` (any shape)."""
        d = _wrapped(theta - p.rv_direction)
        shape = 1 + p.a2 * np.cos(2 * d) + p.a3 * np.cos(3 * d) + p.a4 * np.cos(4 * d)
        shape -= p.septal_flattening * np.exp(-((d / 0.75) ** 2))
        bump = p.septal_bump_mm * np.exp(-(((d - 0.35) / p.septal_bump_width) ** 2))
        delta = _wrapped(theta - p.infarct_direction)
        infarct = p.infarct_depth * np.exp(-((delta / p.infarct_half_width) ** 4))
        return cls(shape, bump, infarct, 1 - 0.95 * infarct)


def axial_taper(u: Array) -> Array:
    """``1 - u^2.4`` inside the ventricle, 0 elsewhere: squared radius of the cavity along the axis."""
    inside = (u >= 0) & (u < 1)
    return np.where(inside, 1 - np.clip(u, 0, 1) ** 2.4, 0)


def radii(heart: Heart, profile: Profile, u: Array, s: float) -> tuple[Array, Array]:
    """Endo- and epicardial radius (mm) at contraction ``s``; ``u`` broadcasts against the profile.

    The wall is incompressible angle by angle: ``r_epi^2 = r_endo^2 + ((r0 + T)^2 - r0^2) L0 / L``. Beyond the apex the
    muscle closes as a cap; the epicardial radius is 0 outside of it and above the base.
    """
    p = heart.parameters
    length = p.length_mm - p.descent_mm * s
    rest = heart.radius_mm * np.sqrt(axial_taper(u)) * profile.shape
    apical = 1 - 0.25 * np.clip((u - 0.6) / 0.4, 0, 1)
    beyond = np.clip((u - 1) * length / (0.75 * p.wall_mm), 0, 1)  # mm past the apex over the thickness there
    cap = np.where(u >= 0, np.sqrt(1 - beyond * beyond), 0)
    wall = cap * (p.wall_mm * apical + (1 - 0.5 * np.clip(u, 0, 1)) * profile.bump) * (1 - 0.4 * profile.infarct)
    endo = rest * (1 - heart.squeeze * s * profile.motion)
    epi = np.sqrt(endo * endo + wall * (2 * rest + wall) * (p.length_mm / length))
    return endo, epi


def relative_depth(p: CardiacParameters, z: Array, s: float) -> Array:
    """u of axial positions ``z`` at contraction ``s``: base and length move, the apex stays."""
    base = p.descent_mm * s
    return (z - base) / (p.length_mm - base)


def rv_phi(heart: Heart, x: Array, y: Array, u: Array, scale: float, s: float) -> Array:
    """Implicit function of the right ventricle's cavity before the septum is cut out.

    An ellipse beside the left ventricle, bent round the septum and broader towards the diaphragm. Above the base it
    goes on as atrium or outflow tract, shrinking; beyond its apex it is :data:`OUTSIDE`.

    Args:
        x, y: coordinates (mm) relative to the left ventricle's axis, broadcast against ``u``.
        scale: k at this phase; ``s`` is the contraction, for the epicardial radius next to it.
    """
    p = heart.parameters
    inside = np.clip(u / RV_APEX, 0, 1)
    q = np.sqrt(np.maximum(1 - inside**1.8, 1e-4))
    above = 1 - 0.5 * np.clip(-u, 0, 0.6)
    a, b = 30 * scale**1.3 * q * above, 46 * scale**0.7 * q**0.8 * above
    direction = p.rv_direction - 0.12 - 0.12 * np.clip(u, 0, 1)
    beside = np.clip(u, 0, 0.999)
    epi = radii(heart, Profile.of(p, direction), beside, s)[1]
    distance = 0.80 * epi + 0.12 * a
    cos, sin = np.cos(direction), np.sin(direction)
    along = x * cos + y * sin - distance
    across = y * cos - x * sin + 4  # positive away from the diaphragm, the direction being close to 180 degrees
    bent = along + 0.0055 * across * across
    broad = np.clip(1 - 0.006 * across, 0.5, 1.6)
    return np.where(u < RV_APEX, ellipse(bent / broad, across, a, b), OUTSIDE)


def _solve_left(p: CardiacParameters, z: Array) -> tuple[float, float]:
    """R0 and c from the slices' areas ``A = 1/2 int r_endo^2 dtheta``: ``dz sum_k A_k = EDV`` and ``EDV (1 - EF)``.

    R0 has a closed form; c is found by bisection. Sums run over the actual slices, so a basal slice that leaves the
    ventricle in systole is accounted for.
    """
    theta = np.arange(180) * (2 * math.pi / 180)
    profile = Profile.of(p, theta)
    step = math.pi / 180  # half of dtheta

    def volume(s: float, squeeze: float) -> float:
        rest = axial_taper(relative_depth(p, z, s)).sum() * p.slice_mm / 1000
        return float(rest * step * ((profile.shape * (1 - squeeze * profile.motion)) ** 2).sum())

    radius_squared = p.lv_edv_ml / volume(0, 0)
    low, high = -0.2, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        too_full = volume(1, middle) * radius_squared > p.lv_edv_ml * (1 - p.lv_ef)
        low, high = (middle, high) if too_full else (low, middle)
    return math.sqrt(radius_squared), 0.5 * (low + high)


def _solve_right(heart: Heart, s: float, volume_ml: float) -> float:
    """k such that the cavity (ellipse minus epicardium) holds ``volume_ml`` on the slices; secant to 1e-4."""
    p = heart.parameters
    u = relative_depth(p, heart.slices_mm, s)
    u = u[(u >= 0) & (u < RV_APEX)][:, None, None]  # (P, 1, 1)
    local_x = np.arange(-59, 150, _SOLVER_GRID_MM)[:, None]  # towards the right ventricle
    local_y = np.arange(-99, 100, _SOLVER_GRID_MM)
    cos, sin = math.cos(p.rv_direction), math.sin(p.rv_direction)
    x, y = local_x * cos - local_y * sin, local_x * sin + local_y * cos  # (X, Y)
    epi = radii(heart, Profile.of(p, np.arctan2(y, x)), u, s)[1]
    outside_lv = coverage(epi - np.hypot(x, y), _SOLVER_GRID_MM)  # (P, X, Y)
    cell_ml = _SOLVER_GRID_MM**2 * p.slice_mm / 1000

    def excess(scale: float) -> float:
        inside = coverage(rv_phi(heart, x, y, u, scale, s), _SOLVER_GRID_MM)
        return float(np.minimum(inside, outside_lv).sum() * cell_ml / volume_ml - 1)

    k0, k1 = 0.8, 1.0
    e0, e1 = excess(k0), excess(k1)
    for _ in range(30):
        if abs(e1) < 1e-4:
            return k1
        k0, k1, e0 = k1, min(max(k1 - e1 * (k1 - k0) / (e1 - e0), 0.2), 3.0), e1
        e1 = excess(k1)
    raise RuntimeError(f"cardiac phantom: no right ventricle of {volume_ml:.1f} mL beside {p}; report this case.")


def solve(p: CardiacParameters) -> Heart:
    """Solve the four free numbers of a heart from its drawn volumes."""
    radius, squeeze = _solve_left(p, slice_positions(p))
    heart = Heart(p, radius, squeeze, 1.0, 1.0)
    ed = _solve_right(heart, 0, p.rv_edv_ml)
    es = _solve_right(heart, 1, p.rv_edv_ml * (1 - p.rv_ef))
    return Heart(p, radius, squeeze, ed, es)


class Planes:
    """The ventricles on a grid of planes: everything that does not change over the cycle is evaluated once.

    Args:
        heart: the solved heart.
        x, y: pixel centers (mm) of the two image axes; z: axial positions of the planes. Arrays have shape (Z, X, Y).
        dtype: float64 for labels, float32 for images.
    """

    def __init__(self, heart: Heart, x: Array, y: Array, z: Array, dtype: type[np.floating] = np.float64) -> None:
        self.heart = heart
        self.z = z
        center_x, center_y = heart.center(z)
        self.x = (x[None, :, None] - center_x[:, None, None]).astype(dtype)  # (Z, X, 1)
        self.y = (y[None, None, :] - center_y[:, None, None]).astype(dtype)  # (Z, 1, Y)
        self.radius = np.sqrt(self.x * self.x + self.y * self.y)
        self.theta = np.arctan2(self.y, self.x)
        self.profile = Profile.of(heart.parameters, self.theta)

    def depth(self, s: float) -> Array:
        """u of the planes, shape (Z, 1, 1)."""
        return relative_depth(self.heart.parameters, self.z, s)[:, None, None].astype(self.x.dtype)

    def walls(self, s: float) -> tuple[Array, Array]:
        """Implicit functions of endo- and epicardium (:data:`OUTSIDE` where the plane has none)."""
        u = self.depth(s)
        endo, epi = radii(self.heart, self.profile, u, s)
        cavity = np.where((u >= 0) & (u < 1), self.radius - endo, OUTSIDE)
        return cavity, np.where(epi > 0, self.radius - epi, OUTSIDE)

    def right(self, s: float) -> Array:
        """Implicit function of the right ventricle's ellipse."""
        heart = self.heart
        scale = heart.rv_scale_ed + (heart.rv_scale_es - heart.rv_scale_ed) * s
        return rv_phi(heart, self.x, self.y, self.depth(s), scale, s)

    def labels(self, s: float) -> NDArray[np.uint8]:
        """ACDC's labels: 0 background, 1 right ventricle, 2 myocardium, 3 left ventricle with its papillary muscles."""
        endo, epi = self.walls(s)
        right = (self.right(s) < 0) & (self.depth(s) >= 0)
        labels = right.astype(np.uint8)
        labels[epi < 0] = 2
        labels[endo < 0] = 3
        return labels
