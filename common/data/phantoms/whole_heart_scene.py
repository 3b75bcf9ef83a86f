"""Canvas of a whole heart: image and labels are painted together, later shapes hide earlier ones."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .brain_scene import Box
from .painting import blend, coverage

Array = NDArray[np.floating]


class WholeHeartScene:
    """Image and label map (X, Y, Z) of one modality.

    Args:
        shape: of the grid.
        pixel_mm: in-plane pixel, over which borders are averaged.
        values: of every tissue, a number or an array (X, Y, Z); ``air`` fills the canvas.
    """

    def __init__(self, shape: tuple[int, int, int], pixel_mm: float, values: Mapping[str, Array | float]) -> None:
        self.pixel_mm, self.values = pixel_mm, values
        self.image = np.full(shape, values["air"], dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.int16)

    def paint(self, box: Box, phi: Array, tissue: str, label: int | None = None) -> None:
        """Paint ``phi`` (mm, negative inside; on ``box``); ``label`` None leaves the labels as they are."""
        share = coverage(np.asarray(phi, dtype=np.float32), self.pixel_mm)
        self.blend(box, share, tissue)
        if label is not None:
            self.labels[box][phi < 0] = label

    def blend(self, box: Box, share: Array, tissue: str) -> None:
        """Mix a tissue in with the given share of each voxel."""
        value = self.values[tissue]
        blend(self.image[box], share, value[box] if isinstance(value, np.ndarray) else float(value))
