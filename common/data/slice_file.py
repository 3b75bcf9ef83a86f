"""Write one ``.npy`` array of slices piece by piece, when their number is known only at the end."""

import io
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 128  # what the .npy header of every such array takes: numpy leaves room for 21 digits, pads to 64


class SliceWriter:
    """Appends slices to ``file``, which becomes an ``.npy`` array (N, K, X, Y) that `np.load` can map.

    Args:
        file: open for binary writing, at its start.
        dtype: float16 or uint8; values are rounded to it.
    """

    def __init__(self, file: BinaryIO, dtype: np.dtype) -> None:
        self.file, self.dtype = file, dtype
        self.count = 0
        self._plane: tuple[int, ...] = ()
        self._first = ""
        file.write(bytes(_HEADER_BYTES))

    def append(self, stack: NDArray[np.float32], source: str) -> None:
        """Add slices (n, K, X, Y) of the image ``source``.

        Raises:
            ValueError: their size differs from the earlier ones, or the storage type cannot hold the values.
        """
        plane = stack.shape[1:]
        if not self._plane:
            self._plane, self._first = plane, source
        if plane != self._plane:
            raise ValueError(
                f"{source} has slices of {plane[1]} x {plane[2]} pixels, {self._first} of {self._plane[1]} x "
                f"{self._plane[2]}. Put a crop into the transforms so that all have one size."
            )
        if len(stack) == 0:
            return
        low, high = (-0.5, 255.49) if self.dtype == np.uint8 else (-65504.0, 65504.0)
        if stack.min() < low or stack.max() > high:
            raise ValueError(
                f"{source} has values from {stack.min():g} to {stack.max():g}, which {self.dtype} cannot hold. Put an "
                "intensity window to 0..255 into the transforms."
            )
        stack = stack.round() if self.dtype == np.uint8 else stack
        self.file.write(stack.astype(self.dtype).tobytes())
        self.count += len(stack)

    def finish(self) -> None:
        """Write the header, now that the number of slices is known."""
        self.file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self._plane)}
        np.lib.format.write_array_header_1_0(self.file, header)
        if self.file.tell() != _HEADER_BYTES:
            raise RuntimeError(f"The .npy header takes {self.file.tell()} bytes, not {_HEADER_BYTES}.")


def as_array(buffer: io.BytesIO) -> NDArray:
    """The finished array of a `SliceWriter` on a buffer in memory, without a copy."""
    buffer.seek(0)
    np.lib.format.read_magic(buffer)
    shape, _, dtype = np.lib.format.read_array_header_1_0(buffer)
    return np.frombuffer(buffer.getbuffer(), dtype=dtype, offset=buffer.tell()).reshape(shape)
