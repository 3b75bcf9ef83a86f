"""Anatomy of the echo phantom: an apical four-chamber view and how it moves.

Lengths are in units of the imaging depth. ``(a, b)`` are coordinates of the left ventricle: a from its apex along its
axis towards the base, b across, positive towards the lateral wall (right in the picture).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .painting import ellipse
from .random_field import SmoothField
from .streams import Stream

Array = NDArray[np.floating]

_BULLET = 2.2  # exponent of the ventricle's profile
VOLUME_FACTOR = math.pi * (1 - 1 / (_BULLET + 1))  # volume of the bullet over W^2 L
WALL = 0.062
_EDGE = 0.006  # softness of borders in the echogenicity map
LOW, HIGH = (-0.3, -0.9), (1.2, 0.9)  # box of (a, b) that the fields cover


@dataclass(frozen=True)
class EchoParameters:
    """Drawn scalars of a clip. Lengths in imaging depths, angles in radians."""

    ef: float
    heart_rate: float
    num_frames: int
    es_phase: float
    half_angle: float
    depth_cm: float
    length: float
    width: float
    tilt: float
    apex_x: float
    apex_y: float
    rv_size: float
    atria_size: float
    leaflet: float
    gain: float
    frame_rate: float = 50.0

    @property
    def length_factor(self) -> float:
        """k_l, length at end-systole over length at end-diastole."""
        return 1 - 0.16 * self.ef / 0.6

    @property
    def width_factor(self) -> float:
        """k_w; the volume goes as W^2 L, so ``k_w^2 k_l = 1 - EF`` exactly."""
        return math.sqrt((1 - self.ef) / self.length_factor)

    @property
    def edv_ml(self) -> float:
        """End-diastolic volume ``pi W^2 L (1 - 1/3.2) depth^3``."""
        return VOLUME_FACTOR * self.width**2 * self.length * self.depth_cm**3


def draw_parameters(stream: Stream) -> EchoParameters:
    """Draw the scalars of a clip in fixed order."""
    ef = stream.uniform(0.20, 0.75)
    heart_rate = stream.uniform(55, 95)
    num_frames = 32 + stream.integer(33)
    es_phase = stream.uniform(0.33, 0.42)
    half_angle = math.radians(stream.uniform(38, 44))
    depth = stream.uniform(14, 20)
    length = stream.uniform(0.40, 0.48)
    width = stream.uniform(0.125, 0.165) * (1.25 if ef < 0.4 else 1.0)
    tilt = math.radians(stream.uniform(-10, 10))
    return EchoParameters(
        ef=ef,
        heart_rate=heart_rate,
        num_frames=num_frames,
        es_phase=es_phase,
        half_angle=half_angle,
        depth_cm=depth,
        length=length,
        width=width,
        tilt=tilt,
        apex_x=stream.uniform(0.0, 0.06),
        apex_y=stream.uniform(0.11, 0.15),
        rv_size=stream.uniform(0.85, 1.2),
        atria_size=stream.uniform(0.85, 1.15),
        leaflet=stream.uniform(0.85, 1.1),
        gain=stream.uniform(0.85, 1.15),
    )


def profile(q: Array) -> Array:
    """Half-width of the ventricle over W at ``q = a / L``: ``sqrt(1 - (1 - q)^2.2)``; 0 at the apex, 1 at the base."""
    return np.sqrt(1 - np.clip(1 - q, 0, 1) ** _BULLET)


@dataclass(frozen=True)
class Motion:
    """Where the tissue of the end-diastolic scene is at one contraction s; it carries speckle and borders with it."""

    parameters: EchoParameters
    s: float

    @property
    def length(self) -> float:
        """Length of the ventricle now."""
        return self.parameters.length * (1 - (1 - self.parameters.length_factor) * self.s)

    @property
    def width(self) -> float:
        """Half-width of the ventricle's base now."""
        return self.parameters.width * (1 - (1 - self.parameters.width_factor) * self.s)

    def local(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Ventricle coordinates (a, b) of points of the picture (x right, y down, probe at the origin)."""
        p = self.parameters
        cos, sin = math.cos(p.tilt), math.sin(p.tilt)
        dx, dy = x - p.apex_x, y - p.apex_y
        return cos * dy - sin * dx, cos * dx + sin * dy

    def picture(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Inverse of :meth:`local`."""
        p = self.parameters
        cos, sin = math.cos(p.tilt), math.sin(p.tilt)
        return p.apex_x + cos * b - sin * a, p.apex_y + cos * a + sin * b

    def material(self, a: Array, b: Array) -> tuple[Array, Array]:
        """End-diastolic position of the tissue that is at (a, b) now.

        Inside the cavity both axes scale, so the wall lands exactly on the wall; outside, the displacement dies away
        over .25 beyond the base and .15 beyond the wall, which makes the wall thicken.
        """
        p = self.parameters
        length, width = self.length, self.width
        below = np.maximum(a - length, 0)
        a0 = np.where(a < length, a * (p.length / length), a + (p.length - length) * np.exp(-below / 0.25))
        now = width * profile(a / length) * np.exp(-below / 0.12)
        scale = p.width / width
        beyond = np.maximum(np.abs(b) - now, 0)
        b0 = np.sign(b) * (
            np.minimum(np.abs(b), now) * scale + beyond + now * (scale - 1) * (np.exp(-beyond / 0.15) - 1)
        )
        return a0, b0


def echogenicity(p: EchoParameters, texture: SmoothField, a: Array, b: Array) -> tuple[Array, Array]:
    """Amplitude of scattering of the end-diastolic scene at (a, b), and the share of blood there.

    Tissue .30 exp(.35 F), myocardium .55, bright pericardium and annulus 1.1; the chambers hold blood.
    """

    def inside(phi: Array) -> Array:
        return np.clip(0.5 - phi / _EDGE, 0, 1)

    length, width = p.length, p.width
    tissue = 0.30 * np.exp(0.35 * texture.at(a, b))
    q = a / length
    cavity = np.where((a > 0) & (a < length), np.abs(b) - width * profile(q), 1.0)
    mantle_q = (a + WALL) / (length + WALL)
    mantle = np.where((a > -WALL) & (a < length + 0.02), np.abs(b) - (width + WALL) * profile(mantle_q), 1.0)

    rv_center = -(width + WALL + 0.068 * p.rv_size)
    right = ellipse(a - 0.70 * length, b - rv_center - 0.05 * (q - 0.7), 0.34 * length, 0.082 * p.rv_size)
    left_atrium = ellipse(a - length - 0.125 * p.atria_size, b - 0.01, 0.105 * p.atria_size, 0.9 * width + 0.01)
    right_atrium = ellipse(
        a - length - 0.115 * p.atria_size, b + width + 0.115 * p.atria_size, 0.095 * p.atria_size, 0.095 * p.atria_size
    )

    lung = np.exp(-np.maximum(np.abs(b + 0.05) - 0.24, 0) / 0.07)  # it swallows the sound at the sides
    amplitude = tissue * (0.12 + 0.55 * lung * np.exp(-(((a - 1.6 * length) / (0.5 * length)) ** 2)))
    shell = np.minimum(np.minimum(right - 0.028, right_atrium - 0.03), left_atrium - 0.03)
    rim = np.minimum(shell, mantle)
    glow = 1.1 * np.exp(-(((rim - 0.012) / 0.011) ** 2)) * (0.45 + 0.55 * np.clip(q, 0, 1.5) / 1.5)
    amplitude = np.maximum(amplitude, glow * (0.75 + 0.35 * np.tanh(texture.at(a, b))))
    for phi, value in ((shell, 0.45), (mantle, 0.55)):
        amplitude = amplitude + inside(phi) * (value * np.exp(0.2 * texture.at(a, b)) - amplitude)
    for side in (-1, 1):
        spot = (a - length - 0.008) ** 2 + (np.abs(b) * np.sign(b) - side * (width + 0.02)) ** 2
        amplitude = np.maximum(amplitude, 1.1 * np.exp(-spot / (2 * 0.014**2)))

    blood = np.zeros_like(amplitude)
    for phi in (right, right_atrium, left_atrium, cavity):
        blood = np.maximum(blood, inside(phi))
    mouth = np.maximum(np.maximum(length - 0.01 - a, a - length - 0.06), np.abs(b) - 0.86 * width)
    tricuspid = np.maximum(np.maximum(length - 0.08 - a, a - length - 0.06), np.abs(b - rv_center) - 0.045)
    blood = np.maximum(blood, np.maximum(inside(mouth), inside(tricuspid)))
    return amplitude * (1 - blood), blood


def leaflets(motion: Motion, opening: float, a: Array, b: Array) -> Array:
    """Implicit function of the mitral and tricuspid leaflets; ``opening`` from 0 (closed) to 1.

    Each leaflet is a capsule from its hinge; closed, the pairs meet; open, they hang into the ventricle.
    """
    p = motion.parameters
    length, width = motion.length, motion.width
    rv_center = -(width + WALL + 0.068 * p.rv_size)
    phi = np.full(np.shape(a), 1.0)
    for center, half, reach in ((0.0, width, p.leaflet), (rv_center, 0.06, 0.9)):
        for side in (-1, 1):
            hinge_a, hinge_b = length, center + side * half
            swing = math.radians(18 + 62 * opening)
            span = half * reach * 1.02
            tip_a = hinge_a - span * math.sin(swing)
            tip_b = hinge_b - side * span * math.cos(swing)
            phi = np.minimum(phi, _capsule(a, b, (hinge_a, hinge_b), (tip_a, tip_b)) - 0.0065)
    return phi


def _capsule(a: Array, b: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Distance to the segment from ``start`` to ``end``."""
    da, db = end[0] - start[0], end[1] - start[1]
    t = np.clip(((a - start[0]) * da + (b - start[1]) * db) / (da * da + db * db), 0, 1)
    return np.hypot(a - start[0] - t * da, b - start[1] - t * db)


def valve_opening(phases: Array, es_phase: float) -> Array:
    """Opening of the mitral valve in [0, 1]: closed in systole, an E lobe after it, an A lobe before the next."""
    relaxed = es_phase + 0.04
    early = np.exp(-(((phases - relaxed - 0.11) / 0.075) ** 2))
    late = 0.75 * np.exp(-(((phases - 0.87) / 0.06) ** 2))
    rest = 0.25 * ((phases > relaxed + 0.1) & (phases < 0.9))
    return np.where(phases < relaxed, 0.0, np.maximum(np.maximum(early, late), rest))
