"""Real and synthetic training slices together, in chosen numbers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..seeds import Stream, derive_seed
from .slices import SliceDataset

logger = logging.getLogger(__name__)

_REAL, _SYNTHETIC = 1, 2  # streams of the two draws


def nested_order(strata: Sequence[str] | NDArray[Any], seed: int) -> NDArray[np.int64]:
    """An order of items of which every beginning holds the strata in their proportions, at random otherwise.

    Longer draws therefore contain shorter ones. Of n items, the share of each stratum is met to within two.

    Args:
        strata: what each item belongs to.
        seed: of the draw.
    """
    names, stratum = np.unique(np.asarray(strata), return_inverse=True)
    rng = np.random.default_rng(seed)
    place = np.empty(len(strata))
    for number in range(len(names)):
        members = np.flatnonzero(stratum == number)
        place[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")


@dataclass(frozen=True)
class _Part:
    """Slices of one origin, and the numbers of those that are used."""

    name: str
    slices: SliceDataset
    chosen: NDArray[np.int64]


_REMEDY = {
    "real": "take fewer, or all of them (None).",
    "synthetic": "make more by synthesize.json of the bundle that generates them, or take fewer.",
}


class MixedSlices(Dataset):
    """A number of real slices, then a number of synthetic ones, each drawn at random.

    Draws are stratified by ``group`` if all items of a set have one, otherwise by patient, and nested: with one seed,
    50 slices are among the 100. Entries are numbered from 0, real ones first.

    Args:
        real: slices with ``image`` and ``label``; None: none.
        synthetic: the same, made by a generator; None: none.
        num_real: how many real slices; None: all.
        num_synthetic: how many synthetic slices; None: all.
        seed: of the draws.
        min_label_pixels: slices with fewer labeled pixels are never drawn; 0: every slice may be.

    Attributes:
        num_real, num_synthetic: numbers of slices.

    Raises:
        ValueError: more slices asked for than there are, none at all, or sets that do not fit together.
    """

    def __init__(
        self,
        real: SliceDataset | None,
        synthetic: SliceDataset | None,
        *,
        num_real: int | None = None,
        num_synthetic: int | None = None,
        seed: int = 0,
        min_label_pixels: int = 0,
    ) -> None:
        parts = {
            "real": _draw("real", real, num_real, derive_seed(Stream.ORDER, seed, _REAL, 0), min_label_pixels),
            "synthetic": _draw(
                "synthetic", synthetic, num_synthetic, derive_seed(Stream.ORDER, seed, _SYNTHETIC, 0), min_label_pixels
            ),
        }
        self.num_real, self.num_synthetic = (0 if part is None else len(part.chosen) for part in parts.values())
        self._parts = [part for part in parts.values() if part is not None and len(part.chosen)]
        if not self._parts:
            raise ValueError("MixedSlices: no slices at all; give real or synthetic ones, and numbers above 0.")
        sizes = {tuple(part.slices.images.shape[2:]) for part in self._parts}
        if len(sizes) > 1:
            raise ValueError(
                f"MixedSlices: real and synthetic slices differ in size, {sorted(sizes)}; train on the image size that "
                "the synthetic set was made with."
            )
        logger.info("Training on %d real and %d synthetic slices.", self.num_real, self.num_synthetic)

    def __len__(self) -> int:
        return self.num_real + self.num_synthetic

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"image", "label": (1, X, Y) float32, "index": int}``."""
        part, slice_number = self._place(index)
        return {**part.slices[slice_number], "index": int(index)}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, ``{"image", "label": (B, 1, X, Y) float32, "index": (B,)}``; for `ready_batch`."""
        numbers = np.asarray(indices, dtype=np.int64)
        batch: dict[str, Tensor] = {}
        first = 0
        for part in self._parts:
            rows = np.flatnonzero((numbers >= first) & (numbers < first + len(part.chosen)))
            if len(rows):
                for key, values in part.slices.__getitems__(part.chosen[numbers[rows] - first].tolist()).items():
                    batch.setdefault(key, values.new_empty(len(numbers), *values.shape[1:]))[rows] = values
            first += len(part.chosen)
        return {**batch, "index": torch.from_numpy(numbers)}

    def describe(self, index: int) -> str:
        """Where a slice comes from: file name, slice and frame number."""
        part, slice_number = self._place(index)
        return f"{part.name}: {part.slices.describe(slice_number)}"

    @property
    def patients(self) -> list[str]:
        """Whom each slice shows; a synthetic one, the patient its items name."""
        return [name for part in self._parts for name in np.asarray(part.slices.patients)[part.chosen].tolist()]

    def _place(self, index: int) -> tuple[_Part, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"MixedSlices: there is no entry {index}; there are {len(self)}.")
        for part in self._parts:
            if index < len(part.chosen):
                break
            index -= len(part.chosen)
        return part, int(part.chosen[index])


def _draw(name: str, slices: SliceDataset | None, number: int | None, seed: int, min_label_pixels: int) -> _Part | None:
    """The drawn slices of one origin; None where there are none to draw from and none are asked for."""
    if number is not None and number < 0:
        raise ValueError(f"MixedSlices: num_{name}={number} must not be negative.")
    if slices is None:
        if number:
            raise ValueError(f"MixedSlices: {number} {name} slices are asked for, but no {name} set is given.")
        return None
    eligible = _eligible(slices, min_label_pixels)
    number = len(eligible) if number is None else number
    if number > len(eligible):
        raise ValueError(
            f"MixedSlices: {number} {name} slices are asked for, but there are {len(eligible)}"
            + (f" with at least {min_label_pixels} labeled pixels" if min_label_pixels else "")
            + f"; {_REMEDY[name]}"
        )
    order = nested_order(np.asarray(_strata(slices))[eligible], seed)
    return _Part(name, slices, eligible[order[:number]])


def _eligible(slices: SliceDataset, min_label_pixels: int) -> NDArray[np.int64]:
    """Numbers of the slices with enough labeled pixels."""
    if min_label_pixels <= 0:
        return np.arange(len(slices))
    labels = slices.images[:, slices.keys.index("label")]  # (N, X, Y)
    return np.flatnonzero([np.count_nonzero(label) >= min_label_pixels for label in labels])


def _strata(slices: SliceDataset) -> list[str]:
    """Group of each slice if all items have one, else its patient."""
    if all("group" in item for item in slices.data):
        return [str(slices.data[item]["group"]) for item in slices.origin[:, 0]]
    return slices.patients
