"""Images of a heart: painting of each phase over the torso, then the scanner (coil, gain, noise)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cardiac_fields import AnatomyFields, ScannerFields
from .cardiac_heart import RV_WALL_MM, Heart, Planes
from .cardiac_parameters import ScannerParameters
from .cardiac_torso import paint_torso
from .painting import blend, coverage, ellipse, paint, smooth_min
from .signal import TISSUES_1T5, bssfp, bssfp_on_resonance, coil_sensitivity, rician
from .streams import NOISE, Stream

Array = NDArray[np.floating]
Signals = Mapping[str, Array]

_SUB_SLICES = (-0.3, 0.3)  # of the slice distance: two planes stand for the slice thickness
_MARGIN_MM = 20.0  # of the heart's box around the ventricles: fat, pericardium, atria
_TRABECULA_ANGLES = 256
BLOOD_SIGNAL = bssfp_on_resonance(TISSUES_1T5["blood"])


def ideal_signals() -> dict[str, Array]:
    """On-resonance signal of every tissue without texture, one number each."""
    return {name: np.asarray(bssfp_on_resonance(tissue), dtype=np.float32) for name, tissue in TISSUES_1T5.items()}


def textured_signals(
    anatomy: AnatomyFields, scanner: ScannerFields, x: Array, y: Array, z: Array, *, banding: bool
) -> dict[str, Array]:
    """Signal (Z, X, Y) of every tissue under this case's off-resonance, with flow in blood and texture in muscle.

    ``banding`` triples the off-resonance, which brings dark bands into the picture.
    """
    xx, yy = x[:, None], y[None, :]
    bowl = 26 * xx * yy / 1e4 + 18 * ((xx / 110) ** 2 + (yy / 140) ** 2)
    off = 28 * scanner.off_resonance.on_grid(x, y, z).transpose(2, 0, 1) + bowl
    off = (off * (3 if banding else 1)).astype(np.float32)
    signals = {name: bssfp(tissue, off).astype(np.float32) for name, tissue in TISSUES_1T5.items()}
    signals["blood"] *= 1 + 0.07 * anatomy.flow.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32)
    mottle = 1 + 0.05 * anatomy.muscle.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32)
    for name in ("myocardium", "muscle"):
        signals[name] *= mottle
    return signals


class CardiacPainter:
    """Paints the noiseless signal of one heart at any contraction; what does not move is painted once.

    Args:
        heart: the solved heart.
        fields: its anatomy fields.
        signals: signal of every tissue, numbers or arrays (Z, X, Y). Painting is linear in them: with one tissue at 1
            and the others at 0 the result is that tissue's coverage.
        x, y: pixel centers in mm.
    """

    def __init__(self, heart: Heart, fields: AnatomyFields, signals: Signals, x: Array, y: Array) -> None:
        self.heart = heart
        self.pixel_mm = float(x[1] - x[0])
        self.torso = paint_torso(heart, fields, signals, x, y, self.pixel_mm)
        p = heart.parameters
        z = heart.slices_mm
        self.box = self._box(x, y)
        i, j = self.box
        sub = (z[:, None] + np.array(_SUB_SLICES) * p.slice_mm).ravel()  # (2 Z,), ascending
        self.planes = Planes(heart, x[i], y[j], sub, np.float32)
        self.signals = {
            name: np.repeat(signals[name][:, i, j], len(_SUB_SLICES), axis=0)
            if np.ndim(signals[name])
            else signals[name]
            for name in ("blood", "myocardium", "fat", "fibrous")
        }
        self.background = np.repeat(self.torso[:, i, j], len(_SUB_SLICES), axis=0)  # (2 Z, bx, by)
        self.fat_mm = self._fat(fields, x[i], y[j])
        self.spikes, self.mesh = self._trabeculae(fields, x[i], y[j])

    def paint(self, s: float) -> Array:
        """Noiseless signal (Z, X, Y) at contraction ``s``, float32."""
        canvas = self.background.copy()
        endo, epi = self.planes.walls(s)
        right = self.planes.right(s)
        depth = self.planes.depth(s)[:, 0, 0]
        above = int(np.searchsorted(depth, 0.0))  # planes 0..above-1 lie above the base
        atrium, root = self._great_vessels(s, above)
        left = epi.copy()
        left[:above] = np.minimum(atrium, root) - 2.2

        px = self.pixel_mm
        hull = smooth_min(left, right - RV_WALL_MM, 9.0)
        paint(canvas, hull - np.maximum(self.fat_mm, 0) - 1.3, self.signals["fibrous"], px)
        paint(canvas, hull - self.fat_mm, self.signals["fat"], px)
        paint(canvas, right - RV_WALL_MM, self.signals["myocardium"], px)
        self._paint_right(canvas, right)
        paint(canvas, left, self.signals["myocardium"], px)
        if above:
            planes = slice(above)
            paint(canvas[planes], np.minimum(atrium, root), self._range("blood", planes), px)
            paint(canvas[planes], np.abs(root) - 0.9, self._range("myocardium", planes), px)
        self._paint_left(canvas, endo, depth, s)

        image = self.torso.copy()
        i, j = self.box
        pairs = canvas.reshape(-1, len(_SUB_SLICES), *canvas.shape[1:])  # (Z, 2, bx, by)
        image[:, i, j] = pairs.mean(axis=1)
        return image

    def _twice(self, signal: Array) -> Array:
        """The box of a signal (Z, X, Y) for the sub-slices, (2 Z, bx, by); one number stays one."""
        return np.repeat(signal[:, *self.box], len(_SUB_SLICES), axis=0) if signal.ndim else signal

    def _range(self, name: str, planes: slice) -> Array:
        signal = self.signals[name]
        return signal[planes] if signal.ndim else signal

    def _box(self, x: Array, y: Array) -> tuple[slice, slice]:
        """Pixels within a margin of the ventricles at end-diastole, in any slice."""
        planes = Planes(self.heart, x, y, self.heart.slices_mm, np.float32)
        near = np.minimum(planes.walls(0.0)[1], planes.right(0.0)).min(axis=0) < _MARGIN_MM
        i, j = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        return slice(int(i[0]), int(i[-1]) + 1), slice(int(j[0]), int(j[-1]) + 1)

    def _fat(self, fields: AnatomyFields, x: Array, y: Array) -> Array:
        """Thickness (2 Z, bx, by) of the fat under the pericardium: uneven, more in the anterior groove and below."""
        p = self.heart.parameters
        z = self.planes.z
        thickness = 4 * np.tanh(fields.fat.on_grid(x, y, z).transpose(2, 0, 1)).astype(np.float32)
        lateral = self.heart.radius_mm + p.wall_mm
        for turn, distance, size in ((0.75, 1.25, 5.0), (-0.9, 1.9, 6.0)):
            angle = p.rv_direction + turn
            dx, dy = (
                self.planes.x - distance * lateral * math.cos(angle),
                self.planes.y - distance * lateral * math.sin(angle),
            )
            thickness += np.float32(size) * np.exp(-(dx * dx + dy * dy) / np.float32(13**2))
        return thickness * np.float32(p.torso_fat_mm / 12)

    def _trabeculae(self, fields: AnatomyFields, x: Array, y: Array) -> tuple[Array, Array]:
        """Relative depth of the ridges at the left wall (they move with it), and share of the mesh at the right one."""
        p = self.heart.parameters
        z = self.planes.z
        angles = (np.arange(_TRABECULA_ANGLES) + 0.5) * (2 * math.pi / _TRABECULA_ANGLES) - math.pi
        points = np.broadcast_arrays(25 * np.cos(angles), 25 * np.sin(angles), z[:, None])
        u = np.clip((z / p.length_mm)[:, None], 0, 1)
        extent = np.clip(0.6 + 0.8 * fields.flow.at(*points), 0, 1.6) * (0.10 + 0.22 * u)  # smooth walls in between
        ridges = np.clip(fields.trabeculae.at(*points) - 0.4, 0, 1.3) * extent  # (2 Z, angles)
        index = ((self.planes.theta + math.pi) * (_TRABECULA_ANGLES / (2 * math.pi))).astype(np.intp)
        index = np.minimum(index, _TRABECULA_ANGLES - 1)
        spikes = np.take_along_axis(ridges.astype(np.float32), index.reshape(len(z), -1), axis=1).reshape(index.shape)
        mesh = fields.muscle.on_grid(x, y, z).transpose(2, 0, 1).astype(np.float32)
        return spikes, np.clip((mesh - 0.75) * 1.2, 0, 0.65)

    def _great_vessels(self, s: float, above: int) -> tuple[Array, Array]:
        """Left atrium (an ellipse behind the base) and aortic root (a circle on the right ventricle's side)."""
        p = self.heart.parameters
        x, y = self.planes.x[:above], self.planes.y[:above]
        size = self.heart.radius_mm * (1 + 0.08 * s)
        cos, sin = math.cos(p.rv_direction), math.sin(p.rv_direction)
        toward, aside = x * cos + y * sin, y * cos - x * sin
        atrium = ellipse(toward + 0.28 * size, aside + 0.1 * size, 0.80 * size, 1.02 * size)
        root = np.sqrt((toward - 0.62 * size) ** 2 + (aside - 0.42 * size) ** 2) - 12.5
        return atrium, root

    def _paint_right(self, canvas: Array, right: Array) -> None:
        """Blood of the right ventricle, its border broken by trabeculae."""
        share = coverage(right, self.pixel_mm)
        near_wall = np.clip((right + 12) * np.float32(1 / 6), 0, 1)
        blend(canvas, share * (1 - self.mesh * near_wall), self.signals["blood"])

    def _paint_left(self, canvas: Array, endo: Array, depth: Array, s: float) -> None:
        """Blood of the left ventricle behind its trabeculae, then the two papillary muscles."""
        p = self.heart.parameters
        first, last = np.searchsorted(depth, (0.0, 1.0))
        part = slice(int(first), int(last))
        if part.start == part.stop:
            return
        radius = self.planes.radius[part]
        wall = radius - endo[part]  # endocardial radius
        view = canvas[part]
        share = coverage(endo[part] + self.spikes[part] * wall, self.pixel_mm)
        blend(view, share, self._range("blood", part))
        u = depth[part][:, None, None]
        thick = np.sqrt(np.clip(1 - ((u - 0.5) / 0.28) ** 2, 0, 1))
        cavity = self.heart.radius_mm * np.sqrt(1 - u**2.4) * (1 - self.heart.squeeze * s)
        for side in (-2.2, 2.2):
            angle = p.rv_direction + side + 0.15 * s
            dx = self.planes.x[part] - 0.66 * cavity * math.cos(angle)
            dy = self.planes.y[part] - 0.66 * cavity * math.sin(angle)
            phi = np.sqrt(dx * dx + dy * dy) - 0.2 * self.heart.radius_mm * thick
            phi = np.where(thick > 0, np.maximum(phi, endo[part]), 1e3)
            paint(view, phi, self._range("myocardium", part), self.pixel_mm)


@dataclass(frozen=True)
class Scanner:
    """From noiseless signal to grey levels: receive profile (Z, X, Y) times gain, Rician noise, rounding.

    Args:
        profile: texture, coil sensitivity and gain in one factor; grey levels per unit of signal.
        sigma: standard deviation (grey levels) of either quadrature channel; 0 switches the noise off.
    """

    profile: Array | float
    sigma: float

    @classmethod
    def ideal(cls, parameters: ScannerParameters) -> "Scanner":
        """Gain only."""
        return cls(parameters.gain / BLOOD_SIGNAL, 0.0)

    @classmethod
    def real(
        cls, parameters: ScannerParameters, anatomy: AnatomyFields, fields: ScannerFields, x: Array, y: Array, z: Array
    ) -> "Scanner":
        """Coil, smooth sensitivity field, texture, gain and noise of this case."""
        texture = 1 + 0.018 * anatomy.texture.on_grid(x, y, z).transpose(2, 0, 1)
        bias = np.exp(0.07 * fields.coil.on_grid(x, y, z).transpose(2, 0, 1))
        profile = texture * bias * coil_sensitivity(x[:, None], y[None, :]) * (parameters.gain / BLOOD_SIGNAL)
        return cls(profile.astype(np.float32), parameters.gain / parameters.snr)

    def magnitude(self, signal: Array, stream: Stream) -> Array:
        """Magnitude image of one frame (Z, X, Y) before rounding; ``stream`` belongs to this frame alone."""
        scaled = signal * self.profile
        return rician(scaled, self.sigma, stream.normals(2, *signal.shape)) if self.sigma else scaled

    def acquire(self, signal: Array, stream: Stream) -> NDArray[np.int16]:
        """Grey levels of one frame (Z, X, Y): the magnitude, rounded."""
        return np.rint(self.magnitude(signal, stream)).astype(np.int16)


def noise_stream(seed: int, case: int, frame: int, scan: int = 0) -> Stream:
    """Noise of one frame; ``scan`` > 0 is a repeated scan of the same heart."""
    return Stream(seed, "cardiac", case, NOISE if scan == 0 else 10 + NOISE, frame, scan)
