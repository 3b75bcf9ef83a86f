"""The "data set" of an unconditional generator: numbers of the samples to draw."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from torch.utils.data import Dataset


class SampleRequests(Dataset):
    """``number`` requests ``{"image": empty template (1, X, Y) with an affine, "index": i}``.

    Args:
        number: how many samples to draw.
        image_size: pixels along x and y.
        spacing_mm: pixel size written to the affine; ``None`` (unknown): 1 mm.
        start: number of the first sample; samples are seeded by their number.
    """

    def __init__(self, number: int, image_size: Sequence[int], spacing_mm: float | None = None, start: int = 0) -> None:
        if number < 1:
            raise ValueError(f"SampleRequests: num_samples={number}; ask for at least one sample.")
        self.number = number
        self.image_size = tuple(image_size)
        self.start = start
        spacing = 1.0 if spacing_mm is None else spacing_mm
        self.affine = np.diag([-spacing, -spacing, 1.0, 1.0])  # x to the left, y to the back, as MR headers have it

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, position: int) -> dict:
        image = MetaTensor(torch.zeros(1, *self.image_size), affine=torch.as_tensor(self.affine))
        return {"image": image, "index": self.start + position}
