"""Slices with the edge maps that a discriminator compares them with, computed once."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from .encoded_slices import EncodedSlices
from .fingerprint import fingerprint
from .slices import SliceDataset

CACHE_VERSION = 1  # raise when the meaning of cached values changes
USUAL_SHARE = (0.01, 0.15)
"""Share of pixels on edges of cardiac images, for which the usual thresholds are made."""

logger = logging.getLogger(__name__)


class EdgeMaps(EncodedSlices):
    """Slices as they are, and the edge map of each, which is kept in a cache folder (a byte per pixel).

    The mean share of pixels on edges is logged, with a warning outside of 1 to 15 %: the edges are then empty or noise.

    Args:
        slices: with the key ``image``, in grey levels 0..255.
        cache_dir: folder for the cache, one subfolder per list of slices and edge function.
        edges: images (B, 1, X, Y) in [0, 1] -> edge maps (B, 1, X, Y), uint8, 0 or 1. Must have a stable description:
            a function of a module or a ``functools.partial`` of one.
        batch_size: slices at a time.
        progress: show a bar while computing, if there is a terminal.

    Attributes:
        share: mean share of pixels on edges.

    Raises:
        ValueError: the slices have no ``image``.
    """

    def __init__(
        self,
        slices: SliceDataset,
        cache_dir: str | Path,
        edges: Callable[[Tensor], Tensor],
        *,
        batch_size: int = 32,
        progress: bool = True,
    ) -> None:
        if "image" not in slices.keys:
            raise ValueError(f"EdgeMaps: the slices have the keys {', '.join(slices.keys)}; image is needed.")
        key = fingerprint(CACHE_VERSION, slices.cache_key(), len(slices), edges)

        def encode(indices: Sequence[int]) -> dict[str, Tensor]:
            return {"edges": edges(slices.__getitems__(indices)["image"] / 255)}

        super().__init__(slices, cache_dir, f"edges-{key}", encode, batch_size=batch_size, progress=progress)
        self.share = float(self.arrays["edges"].mean())
        logger.info("%.1f %% of the pixels lie on edges.", 100 * self.share)
        least, most = USUAL_SHARE
        if not least <= self.share <= most:
            logger.warning(
                "%.1f %% of the pixels lie on edges; 1 to 15 %% are usual. %s the thresholds of the edge detector.",
                100 * self.share,
                "Lower" if self.share < least else "Raise",
            )

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, for a loader with `ready_batch`: that of the slices and ``edges`` (B, 1, X, Y) float32."""
        return {**self.slices.__getitems__(indices), "edges": self._rows("edges", indices)}
