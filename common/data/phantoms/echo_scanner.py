"""Ultrasound imaging of the echo phantom: speckle that moves with the tissue, log compression, scan conversion."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from .echo_anatomy import HIGH, LOW, EchoParameters, Motion, echogenicity, leaflets
from .random_field import SmoothField
from .streams import Stream

Array = NDArray[np.floating]

SIZE = 112
PIXEL = 1.09 / SIZE  # imaging depths per pixel
_TOP = -2.0  # row of the probe
_DEPTH_SAMPLES, _BEAMS = 224, 144
_PSF = (1.3, 1.6)  # standard deviations, samples: axial, lateral
_MATERIAL_PITCH = 0.004  # of the scatterer lattice
_DYNAMIC_RANGE_DB = 42.0
_BLOOD, _LEAFLET = 0.022, 1.3
_SMOOTHING = (1.2, 0.9)  # of the envelope, samples: video processing tames the speckle


def to_pixels(x: Array, y: Array) -> tuple[Array, Array]:
    """Pixel coordinates (column, row) of points in imaging depths; the probe is at the top center."""
    return (SIZE - 1) / 2 + np.asarray(x) / PIXEL, _TOP + np.asarray(y) / PIXEL


class EchoScanner:
    """Renders frames of one clip; scatterers and echogenicity are fixed to the tissue.

    Args:
        parameters: the drawn scalars.
        texture: smooth field over (a, b); clutter, window: over (depth, angle), for haze and uneven acoustic contact.
        scatterers: two channels of N(0, 1) on the material lattice, shape (2, A, B) of :func:`lattice_shape`.
    """

    def __init__(
        self,
        parameters: EchoParameters,
        texture: SmoothField,
        clutter: SmoothField,
        window: SmoothField,
        scatterers: Array,
    ) -> None:
        self.parameters = p = parameters
        a = LOW[0] + _MATERIAL_PITCH * np.arange(scatterers.shape[1])
        b = LOW[1] + _MATERIAL_PITCH * np.arange(scatterers.shape[2])
        amplitude, blood = echogenicity(p, texture, *np.meshgrid(a, b, indexing="ij"))
        self._tissue = (scatterers * amplitude).astype(np.float32)  # (2, A, B)
        self._blood = blood.astype(np.float32)

        depth = (np.arange(_DEPTH_SAMPLES) + 0.5) / _DEPTH_SAMPLES
        angle = np.linspace(-1, 1, _BEAMS) * p.half_angle
        self._x, self._y = depth[:, None] * np.sin(angle), depth[:, None] * np.cos(angle)  # (depth, beams)
        haze = np.clip(1 + 0.6 * clutter.on_grid(depth, angle), 0.1, None)
        self._near = 0.55 * np.exp(-((depth[:, None] / 0.075) ** 2)) * haze + 0.02 * haze
        lateral = 1 - 0.45 * (np.abs(angle) / p.half_angle) ** 3
        self._sensitivity = lateral * (1 - 0.35 * depth[:, None] ** 2) * np.exp(0.45 * window.on_grid(depth, angle))
        # An isotropic white field of unit variance per channel leaves the PSF with this mean square.
        self._unit = math.sqrt(2 / (4 * math.pi * _PSF[0] * _PSF[1]))
        self._fixed_speckle = scatterers[:, :_DEPTH_SAMPLES, :_BEAMS]

        column, row = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
        x, y = (column - (SIZE - 1) / 2) * PIXEL, (row - _TOP) * PIXEL
        radius, direction = np.hypot(x, y), np.arctan2(x, y)
        self._sector = (radius < 1) & (np.abs(direction) <= p.half_angle)
        self._polar = np.stack(
            [
                radius * _DEPTH_SAMPLES - 0.5,
                (direction / p.half_angle + 1) * (0.5 * (_BEAMS - 1)),
            ]
        )

    def frame(self, s: float, opening: float, stream: Stream) -> NDArray[np.uint8]:
        """Picture (SIZE, SIZE), x first, at contraction ``s`` and valve ``opening``; ``stream`` gives new blood."""
        motion = Motion(self.parameters, s)
        a, b = motion.local(self._x, self._y)
        knots = [(c - low) / _MATERIAL_PITCH for c, low in zip(motion.material(a, b), LOW, strict=True)]
        echo = np.stack([map_coordinates(channel, knots, order=1, mode="nearest") for channel in self._tissue])
        fresh = stream.normals(2, *self._x.shape)
        echo += _BLOOD * fresh
        valve = np.clip(0.5 - leaflets(motion, opening, a, b) / 0.006, 0, 1)
        echo += valve * _LEAFLET * self._fixed_speckle + self._near * self._fixed_speckle[:, ::-1]
        envelope = np.hypot(*(gaussian_filter(channel, _PSF) for channel in echo)) / self._unit
        envelope = gaussian_filter(envelope, _SMOOTHING)
        decibel = 20 * np.log10(np.maximum(envelope * self._sensitivity, 1e-6) / 1.1)
        grey = np.clip(1 + decibel / _DYNAMIC_RANGE_DB, 0, 1) * self.parameters.gain
        picture = map_coordinates(grey, self._polar, order=1, mode="nearest")
        picture = np.where(self._sector, np.clip(picture, 0, 1), 0)
        return np.rint(255 * picture**1.7).astype(np.uint8)


def lattice_shape() -> tuple[int, int]:
    """Size of the lattice of scatterers over the box of (a, b)."""
    count_a, count_b = (math.ceil((high - low) / _MATERIAL_PITCH) for low, high in zip(LOW, HIGH, strict=True))
    return count_a, count_b
