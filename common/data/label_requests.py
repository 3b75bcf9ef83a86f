"""Which label map each sample of a synthetic set is made from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..seeds import Stream, derive_seed
from .slices import SliceDataset

Deform = Callable[[Tensor, torch.Generator], Tensor]
"""``deform(labels (B, 1, X, Y), generator) -> labels``, values as they are (nearest neighbor)."""

_TRIES = 20  # a deformation may push the heart out of the image


class LabelRequests(Dataset):
    """The label maps that ``number`` synthetic samples are conditioned on.

    All maps with enough labelled pixels come in a seeded order, each once; when there are more samples than maps, they
    come again in further orders, deformed. Sample i is a function of the maps, ``seed`` and i alone: of two sets, the
    smaller one is the beginning of the larger.

    Args:
        slices: slices of the TRAINING patients, with class indices under ``label``.
        number: how many samples to draw.
        min_label_pixels: maps with fewer labelled (non-zero) pixels are not used, deformed or not.
        seed: seed of the order and of the deformations.
        deform: makes a new label map from a map; None: only as many samples as there are maps.
        start: number of the first sample.

    Attributes:
        eligible: (E,) int64, the numbers of the slices whose maps are used.
        source_patients: whose label maps the samples are made from, sorted.

    Raises:
        ValueError: no label map is large enough, or more samples than maps are asked for without ``deform``.
    """

    def __init__(
        self,
        slices: SliceDataset,
        number: int,
        *,
        min_label_pixels: int = 64,
        seed: int = 0,
        deform: Deform | None = None,
        start: int = 0,
    ) -> None:
        if number < 1 or start < 0:
            raise ValueError(f"LabelRequests: number={number} and start={start}; ask for at least 1 sample, from 0 on.")
        if "label" not in slices.keys:
            raise ValueError(f"LabelRequests: the slices hold {', '.join(slices.keys)}, but no 'label'.")
        self.slices, self.number, self.start = slices, number, start
        self.min_label_pixels, self.seed, self.deform = min_label_pixels, seed, deform
        column = slices.keys.index("label")
        pixels = np.array([np.count_nonzero(images[column]) for images in slices.images])
        self.eligible = np.flatnonzero(pixels >= max(min_label_pixels, 1))
        if len(self.eligible) == 0:
            raise ValueError(
                f"LabelRequests: none of the {len(slices)} label maps has {min_label_pixels} labelled pixels (the most "
                f"has {pixels.max()}); lower min_label_pixels, or check the label maps."
            )
        if deform is None and start + number > len(self.eligible):
            raise ValueError(
                f"LabelRequests: samples up to number {start + number} are asked for, but only {len(self.eligible)} "
                f"label maps have {min_label_pixels} labelled pixels; ask for fewer samples, or deform the maps."
            )
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._patients = slices.patients
        self.source_patients = sorted({self._patients[self.source(index)] for index in self.indices})

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, position: int) -> dict[str, Any]:
        """``{"label": MetaTensor (1, X, Y) float32 with the source's affine, ...}`` and where it comes from.

        ``index``: number of the sample; ``case``: its name; ``source_patient``, ``source_case``, ``source_slice``
        (from 0); ``deformed``. Without ``deform`` also the other images of the slice, as they are.
        """
        index = self.indices[position]
        number = self.source(index)
        images = self.slices[number]
        label, deformed = images.pop("label"), index >= len(self.eligible)
        if deformed:
            label = self._deformed(label, index)
        item, _, place = (int(value) for value in self.slices.origin[number])
        return {
            **({} if self.deform else images),
            "label": MetaTensor(label, affine=self.slices.affine(number)),
            "index": index,
            "case": sample_name(index),
            "source_patient": self._patients[number],
            "source_case": str(self.slices.data[item].get("case", f"item {item}")),
            "source_slice": place,
            "deformed": deformed,
        }

    @property
    def indices(self) -> range:
        """Numbers of the samples."""
        return range(self.start, self.start + self.number)

    def source(self, index: int) -> int:
        """Number of the slice whose label map sample ``index`` is made from."""
        turn, place = divmod(index, len(self.eligible))
        if turn not in self._orders:
            random = np.random.default_rng(derive_seed(Stream.ORDER, self.seed, turn))
            self._orders[turn] = random.permutation(self.eligible)
        return int(self._orders[turn][place])

    def patient(self, index: int) -> str:
        """Whose label map sample ``index`` is made from."""
        return self._patients[self.source(index)]

    def _deformed(self, label: Tensor, index: int) -> Tensor:
        """(1, X, Y) -> (1, X, Y)."""
        if self.deform is None:
            raise AssertionError("the constructor refuses more samples than maps")
        generator = torch.Generator().manual_seed(derive_seed(Stream.VIEW, self.seed, index))
        for _ in range(_TRIES):
            result = self.deform(label[None], generator)[0]
            if result.shape != label.shape or not set(result.unique().tolist()) <= {0.0, *label.unique().tolist()}:
                raise ValueError(
                    f"LabelRequests: `deform` made values {result.unique().tolist()[:8]} of shape "
                    f"{tuple(result.shape)} from {label.unique().tolist()} of shape {tuple(label.shape)}; it must move "
                    "labels, not mix them."
                )
            if torch.count_nonzero(result) >= self.min_label_pixels:
                return result
        raise ValueError(
            f"LabelRequests: {_TRIES} deformations of {self.slices.describe(self.source(index))} all left fewer than "
            f"{self.min_label_pixels} labelled pixels; deform less, or lower min_label_pixels."
        )


def sample_name(index: int) -> str:
    """Name of the files of a sample."""
    return f"sample_{index:06d}"
