"""Independent random streams from one seed."""

import numpy as np


def derive_seed(*entropy: int) -> int:
    """One 63-bit seed from several non-negative integers; different tuples give statistically independent streams."""
    high, low = np.random.SeedSequence(entropy).generate_state(2)
    return (int(high) << 32 | int(low)) >> 1
