"""Independent random streams from one seed."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for; each purpose has streams of its own."""

    ORDER = 1  # permutations of the training data
    STEP = 2  # times, noise and augmentation of a training iteration, the same on every process
    PROCESS = 3  # what layers draw in a training iteration, one stream per process
    SAMPLE = 4  # noise of one generated image
    SCORE = 5  # subsets and bootstraps of an evaluation
    VIEW = 6  # augmented views of training slices that are made once


def derive_seed(stream: Stream, seed: int, *numbers: int) -> int:
    """One 63-bit seed for a purpose, from the run's seed and, for instance, the number of a sample or iteration.

    Different arguments give statistically independent generators.

    Raises:
        ValueError: the seed or a number is negative.
    """
    if min(seed, *numbers, 0) < 0:
        raise ValueError(f"`seed` and what is derived from it must not be negative, got {(seed, *numbers)}.")
    # the length comes first, since SeedSequence takes missing numbers as zeros
    high, low = np.random.SeedSequence([len(numbers), stream, seed, *numbers]).generate_state(2)
    return (int(high) << 32 | int(low)) >> 1
