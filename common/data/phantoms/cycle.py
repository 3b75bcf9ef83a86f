"""The heart's cycle: contraction as a function of phase."""

import math

import numpy as np
from numpy.typing import NDArray


def smoothstep(t: NDArray[np.floating]) -> NDArray[np.floating]:
    """``3 t^2 - 2 t^3`` between 0 and 1, constant outside."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def contraction(phases: NDArray[np.floating], es_phase: float) -> NDArray[np.floating]:
    """Contraction at phases of the cycle in [0, 1): 0 at end-diastole, 1 at the phase nearest to end-systole.

    ``sin^2`` up to end-systole; then 72 % of the filling as a smooth step over the next 38 % of diastole, a plateau,
    and the last 28 % between phases .72 and .98 (atrial kick).
    """
    rise = np.sin(0.5 * math.pi * np.minimum(phases / es_phase, 1)) ** 2
    early = 0.72 * smoothstep((phases - es_phase) / (0.38 * (1 - es_phase)))
    late = 0.28 * smoothstep((phases - 0.72) / 0.26)
    s = rise * (1 - early - late)
    return s / s.max()
