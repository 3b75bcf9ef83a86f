"""Real slices beside which the samples of a generator are scored."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .slices import SliceDataset


class EvaluationSlices(SliceDataset):
    """``number`` entries: entry i asks for sample number i and holds a real slice to compare the set with.

    The real slices are spread evenly over the data set; if it has fewer than ``number``, slices come up more than once.

    Args:
        data: as for :class:`SliceDataset`.
        transform: as for :class:`SliceDataset`.
        cache_dir: as for :class:`SliceDataset`.
        number: samples to draw.
        keys, inputs, storage, min_foreground, leaky_section: as for :class:`SliceDataset`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        cache_dir: str | Path | None = None,
        *,
        number: int,
        keys: Sequence[str] = ("image",),
        inputs: Sequence[str] = (),
        storage: str = "float16",
        min_foreground: float | None = 0.0,
        leaky_section: str | None = None,
    ) -> None:
        super().__init__(
            data,
            transform,
            cache_dir,
            keys=keys,
            inputs=inputs,
            storage=storage,
            min_foreground=min_foreground,
            leaky_section=leaky_section,
        )
        if number < 2:
            raise ValueError(f"EvaluationSlices: {number} samples cannot be scored; ask for at least 2.")
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{key: (1, X, Y) float32, ..., "index": number of the sample}``."""
        return {**super().__getitem__(self._slice(index)), "index": int(index)}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, ``{key: (B, 1, X, Y) float32, ..., "index": (B,)}``."""
        batch = super().__getitems__([self._slice(index) for index in indices])
        return {**batch, "index": torch.as_tensor(np.asarray(indices, dtype=np.int64))}

    def describe(self, index: int) -> str:
        """Where the real slice of sample number ``index`` comes from."""
        return super().describe(self._slice(index))

    def _slice(self, index: int) -> int:
        return int((index + 0.5) * len(self.images) / self.number)
