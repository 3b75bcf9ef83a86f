"""How the C library keeps freed memory: what long loops over large arrays are sensitive to.

Everything here does nothing where the C library is not glibc.
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# parameters of mallopt(3) and values
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def keep_freed_memory() -> None:
    """From now on, keep freed blocks for the next allocation instead of handing them back to the kernel.

    A training step on a CPU frees and asks for the same large temporaries over and over; with the default thresholds
    the kernel maps and clears them anew each time, which took up to half of the time of a mixture-of-experts layer.
    The process stays at its peak memory.
    """
    _set({_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 256 * 2**20})


@contextlib.contextmanager
def returning_freed_memory() -> Iterator[None]:
    """While this lasts, hand blocks of 1 MB and more back as soon as they are freed.

    Decoding volume after volume, of many sizes, otherwise leaves holes in the heap, and the process grows with the
    number of cases. Afterwards freed memory is kept.
    """
    _set({_MMAP_THRESHOLD: 2**20, _TRIM_THRESHOLD: 2**17, _TOP_PAD: 0})
    try:
        yield
    finally:
        keep_freed_memory()


def _set(values: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    for parameter, value in values.items():
        mallopt(parameter, value)
