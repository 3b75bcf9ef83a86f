"""Memory settings of the C library that CPU training is sensitive to."""

import ctypes
import sys

# parameters of mallopt(3)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next step instead of handing them back to the kernel.

    A training step on a CPU frees and asks for the same large temporaries over and over; with the default thresholds
    the kernel maps and clears them anew each time, which took up to half of the time of a mixture-of-experts layer.
    Costs at most the process's peak memory. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the largest value glibc takes
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 256 * 2**20)
