"""What surrounds the heart in a short-axis slice: chest wall, ribs, lung, diaphragm, liver, stomach, spleen, aorta.

The section runs along the body: anterior chest wall on the left of the picture, spine side on the right, head up.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .cardiac_fields import AnatomyFields
from .cardiac_heart import RV_WALL_MM, Heart
from .painting import blend, coverage, disc, ellipse, paint, superellipse

Array = NDArray[np.floating]

SEMI_AXES_MM = (112.0, 168.0)
_EXPONENT = 2.4
_SKIN_MM, _MUSCLE_MM = 2.0, 13.0
_RIB_ARC_MM = 48.0
_TORSO_DRIFT = 12 / 90  # mm per mm: the chest wall comes nearer towards the apex
_DIAPHRAGM_RISE = 26 / 90


def paint_torso(
    heart: Heart, fields: AnatomyFields, signals: Mapping[str, Array], x: Array, y: Array, pixel_mm: float
) -> Array:
    """Signal (Z, X, Y) of everything but the heart, once per slice (no through-plane averaging).

    Args:
        signals: signal of every tissue, each broadcastable to (Z, X, Y).
        x, y: pixel centers in mm; ``pixel_mm`` their distance.
    """
    p = heart.parameters
    z = heart.slices_mm
    canvas = np.zeros((len(z), len(x), len(y)), dtype=np.float32)
    inner_mm = _SKIN_MM + p.torso_fat_mm + _MUSCLE_MM

    heart_x, heart_y = heart.center(np.asarray(0.5 * p.length_mm))
    lateral = heart.radius_mm + p.wall_mm
    reach = 0.8 * lateral + 1.12 * 30 * heart.rv_scale_ed**1.3 + RV_WALL_MM
    torso_x = heart_x - reach - 7 + SEMI_AXES_MM[0] - inner_mm + _TORSO_DRIFT * (z - 0.3 * p.length_mm)
    local_x = (x[None, :, None] - torso_x[:, None, None]).astype(np.float32)  # (Z, X, 1)
    local_y = np.broadcast_to((y[None, None, :] - heart_y).astype(np.float32), (1, 1, len(y)))
    cos, sin = math.cos(p.torso_tilt), math.sin(p.torso_tilt)
    across, along = cos * local_x + sin * local_y, cos * local_y - sin * local_x  # (Z, X, Y)
    body = superellipse(across, along, *SEMI_AXES_MM, _EXPONENT)

    slow = fields.body.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32)
    uneven = fields.fat.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32)
    body += 3.0 * slow
    fat_mm = p.torso_fat_mm * (1 + 0.003 * np.clip(along, -100, 100) + 0.10 * uneven - 0.15 * slow)
    muscle_at = body + _SKIN_MM + fat_mm
    paint(canvas, body, signals["muscle"], pixel_mm)
    paint(canvas, body + _SKIN_MM, signals["fat"], pixel_mm)
    paint(canvas, muscle_at, signals["muscle"], pixel_mm)
    paint(canvas, np.abs(muscle_at + 5 + uneven) - 0.2 - 1.1 * slow, signals["fat"], pixel_mm)
    inside = body + inner_mm + 0.5 * (fat_mm - p.torso_fat_mm) - 1.5 * uneven
    _paint_lung(canvas, inside, heart, fields, signals, x, y, pixel_mm)
    _paint_ribs(canvas, heart, torso_x, float(heart_y), signals, x, y, pixel_mm)
    _paint_abdomen(canvas, inside, heart, fields, signals, x, y, pixel_mm)
    _paint_aorta(canvas, heart, signals, x, y, pixel_mm)
    return canvas


def _paint_lung(
    canvas: Array,
    inside: Array,
    heart: Heart,
    fields: AnatomyFields,
    signals: Mapping[str, Array],
    x: Array,
    y: Array,
    pixel_mm: float,
) -> None:
    """Dark lung with bright dots of vessels, denser towards the hilum behind and above the heart."""
    z = heart.slices_mm
    lung = coverage(inside, pixel_mm)
    blend(canvas, lung, signals["lung"])
    center_x, center_y = heart.center(z)
    dx = (x[None, :, None] - center_x[:, None, None] - 38).astype(np.float32)
    dy = (y[None, None, :] - center_y[:, None, None] + 38).astype(np.float32)
    hilum = np.exp(-(dx * dx + dy * dy) / np.float32(45**2))
    excess = fields.lung_vessels.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32) - (2.6 - 0.9 * hilum)
    vessels = np.clip(excess * np.float32(2.2), 0, 0.9)
    blend(canvas, vessels * coverage(inside + 6, pixel_mm), signals["blood"])


def _paint_ribs(
    canvas: Array,
    heart: Heart,
    torso_x: Array,
    torso_y: float,
    signals: Mapping[str, Array],
    x: Array,
    y: Array,
    pixel_mm: float,
) -> None:
    """Ribs every 48 mm of arc inside the chest muscle: grey marrow in a dark rim, unequal in size."""
    p = heart.parameters
    depth = _SKIN_MM + p.torso_fat_mm + 9
    t = np.linspace(0, 2 * math.pi, 721)
    a, b = SEMI_AXES_MM[0] - depth, SEMI_AXES_MM[1] - depth
    curve_x = a * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / _EXPONENT)
    curve_y = b * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / _EXPONENT)
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(curve_x), np.diff(curve_y)))])
    cos, sin = math.cos(p.torso_tilt), math.sin(p.torso_tilt)
    count = int(arc[-1] / _RIB_ARC_MM)
    jitter = np.sin(2.4 * np.arange(count) ** 1.3 + p.rib_phase)
    for k, z in enumerate(heart.slices_mm):
        where = np.mod(p.rib_phase + 0.35 * z + _RIB_ARC_MM * (np.arange(count) + 0.22 * jitter), arc[-1])
        for rib, (s, px, py) in enumerate(
            zip(where, np.interp(where, arc, curve_x), np.interp(where, arc, curve_y), strict=True)
        ):
            center_x, center_y = torso_x[k] + cos * px - sin * py, torso_y + sin * px + cos * py
            ahead = min(s + 2, arc[-1])
            tx = np.interp(ahead, arc, curve_x) - px
            ty = np.interp(ahead, arc, curve_y) - py
            angle = math.atan2(ty, tx) + p.torso_tilt
            half = 8.0 + 3.5 * math.sin(1.9 * rib + 0.05 * z + p.rib_phase)
            i, j = _window(x, center_x, 14), _window(y, center_y, 14)
            if i.start == i.stop or j.start == j.stop:
                continue
            dx, dy = x[i, None] - center_x, y[None, j] - center_y
            c, sn = math.cos(angle), math.sin(angle)
            phi = ellipse(c * dx + sn * dy, c * dy - sn * dx, half, 3.4 + 0.25 * half)
            view = canvas[k, i, j]
            paint(view, phi, _part(signals["fibrous"], k, i, j), pixel_mm)
            paint(view, phi + 1.3, _part(signals["marrow"], k, i, j), pixel_mm)


def _window(centers: Array, middle: float, half: float) -> slice:
    """Slice of the sorted pixel centers within ``half`` mm of ``middle``."""
    first, last = np.searchsorted(centers, (middle - half, middle + half))
    return slice(int(first), int(last))


def _part(signal: Array, k: int, i: slice, j: slice) -> Array | float:
    """Window of a signal that may be one number for all voxels."""
    return signal[k, i, j] if np.ndim(signal) else signal


def _paint_abdomen(
    canvas: Array,
    inside: Array,
    heart: Heart,
    fields: AnatomyFields,
    signals: Mapping[str, Array],
    x: Array,
    y: Array,
    pixel_mm: float,
) -> None:
    """Below the diaphragm, a parabola rising along the stack: fat, liver with vessels, spleen, stomach."""
    p = heart.parameters
    z = heart.slices_mm
    center_x, center_y = heart.center(np.asarray(0.0))
    dx = (x[None, :, None] - center_x - 8 + 0.1 * z[:, None, None]).astype(np.float32)  # (Z, X, 1)
    top = (center_y + p.diaphragm_mm + heart.radius_mm - 22 - _DIAPHRAGM_RISE * z[:, None, None]).astype(np.float32)
    slope = 0.0095 * dx
    dome = top + 0.5 * slope * dx - y[None, None, :].astype(np.float32)
    dome = dome / np.sqrt(1 + slope * slope)  # (Z, X, Y), negative below
    abdomen = np.maximum(dome, inside)
    below = (y[None, None, :] - top).astype(np.float32)
    paint(canvas, abdomen, signals["muscle"], pixel_mm)
    cavity = abdomen + 2.2
    strands = np.clip(fields.muscle.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32) - 0.4, 0, 1)
    paint(canvas, cavity, signals["fat"], pixel_mm)
    blend(canvas, 0.4 * strands * coverage(cavity + 4, pixel_mm), signals["muscle"])

    spleen = np.maximum(ellipse(dx - 62, below - 38, 24.0, 30.0), cavity + 1)
    paint(canvas, spleen, signals["spleen"], pixel_mm)
    size = p.stomach_size_mm
    stomach = np.maximum(ellipse(dx - p.stomach_x_mm + 0.25 * below, below - 4 - size, 1.15 * size, size), cavity + 1)
    paint(canvas, stomach, signals["muscle"], pixel_mm)
    content = signals["stomach"] * (1 - p.stomach_bright) + signals["fat"] * p.stomach_bright
    paint(canvas, stomach + 3.2, content, pixel_mm)

    wavy = 7 * fields.body.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32)
    edge = (dx - p.liver_edge_mm + 0.006 * np.maximum(below, 0) ** 2 + wavy) * 0.85
    liver = np.maximum(edge, cavity + 0.8)
    share = coverage(liver, pixel_mm)
    blend(canvas, share, signals["liver"])
    vessels = np.abs(fields.liver_vessels.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32))
    broken = np.clip(fields.flow.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32) - 0.2, 0, 1)
    tube = np.clip((0.18 - vessels) * 7, 0, 0.8) * broken * coverage(liver + 6, pixel_mm)
    blend(canvas, tube, signals["blood"])


def _paint_aorta(
    canvas: Array, heart: Heart, signals: Mapping[str, Array], x: Array, y: Array, pixel_mm: float
) -> None:
    """Descending aorta, radius 11 mm, on the spine side of the heart."""
    p = heart.parameters
    z = heart.slices_mm[:, None, None]
    center_x, center_y = heart.center(np.asarray(0.0))
    dx = (x[None, :, None] - center_x - p.aorta_x_mm + 0.12 * z).astype(np.float32)
    dy = (y[None, None, :] - center_y - p.aorta_y_mm - 0.05 * z).astype(np.float32)
    phi = disc(dx, 0.92 * dy, 11.0)
    paint(canvas, phi - 1.6, signals["muscle"], pixel_mm)
    paint(canvas, phi, signals["blood"], pixel_mm)
