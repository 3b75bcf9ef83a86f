"""Magnetic resonance signal: tissues at 1.5 T, balanced SSFP, surface coils and Rician noise."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Tissue:
    """Relaxation times T1, T2 in ms and relative proton density."""

    t1: float
    t2: float
    pd: float


# 1.5 T. Blood, myocardium, muscle: Stanisz et al., MRM 2005; fat, liver, spleen, marrow: de Bazelaire et al., Radiology
# 2004; the rest and all proton densities are chosen for appearance.
TISSUES_1T5 = {
    "blood": Tissue(1441, 290, 0.95),
    "myocardium": Tissue(1030, 40, 0.80),
    "muscle": Tissue(1008, 44, 0.80),
    "fat": Tissue(343, 58, 0.90),
    "liver": Tissue(586, 46, 0.75),
    "spleen": Tissue(1057, 79, 0.85),
    "marrow": Tissue(549, 49, 0.35),
    "stomach": Tissue(900, 60, 0.75),
    "lung": Tissue(1000, 30, 0.12),
    "fibrous": Tissue(400, 1, 0.05),  # pericardium, cortical bone: almost no signal
}

REPETITION_MS, ECHO_MS, FLIP_RAD = 3.2, 1.6, math.radians(60)


def bssfp(tissue: Tissue, off_resonance_hz: Array | float = 0.0) -> Array:
    """Balanced SSFP signal of a tissue with alternating pulses at the given off-resonance (Freeman and Hill 1971).

    ``S = PD sin a (1-E1) sqrt(1 + E2^2 - 2 E2 cos p) exp(-TE/T2) / D``,
    ``D = (1 - E1 cos a)(1 - E2 cos p) - E2 (E1 - cos a)(E2 - cos p)``
    with ``p = pi + 2 pi df TR``; the first dark band lies at ``df = 1/(2 TR)`` = 156 Hz.
    """
    e1, e2 = math.exp(-REPETITION_MS / tissue.t1), math.exp(-REPETITION_MS / tissue.t2)
    cos_a = math.cos(FLIP_RAD)
    cos_p = -np.cos(np.asarray(off_resonance_hz) * (2 * math.pi * REPETITION_MS / 1000))
    top = tissue.pd * math.sin(FLIP_RAD) * (1 - e1) * np.sqrt(1 + e2 * e2 - 2 * e2 * cos_p)
    bottom = (1 - e1 * cos_a) * (1 - e2 * cos_p) - e2 * (e1 - cos_a) * (e2 - cos_p)
    return top / bottom * math.exp(-ECHO_MS / tissue.t2)


def bssfp_on_resonance(tissue: Tissue) -> float:
    """Short form for df = 0: ``PD sin a (1-E1) exp(-TE/T2) / (1 - (E1-E2) cos a - E1 E2)``."""
    e1, e2 = math.exp(-REPETITION_MS / tissue.t1), math.exp(-REPETITION_MS / tissue.t2)
    bottom = 1 - (e1 - e2) * math.cos(FLIP_RAD) - e1 * e2
    return tissue.pd * math.sin(FLIP_RAD) * (1 - e1) / bottom * math.exp(-ECHO_MS / tissue.t2)


def coil_sensitivity(x: Array, y: Array) -> Array:
    """Sensitivity ``.62 + .95 e^-(d/150)^2 + .25 e^-(d'/140)^2`` of surface coils at (-110, -70) and (130, 60) mm."""
    anterior = ((x + 110) ** 2 + (y + 70) ** 2) / 150**2
    posterior = ((x - 130) ** 2 + (y - 60) ** 2) / 140**2
    return 0.62 + 0.95 * np.exp(-anterior) + 0.25 * np.exp(-posterior)


def rician(signal: Array, sigma: float, noise: Array) -> Array:
    """Magnitude ``sqrt((signal + sigma n1)^2 + (sigma n2)^2)``; noise (2, ...) holds n1 and n2 of N(0, 1)."""
    real = signal + sigma * noise[0]
    imaginary = sigma * noise[1]
    return np.sqrt(real * real + imaginary * imaginary)
