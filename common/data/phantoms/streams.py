"""Random streams of the phantoms: one per case and purpose, none shared, the same on every platform."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

KIND_IDS = {"cardiac": 1, "brain": 2, "lesion": 3, "echo": 4, "whole_heart": 5}

ANATOMY, SCANNER, NOISE = 0, 1, 2  # child streams of one case

_SMALLEST = 1e-12  # uniform draws are kept this far from 0 and 1 before they become normal: |N| < 7.04


class Stream:
    """Draws of one child of one case, all made from ``PCG64.random()``.

    numpy promises the values of a generator's other methods (``normal``, ``choice``, ...) for one version only, whereas
    uniform doubles of PCG64 have never changed; every distribution here is therefore a formula over them.

    Args:
        seed: seed of the whole phantom set, 0 <= seed < 2**32.
        kind: a key of :data:`KIND_IDS`.
        case: number of the case, from 0.
        children: child number (:data:`ANATOMY`, :data:`SCANNER`, :data:`NOISE`, ...), if need be a path of several.
    """

    def __init__(self, seed: int, kind: str, case: int, *children: int) -> None:
        if not 0 <= seed < 2**32:
            raise ValueError(f"Stream: seed={seed} must lie in 0..2**32-1; choose another seed.")
        entropy = [seed, KIND_IDS[kind], case, *children]
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def uniform(self, low: float, high: float) -> float:
        """One draw from U(low, high)."""
        return low + (high - low) * float(self._generator.random())

    def log_uniform(self, low: float, high: float) -> float:
        """One draw whose logarithm is uniform between those of ``low`` and ``high``."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def integer(self, n: int) -> int:
        """One of 0..n-1."""
        return int(n * float(self._generator.random()))

    def uniforms(self, *shape: int) -> NDArray[np.float64]:
        """Array of ``shape`` of U(0, 1)."""
        return self._generator.random(shape)

    def normals(self, *shape: int) -> NDArray[np.float64]:
        """Array of ``shape`` of N(0, 1): the quantile function of uniform draws."""
        return ndtri(np.clip(self._generator.random(shape), _SMALLEST, 1 - _SMALLEST))
